//! Bad input at the command line: one clear message, the right exit code, nothing changed, no panic.

use std::fs;
use std::path::Path;
use std::process::Output;

use tempfile::TempDir;

const GOOD: &str = "\
apiVersion: nodeprep.dev/v1alpha1
kind: Cluster
metadata:
  name: test
nodes:
  - address: 127.0.0.1
volumes:
  - name: openebs
    disk:
      match: disk.transport == \"nvme\" && !system_disk
    minSize: 100GiB
";

/// A folder with an environment of its own.
struct Env {
    dir: TempDir,
}

impl Env {
    fn new(file: &[u8]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("nodeprep.yaml"), file).expect("a file");
        Self { dir }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn run(&self, args: &[&str]) -> Output {
        crate::common::nodeprep(self.path())
            .args(args)
            .env("NODEPREP_STATE", self.path().join("state"))
            .output()
            .expect("nodeprep runs")
    }

    /// Runs, wants this exit code and these words on stderr, and that nothing panicked or was half said.
    fn refuses(&self, args: &[&str], code: i32, words: &[&str]) {
        let output = self.run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
        assert_eq!(stderr.matches("error:").count(), 1, "{args:?}: one message: {stderr}");
        for word in words {
            assert!(stderr.contains(word), "{args:?}: no `{word}` in: {stderr}");
        }
        let runs = self.path().join("state/test/runs");
        assert!(!runs.exists(), "{args:?}: a run was begun");
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "names the case that fails")]
fn a_bad_file_is_refused_with_its_line() {
    let with = |from: &str, to: &str| GOOD.replace(from, to);
    let cases: &[(&str, Vec<u8>, &[&str])] = &[
        ("empty", b"".to_vec(), &["nodeprep.yaml", "empty"]),
        ("only comments", b"# nothing\n\n".to_vec(), &["empty"]),
        ("a list", b"- a\n- b\n".to_vec(), &["nodeprep.yaml:1:"]),
        ("binary", vec![0xff, 0xfe, 0x00, 0x9f, 0x92], &["not a text file"]),
        ("zero bytes", vec![0; 64], &["nodeprep.yaml"]),
        ("unknown key", with("nodes:", "nodez:").into(), &["nodeprep.yaml:5:1", "nodez"]),
        ("unknown key inside", with("    minSize", "    minsize").into(), &["nodeprep.yaml:11:", "minsize"]),
        ("wrong type", with("name: test", "name: [a]").into(), &["nodeprep.yaml:4:"]),
        ("wrong size", with("100GiB", "lots").into(), &["nodeprep.yaml:11:", "lots", "100GiB"]),
        ("wrong version", with("v1alpha1", "v9").into(), &["nodeprep.yaml:1:", "v9"]),
        ("wrong kind", with("Cluster", "Clutter").into(), &["nodeprep.yaml:2:", "Clutter"]),
        ("a port", with("127.0.0.1", "127.0.0.1:50000").into(), &["nodeprep.yaml:6:", "127.0.0.1:50000"]),
        (
            "a bad volume name",
            with("name: openebs", "name: open_ebs").into(),
            &["nodeprep.yaml:8:", "open_ebs"],
        ),
        (
            "a bad selector",
            with("disk.transport", "disk.transportx").into(),
            &["nodeprep.yaml:10:", "transportx"],
        ),
        ("two documents", format!("{GOOD}---\n{GOOD}").into(), &["nodeprep.yaml"]),
        ("a duplicate key", format!("{GOOD}kind: Cluster\n").into(), &["nodeprep.yaml:12:"]),
    ];
    for (name, file, words) in cases {
        eprintln!("case: {name}");
        let env = Env::new(file);
        for verb in ["plan", "apply"] {
            env.refuses(&[verb], 2, words);
        }
    }
}

#[test]
fn a_missing_file_is_named() {
    Env::new(GOOD.as_bytes()).refuses(&["-f", "nowhere.yaml", "plan"], 2, &["nowhere.yaml", "hint:"]);
}

#[test]
fn a_missing_talosconfig_lists_the_places_looked_at() {
    Env::new(GOOD.as_bytes()).refuses(&["plan"], 2, &[".talos/config", "hint:"]);
}

#[test]
fn a_node_that_the_file_does_not_list_is_refused() {
    Env::new(GOOD.as_bytes()).refuses(&["--nodes", "10.0.0.1", "plan"], 2, &["10.0.0.1", "127.0.0.1"]);
}

#[test]
fn a_missing_kubeconfig_is_named() {
    let file = "apiVersion: nodeprep.dev/v1alpha1\nkind: Cluster\nmetadata: {name: test}\nprovisioner: {openebs: {}}\n\
                classes: [{name: fast, basePath: /var/mnt/openebs}]\n";
    let env = Env::new(file.as_bytes());
    env.refuses(&["install", "--yes"], 2, &["kube"]);
    env.refuses(&["--kubeconfig", "gone", "validate"], 2, &["gone"]);
}

/// A scenario of one machine: its system disk, a disk that holds something, a blank one.
const DISKS: &str = "\
machines:
  - address: 127.0.0.1
    disks:
      - {name: nvme0n1, serial: DATA1, size: 1TB, holds: xfs}
      - {name: nvme1n1, serial: BLANK1, size: 1TB}
      - {name: sda, serial: SYS1, size: 250GB, holds: talos}
";

#[test]
fn a_wipe_needs_its_token_and_yes_is_none() {
    let env = Env::new(GOOD.as_bytes());
    fs::write(env.path().join("scenario.yaml"), DISKS).expect("a file");
    let wipe = |args: &[&'static str]| [&["--sandbox=scenario.yaml"], args].concat();
    let table: [(&[&'static str], i32, &[&str]); 7] = [
        (&["wipe", "--yes"], 2, &["nothing is named", "--wipe-disk"]),
        (&["wipe", "--disk", "nvme0n1", "--yes"], 5, &["only by its token", "--wipe-disk DATA1"]),
        (&["wipe", "--disk", "nvme0n1", "--yes", "--wipe-disk", "BLANK1"], 5, &["--wipe-disk DATA1"]),
        (&["wipe", "--disk", "nvme0n1", "--wipe-disk", "DATA1"], 2, &["nobody to confirm", "--yes"]),
        (&["wipe", "--wipe-disk", "SYS1", "--yes"], 5, &["Talos is installed on it"]),
        (&["wipe", "--wipe-disk", "NOPE", "--yes"], 2, &["NOPE", "discover"]),
        (&["remove", "--yes"], 2, &["--volume"]),
    ];
    for (args, code, words) in table {
        env.refuses(&wipe(args), code, words);
    }
    let blank = env.run(&wipe(&["wipe", "--wipe-disk", "BLANK1", "--yes"]));
    assert_eq!(blank.status.code(), Some(0), "{}", String::from_utf8_lossy(&blank.stderr));
}

#[test]
fn a_removal_names_its_nodes_and_is_refused_when_the_cluster_cannot_be_asked() {
    let env = Env::new(GOOD.as_bytes());
    fs::write(env.path().join("talosconfig"), talosconfig::make((2020, 1, 1), (2120, 1, 1), 1))
        .expect("a file");
    let talosconfig = ["--talosconfig", "talosconfig"];
    env.refuses(&[&talosconfig[..], &["remove", "--volume", "openebs", "--yes"]].concat(), 2, &["--nodes"]);
    let nodes = ["--nodes", "127.0.0.1", "--kubeconfig", "gone"];
    let remove = ["remove", "--volume", "openebs", "--yes", "--wipe-disk", "X"];
    env.refuses(
        &[&talosconfig[..], &nodes, &remove].concat(),
        5,
        &["could not be asked", "--ignore-cluster"],
    );
}

#[test]
fn wrong_usage_exits_with_2() {
    let env = Env::new(GOOD.as_bytes());
    for args in [&["plans"][..], &["plan", "--nope"], &["validate", "-o", "xml"], &[]] {
        let output = env.run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn the_schema_knows_the_example_and_the_completions_are_made() {
    let env = Env::new(GOOD.as_bytes());
    let schema = env.run(&["schema"]);
    let schema: serde_json::Value = serde_json::from_slice(&schema.stdout).expect("a JSON schema");
    for key in ["nodes", "volumes", "labels", "provisioner", "classes", "backup", "images", "validation"] {
        assert!(schema["properties"][key].is_object(), "{key}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(!env.run(&["completions", shell]).stdout.is_empty(), "{shell}");
    }
}

/// A talosconfig for 127.0.0.1 with a client certificate of this validity, made on the spot.
mod talosconfig {
    use base64::Engine as _;
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    };

    pub(super) fn make(from: (i32, u8, u8), until: (i32, u8, u8), port: u16) -> String {
        let ca_key = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_cert = ca.self_signed(&ca_key).expect("a CA");
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, "os:admin");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
        params.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
        let cert = params.signed_by(&key, &Issuer::new(ca, ca_key)).expect("a certificate");
        let b64 = |pem: String| base64::engine::general_purpose::STANDARD.encode(pem);
        let key = key.serialize_pem().replace("PRIVATE KEY", "ED25519 PRIVATE KEY");
        format!(
            "context: test\ncontexts:\n  test:\n    endpoints: [\"127.0.0.1:{port}\"]\n    ca: {}\n    crt: {}\n    key: {}\n",
            b64(ca_cert.pem()),
            b64(cert.pem()),
            b64(key)
        )
    }
}

#[test]
fn an_expired_certificate_is_told_from_an_unreachable_node() {
    let closed =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address").port();
    let env = Env::new(GOOD.as_bytes());
    let path = env.path().join("talosconfig");
    fs::write(&path, talosconfig::make((2020, 1, 1), (2021, 1, 1), closed)).expect("a file");
    env.refuses(&["--talosconfig", "talosconfig", "plan"], 2, &["expired", "2021-01-01", "hint:"]);
    fs::write(&path, talosconfig::make((2020, 1, 1), (2120, 1, 1), closed)).expect("a file");
    env.refuses(&["--talosconfig", "talosconfig", "plan"], 75, &["127.0.0.1"]);
    env.refuses(&["--talosconfig", "talosconfig", "apply", "--yes"], 75, &["127.0.0.1"]);
    for junk in [
        "",
        "{",
        "contexts: 5\n",
        "context: a\ncontexts: {a: {endpoints: [x], ca: '!', crt: '!', key: '!'}}\n",
    ] {
        fs::write(&path, junk).expect("a file");
        env.refuses(&["--talosconfig", "talosconfig", "plan"], 2, &["talosconfig"]);
    }
}

#[cfg(unix)]
#[test]
fn encryption_in_place_goes_through_a_link_and_leaves_it() {
    let env = Env::new(GOOD.as_bytes());
    fs::create_dir(env.path().join("real")).expect("a folder");
    fs::write(env.path().join("real/plain.yaml"), "stringData:\n  a: x\n").expect("a file");
    std::os::unix::fs::symlink("real/plain.yaml", env.path().join("link.yaml")).expect("a link");
    let key = env.run(&["secrets", "keygen", "--pq", "-o", "age.key"]);
    let recipient = String::from_utf8(key.stdout).expect("text");
    let target = || fs::read_to_string(env.path().join("real/plain.yaml")).expect("a file");
    let is_link = || fs::symlink_metadata(env.path().join("link.yaml")).is_ok_and(|meta| meta.is_symlink());

    let sealed = env.run(&["secrets", "encrypt", "--age", recipient.trim(), "-i", "link.yaml"]);
    assert!(sealed.status.success(), "{}", String::from_utf8_lossy(&sealed.stderr));
    assert!(is_link() && target().contains("a: ENC["), "{}", target());
    let opened = env.run(&["secrets", "decrypt", "--age-key-file", "age.key", "-i", "link.yaml"]);
    assert!(opened.status.success(), "{}", String::from_utf8_lossy(&opened.stderr));
    assert!(is_link());
    assert_eq!(target(), "stringData:\n  a: x\n");
    assert_eq!(fs::read_dir(env.path().join("real")).expect("a folder").count(), 1, "nothing else is left");
}

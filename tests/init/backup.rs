//! `init` prepares backups: the store, an age key, `.sops.yaml`, and a SOPS file; and it takes nothing away.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use nodeprep::intent::{Intent, parse};
use nodeprep::secrets::{Environment, Identities, load_kubernetes_secrets};
use secrecy::ExposeSecret;

const STORE: [&str; 4] = ["--backup-bucket", "backups", "--backup-url", "https://s3.example.com"];
const CREDENTIALS: [(&str, &str); 2] =
    [("AWS_ACCESS_KEY_ID", "the-id"), ("AWS_SECRET_ACCESS_KEY", "the \"secret\"")];

fn init(folder: &Path, args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command: Command = crate::common::nodeprep(folder);
    command.args(["init", "--nodes", "10.0.0.1", "--name", "c", "-y"]).args(args).envs(env.iter().copied());
    let output = command.output().unwrap();
    let all = [&output.stdout[..], &output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&all).into_owned())
}

fn intent(folder: &Path) -> Intent {
    parse("nodeprep.yaml", &fs::read(folder.join("nodeprep.yaml")).unwrap()).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_store_a_key_a_rule_and_the_secrets_are_prepared() {
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| folder.path().join(path);
    let (code, said) = init(folder.path(), &STORE, &CREDENTIALS);
    assert_eq!(code, Some(0), "{said}");
    let backup = intent(folder.path()).backup.unwrap();
    let location = &backup.location;
    assert_eq!(
        (&location.bucket[..], &location.region[..], location.path_style),
        ("backups", "us-east-1", true)
    );
    assert_eq!(backup.schedules.len(), 1);
    let (key, file) = (at(".config/sops/age/keys.txt"), at("secrets/velero.sops.yaml"));
    assert_eq!((mode(&key), mode(&file)), (0o600, 0o600));
    let rules = fs::read_to_string(at(".sops.yaml")).unwrap();
    assert!(
        rules.contains("encrypted_regex: ^(data|stringData)$") && rules.contains("mac_only_encrypted: true"),
        "{rules}"
    );
    let text = fs::read_to_string(&file).unwrap();
    assert!(
        !said.contains("the \"secret\"")
            && !text.contains("the-id")
            && text.contains("mac_only_encrypted: true")
    );
    let identities = Identities::load(Some(&key), &Environment::default()).unwrap();
    let secrets = load_kubernetes_secrets(&file, &identities).unwrap();
    let value =
        |i: usize, key: &str| String::from_utf8(secrets[i].data[key].expose_secret().to_vec()).unwrap();
    assert_eq!(
        (&secrets[0].name[..], &secrets[1].name[..]),
        ("cloud-credentials", "velero-repo-credentials")
    );
    assert_eq!(
        value(0, "cloud"),
        "[default]\naws_access_key_id=the-id\naws_secret_access_key=the \"secret\"\n"
    );
    assert!(value(1, "repository-password").len() >= 40);

    // Nothing takes the place of what is there: neither the key, nor the rules, nor the secrets.
    let before = [&key, &file, &at(".sops.yaml")].map(|path| fs::read(path).unwrap());
    let (code, said) = init(folder.path(), &[&STORE[..], &["--force"]].concat(), &CREDENTIALS);
    assert!(code == Some(0) && said.contains("secrets/velero.sops.yaml is there already"), "{said}");
    assert_eq!([&key, &file, &at(".sops.yaml")].map(|path| fs::read(path).unwrap()), before);
    // With the secrets gone, the key and the rules that are there are used.
    fs::remove_file(&file).unwrap();
    let (code, said) = init(folder.path(), &[&STORE[..], &["--force"]].concat(), &CREDENTIALS);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(fs::read(&key).unwrap(), before[0]);
    assert!(load_kubernetes_secrets(&file, &identities).is_ok());
}

#[test]
fn what_is_missing_is_told_and_nothing_is_half_done() {
    const OTHER: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], i32, &'a [&'a str], &'a [&'a str]);
    let table: [Case<'_>; 8] = [
        (&[], &[], 0, &["no backup is in the file", "--backup-bucket", "--no-backup"], &["nodeprep.yaml"]),
        (&["--no-backup"], &[], 0, &[], &["nodeprep.yaml"]),
        (
            &STORE,
            &[],
            0,
            &["secrets/velero.sops.yaml was not written", "AWS_ACCESS_KEY_ID"],
            &["nodeprep.yaml"],
        ),
        (&STORE, &CREDENTIALS[..1], 0, &["was not written"], &["nodeprep.yaml"]),
        (&["--backup-url", "https://x"], &[], 2, &["--backup-bucket is missing"], &[]),
        (&["--no-backup", "--backup-bucket", "backups"], &[], 2, &["cannot be used with"], &[]),
        (
            &["--backup-bucket", "backups", "--age", OTHER],
            &CREDENTIALS,
            0,
            &[],
            &[".sops.yaml", "nodeprep.yaml", "secrets"],
        ),
        (&["--backup-bucket", "backups", "--age", "nobody"], &CREDENTIALS, 2, &["nobody"], &[]),
    ];
    for (args, env, code, words, files) in table {
        let folder = tempfile::tempdir().unwrap();
        let (found, said) = init(folder.path(), args, env);
        assert_eq!(found, Some(code), "{args:?}: {said}");
        words.iter().for_each(|word| assert!(said.contains(word), "{args:?}: no `{word}` in: {said}"));
        let mut there: Vec<String> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        there.sort();
        assert_eq!(there, files, "{args:?}: {said}");
        if args == ["--no-backup"] {
            let text = fs::read_to_string(folder.path().join("nodeprep.yaml")).unwrap();
            assert!(text.contains("# No backup:") && text.contains("is lost"), "{text}");
        }
    }
}

#[test]
fn a_passphrase_of_a_talconfig_goes_to_a_sops_file() {
    let folder = tempfile::tempdir().unwrap();
    let talconfig = "clusterName: c\nendpoint: https://10.0.0.1:6443\nnodes:\n  - hostname: a\n    ipAddress: 10.0.0.11\n    userVolumes:\n      \
                     - name: data\n        provisioning: {diskSelector: {match: disk.transport == \"nvme\"}, maxSize: 50GiB}\n        \
                     encryption: {provider: luks2, keys: [{slot: 0, tpm: {}}, {slot: 1, static: {passphrase: topsecret}}]}\n";
    fs::write(folder.path().join("talconfig.yaml"), talconfig).unwrap();
    let (code, said) = super::run(folder.path(), &["init", "--from", "talconfig.yaml", "-y"]);
    assert!(code == Some(0) && !said.contains("topsecret"), "{said}");
    let identities =
        Identities::load(Some(&folder.path().join(".config/sops/age/keys.txt")), &Environment::default())
            .unwrap();
    let secrets =
        load_kubernetes_secrets(&folder.path().join("secrets/volumes.sops.yaml"), &identities).unwrap();
    assert_eq!(secrets[0].data["data-1"].expose_secret(), b"topsecret");
    assert!(!fs::read_to_string(folder.path().join("nodeprep.yaml")).unwrap().contains("topsecret"));
}

#[test]
fn the_first_class_is_the_default_one_where_there_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let (code, said) = super::run(folder.path(), &["init", "--sandbox-nodes", "3", "-y"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(intent(folder.path()).classes[0].default, "{said}");
    // Nothing is known of a cluster that can't be asked.
    let folder = tempfile::tempdir().unwrap();
    let (code, said) = init(folder.path(), &[], &[]);
    assert!(code == Some(0) && !intent(folder.path()).classes[0].default, "{said}");
}

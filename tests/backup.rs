//! What is said of `backup` before anything is sent: by the file's line, and in a plan.

use std::io;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use nodeprep::error::Kind;
use nodeprep::intent::{self, Intent};
use nodeprep::model::cluster::{ClusterState, DryRun, ObjectState};
use nodeprep::model::object::Ready;
use nodeprep::plan::stack as plan_stack;
use nodeprep::stack::{self, StackItem};
use serde_json::{Value, json};

use crate::common::{golden, secret};

const FILE: &str = r#"apiVersion: nodeprep.dev/v1alpha1
kind: Cluster
metadata: {name: lab}
backup:
  location:
    name: minio-s3
    bucket: velero
    prefix: lab
    region: us-east-1
    url: https://minio.lab:9000
    caCert: ca.pem
  credentialsSecret: velero-s3-secret
  secrets: [velero.sops.yaml]
  schedules:
    - name: daily
      cron: 0 2 * * *
      ttl: 720h
    - name: hourly
      cron: "CRON_TZ=Europe/Berlin @hourly"
"#;

fn ca() -> String {
    std::fs::read_to_string(golden("backup/ca.pem")).unwrap()
}

/// With the file `ca.pem` beside it.
fn parse(file: &str) -> nodeprep::error::Result<Intent> {
    let read = |path: &Path| match path.to_str() {
        Some("ca.pem") => Ok(ca()),
        Some("broken.pem") => Ok(ca().replace("MII", "MI!")),
        Some("key.pem") => Ok("\n-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n".into()),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    intent::parse_with("nodeprep.yaml", file.as_bytes(), read)
}

fn secrets() -> Vec<stack::StackSecret> {
    vec![
        secret(
            "velero-s3-secret",
            &[("cloud", "[default]\naws_access_key_id=id\naws_secret_access_key=key\n")],
        ),
        secret("velero-repo-credentials", &[("repository-password", "of the file")]),
    ]
}

#[test]
fn a_bad_line_is_refused_at_its_place() {
    let inline = |pem: &str| format!("caCert: |\n      {}", pem.trim_end().replace('\n', "\n      "));
    for (good, bad, place, words) in [
        (
            "cron: 0 2 * * *",
            "cron: 0 25 * * *".to_owned(),
            "16:13",
            "end of range (25) above maximum (23): 25",
        ),
        ("cron: 0 2 * * *", "cron: 0 2 * *".into(), "16:13", "expected exactly 5 fields, found 4"),
        ("cron: 0 2 * * *", "cron: \"@dayly\"".into(), "16:13", "unrecognized descriptor: @dayly"),
        ("cron: 0 2 * * *", "cron: \"\"".into(), "16:13", "empty spec string"),
        ("CRON_TZ=Europe/Berlin", "CRON_TZ=Mars/Base".into(), "19:13", "unknown time zone Mars/Base"),
        ("ttl: 720h", "ttl: 0h".into(), "17:12", "can't be kept for no time"),
        ("ttl: 720h", "ttl: -1h".into(), "17:12", "-1h"),
        ("name: hourly", "name: daily".into(), "18:13", "daily is listed twice"),
        ("name: minio-s3", "name: Minio".into(), "6:11", "`Minio` is not a name for a location"),
        ("bucket: velero", "bucket: velero/lab".into(), "7:13", "is not a bucket's name"),
        ("bucket: velero", "bucket: My_Bucket".into(), "7:13", "is not a bucket's name"),
        ("prefix: lab", "prefix: /lab/".into(), "8:13", "is not a folder in a bucket"),
        ("url: https://minio.lab:9000", "url: minio.lab:9000".into(), "10:10", "has no scheme"),
        (
            "url: https://minio.lab:9000",
            "url: https://minio.lab:9000/velero".into(),
            "10:10",
            "holds the bucket",
        ),
        ("url: https://minio.lab:9000", "url: http://minio.lab:9000".into(), "11:13", "shows no certificate"),
        (
            "credentialsSecret: velero-s3-secret",
            "credentialsSecret: velero-repo-credentials".into(),
            "12:22",
            "the repository's password",
        ),
        ("caCert: ca.pem", "caCert: nowhere.pem".into(), "11:13", "can't read nowhere.pem"),
        ("caCert: ca.pem", "caCert: broken.pem".into(), "11:13", "broken.pem:2: it is not base64"),
        (
            "caCert: ca.pem",
            "caCert: key.pem".into(),
            "11:13",
            "key.pem:2: this is a PRIVATE KEY, not a certificate",
        ),
        (
            "caCert: ca.pem",
            inline(&ca().replace("MII", "MI!")),
            "11:13",
            "line 2 of the certificates: it is not base64",
        ),
        (
            "caCert: ca.pem",
            inline(ca().split("-----END").next().unwrap()),
            "11:13",
            "has no -----END CERTIFICATE-----",
        ),
    ] {
        assert!(FILE.contains(good), "{good}");
        let error = parse(&FILE.replace(good, &bad)).expect_err(&bad);
        assert_eq!(error.kind, Kind::Invalid, "{bad}");
        assert!(error.what.starts_with(&format!("nodeprep.yaml:{place}: ")), "{bad}: {error}");
        assert!(error.what.contains(words), "{bad}: {error}");
        assert!(error.hint.is_some(), "{bad}");
    }
    let kept_for_ever = parse(&FILE.replace("ttl: 720h", "ttl: 0s")).unwrap_err();
    assert!(kept_for_ever.hint.is_some_and(|hint| hint.contains("30 days of 0")));
    assert!(parse(&FILE.replace("caCert: ca.pem", &inline(&ca()))).is_ok());
}

#[test]
fn the_names_and_the_authority_of_the_file_go_everywhere() {
    let items = stack::render(&parse(FILE).unwrap(), &secrets()).unwrap();
    let of = |kind: &str| {
        let found = items.iter().find_map(|item| match item {
            StackItem::Object(object) if object.kind() == kind => Some(&object.value),
            _ => None,
        });
        found.unwrap().clone()
    };
    let location = of("BackupStorageLocation");
    assert_eq!(location["metadata"]["name"], "minio-s3");
    assert_eq!(location["spec"]["objectStorage"]["caCert"], BASE64_STANDARD.encode(ca()));
    assert_eq!(of("Schedule")["spec"]["template"]["storageLocation"], "minio-s3");
    for kind in ["Deployment", "DaemonSet"] {
        let volumes = of(kind)["spec"]["template"]["spec"]["volumes"].clone();
        let named =
            volumes.as_array().unwrap().iter().find_map(|volume| volume["secret"]["secretName"].as_str());
        assert_eq!(named, Some("velero-s3-secret"), "{kind}");
    }
    let waits =
        |wanted: &Ready| items.iter().any(|item| matches!(item, StackItem::Ready(ready) if ready == wanted));
    assert!(waits(&Ready::BackupLocation { namespace: "velero".into(), name: "minio-s3".into() }));
    assert!(waits(&Ready::Schedule { namespace: "velero".into(), name: "daily".into() }));
    let error = stack::render(&parse(FILE).unwrap(), &secrets()[1..]).unwrap_err();
    assert!(error.what.contains("`velero-s3-secret` is missing") && error.hint.is_some(), "{error}");
}

/// The warnings of a plan for a cluster with this live password, if any.
fn warnings(file: &str, password: Option<&str>) -> Vec<String> {
    let intent = parse(file).unwrap();
    let rendered =
        if intent.backup.is_some() { stack::render(&intent, &secrets()).unwrap() } else { Vec::new() };
    let of_password = |item: &StackItem| matches!(item, StackItem::Object(object) if object.name() == "velero-repo-credentials");
    let items: Vec<StackItem> = rendered.into_iter().filter(of_password).collect();
    let state = |item: &StackItem| {
        let StackItem::Object(wanted) = item else { panic!("an object") };
        let live: Option<Value> = password
            .map(|password| json!({"kind": "Secret", "data": {"repository-password": BASE64_STANDARD.encode(password)}}));
        let dry_run = DryRun::Would(live.clone().unwrap_or_default());
        ObjectState { wanted: wanted.clone(), live, owner: None, dry_run }
    };
    let observed = ClusterState { objects: items.iter().map(state).collect(), ..ClusterState::default() };
    plan_stack::plan(&intent, &items, &observed).unwrap().warnings
}

#[test]
fn a_plan_warns_of_what_leaves_data_unprotected() {
    let none: &[&str] = &[];
    let http = FILE.replace("https://", "http://").replace("    caCert: ca.pem\n", "");
    let bare = FILE.split("backup:").next().unwrap().to_owned();
    let never = FILE.replace("cron: 0 2 * * *", "cron: 0 2 30 2 *");
    let unscheduled = FILE.split("  schedules:").next().unwrap().to_owned();
    let dotted = FILE.replace("bucket: velero", "bucket: velero.lab");
    for (name, file, password, words) in [
        ("good", FILE, None, none),
        ("good", FILE, Some("of the file"), none),
        ("with white space, as Velero reads it", FILE, Some("of the file\n"), none),
        (
            "another password",
            FILE,
            Some("of the cluster"),
            &["Secret velero/velero-repo-credentials is not the one of the file", "old backups need it"],
        ),
        ("in the clear", &http, None, &["http://minio.lab:9000", "in the clear"]),
        ("no backup", &bare, None, &["nothing is backed up"]),
        ("no schedules", &unscheduled, None, &["nothing is backed up on its own"]),
        ("a day that never comes", &never, None, &["a day that never comes"]),
        ("a bucket with dots", &dotted, None, &["pathStyle: true"]),
    ] {
        let said = warnings(file, password);
        assert_eq!(said.len(), usize::from(!words.is_empty()), "{name}: {said:?}");
        for word in words {
            assert!(said.iter().any(|said| said.contains(word)), "{name}: {said:?}");
        }
        assert!(!said.join(" ").contains("of the cluster"), "{name}");
    }
}

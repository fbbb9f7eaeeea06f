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
    let mut wrong = Vec::new();
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
        ("ttl: 720h", "ttl: forever".into(), "17:12", "nor for ever"),
        ("ttl: 720h", "ttl: 0".into(), "17:12", "nor for ever"),
        ("ttl: 720h", "ttl:".into(), "17:10", "nor for ever"),
        ("ttl: 720h", "ttl: 3000000h".into(), "17:12", "longer than Velero can count"),
        ("ttl: 720h", "location: s3".into(), "17:17", "the file has no location s3"),
        ("ttl: 720h", "namespaces: [web, '*']".into(), "17:25", "`*` stands for all"),
        ("ttl: 720h", "namespaces: ['app-**']".into(), "17:20", "`app-**` has two stars"),
        ("ttl: 720h", "excludedNamespaces: ['*']".into(), "17:28", "`*` leaves nothing"),
        (
            "ttl: 720h",
            "namespaces: [a]\n      excludedNamespaces: [a]".into(),
            "17:20",
            "`a` is left out again by `excludedNamespaces`",
        ),
        (
            "ttl: 720h",
            "namespaces: [shop, kube-system]\n      excludedNamespaces: ['kube-*']".into(),
            "17:26",
            "`kube-system` is left out again",
        ),
        ("ttl: 720h", "labelSelector: {}".into(), "17:7", "`labelSelector` names no label"),
        ("ttl: 720h", "labelSelector: {matchLabels: {a b: c}}".into(), "17:42", "not a label key"),
        (
            "ttl: 720h",
            "labelSelector: {matchExpressions: [{key: a, operator: In}]}".into(),
            "17:42",
            "In and NotIn need `values`",
        ),
        ("ttl: 720h", "preset: application".into(), "17:15", "needs to know what belongs to it"),
        ("- name: daily\n      cron: 0 2 * * *", "- cron: 0 2 * * *".into(), "15:7", "has no `name`"),
        ("      cron: 0 2 * * *\n", String::new(), "15:7", "has no `cron`"),
        ("ttl: 720h", "hooks: [{name: dump}]".into(), "17:15", "hook dump runs nothing"),
        ("ttl: 720h", "hooks: [{name: dump, pre: [{command: []}]}]".into(), "17:35", "there is no command"),
        (
            "ttl: 720h",
            "hooks: [{name: dump, pre: [{command: [dump], timeout: 31m}]}]".into(),
            "17:61",
            "31m0s is not a time for a command",
        ),
        (
            "ttl: 720h",
            "hooks: [{name: dump, pre: [{command: [dump], onError: Ignore}]}]".into(),
            "17:61",
            "Ignore",
        ),
        (
            "ttl: 720h",
            "hooks: [{name: a, pre: [{command: [x]}]}, {name: a, pre: [{command: [x]}]}]".into(),
            "17:56",
            "hook a is listed twice",
        ),
        (
            "credentialsSecret: velero-s3-secret",
            "locations: [{name: minio-s3, bucket: other, region: x}]".into(),
            "12:22",
            "location minio-s3 is listed twice",
        ),
        (
            "credentialsSecret: velero-s3-secret",
            "locations: [{name: b, bucket: velero, prefix: lab, url: 'https://minio.lab:9000/', region: x}]"
                .into(),
            "12:15",
            "locations minio-s3 and b are one folder of one bucket",
        ),
        (
            "credentialsSecret: velero-s3-secret",
            "locations: [{name: b, bucket: other, region: x, caCert: nowhere.pem}]".into(),
            "12:59",
            "can't read nowhere.pem",
        ),
        (
            "region: us-east-1",
            "region: us-east-1\n    credentialsSecret: own".into(),
            "10:24",
            "are those of the server",
        ),
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
        let right = error.what.starts_with(&format!("nodeprep.yaml:{place}: ")) && error.what.contains(words);
        if !right || error.hint.is_none() {
            wrong.push(format!("{bad}: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
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

#[test]
fn a_location_of_several_has_its_own_credentials_and_one_is_the_default() {
    let more = "  locations:\n    - {name: offsite, bucket: far, region: x, credentialsSecret: far-secret}\n    \
                - {name: near, bucket: near, region: x}\n  schedules:\n    - {name: far, cron: '@weekly', location: offsite}";
    let file = FILE.replace("  schedules:", more);
    let all = [&secrets()[..], &[secret("far-secret", &[("cloud", "[default]\naws_access_key_id=far\n")])]]
        .concat();
    let items = stack::render(&parse(&file).unwrap(), &all).unwrap();
    let objects = |kind: &str| -> Vec<Value> {
        let of = |item: &StackItem| match item {
            StackItem::Object(object) if object.kind() == kind => Some(object.value.clone()),
            _ => None,
        };
        items.iter().filter_map(of).collect()
    };
    let told = |location: &Value| {
        let spec = &location["spec"];
        (location["metadata"]["name"].clone(), spec["default"].clone(), spec["credential"]["name"].clone())
    };
    let locations = objects("BackupStorageLocation");
    let wanted = [
        (json!("offsite"), json!(false), json!("far-secret")),
        (json!("near"), json!(false), Value::Null),
        (json!("minio-s3"), json!(true), Value::Null),
    ];
    assert_eq!(locations.iter().map(told).collect::<Vec<_>>(), wanted);
    let mark = |location: &Value| location["metadata"]["annotations"]["nodeprep.dev/credentials"].clone();
    assert_eq!(mark(&locations[1]), mark(&locations[2]), "one Secret");
    assert_ne!(mark(&locations[0]), mark(&locations[2]), "another Secret");
    let goes_to: Vec<Value> =
        objects("Schedule").iter().map(|one| one["spec"]["template"]["storageLocation"].clone()).collect();
    assert_eq!(goes_to, ["offsite", "minio-s3", "minio-s3"]);
    let secrets_of_file = objects("Secret");
    assert_eq!(secrets_of_file.len(), 3);
    let error = stack::render(&parse(&file).unwrap(), &secrets()).unwrap_err();
    assert!(error.what.contains("`far-secret` is missing"), "{error}");
    let backup = parse(&file).unwrap().backup.unwrap();
    let on_demand = backup.going_to("offsite").unwrap();
    assert_eq!(
        stack::backup_spec(&on_demand, &[], None, intent::Duration(3600)).unwrap()["storageLocation"],
        "offsite"
    );
    assert!(backup.going_to("nowhere").is_none());
}

#[test]
fn the_schema_has_all_that_a_schedule_may_say() {
    let schema = intent::schema();
    let keys = |of: &str| -> Vec<String> {
        schema["$defs"][of]["properties"].as_object().unwrap().keys().cloned().collect()
    };
    for key in [
        "preset",
        "excludedNamespaces",
        "labelSelector",
        "location",
        "paused",
        "defaultVolumesToFsBackup",
        "hooks",
    ] {
        assert!(keys("Schedule").iter().any(|one| one == key), "{key}");
    }
    assert!(keys("Backup").contains(&"locations".to_owned()));
    assert_eq!(schema["$defs"]["Hook"]["required"], json!(["name"]));
    let presets = schema["$defs"]["Preset"].to_string();
    for preset in ["daily", "hourly", "weekly", "monthly", "yearly", "application"] {
        assert!(presets.contains(&format!("\"{preset}\"")), "{presets}");
    }
}

#[test]
fn a_paused_schedule_is_sent_so_and_not_waited_for() {
    let items =
        stack::render(&parse(&FILE.replace("ttl: 720h", "paused: true")).unwrap(), &secrets()).unwrap();
    let paused = items.iter().any(|item| {
        matches!(item, StackItem::Object(object) if object.name() == "daily" && object.value["spec"]["paused"] == true)
    });
    let awaited = |item: &StackItem| match item {
        StackItem::Ready(Ready::Schedule { name, .. }) => Some(name.clone()),
        _ => None,
    };
    assert!(paused);
    assert_eq!(items.iter().filter_map(awaited).collect::<Vec<_>>(), ["hourly"]);
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
    let paused = FILE.replace("ttl: 720h", "paused: true");
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
        ("a schedule that rests", &paused, None, &["schedule daily is `paused`"]),
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

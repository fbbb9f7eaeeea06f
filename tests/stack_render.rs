//! What is installed, as golden files: every object and every wait, in the order they are sent.

use nodeprep::error::Kind;
use nodeprep::intent::{self, Intent};
use nodeprep::model::object::Ready;
use nodeprep::stack::{self, StackItem, StackSecret};

use crate::common::secret;

const HEAD: &str = "apiVersion: nodeprep.dev/v1alpha1\nkind: Cluster\nmetadata: {name: lab}\n";

const CLASSES: &str = r#"
volumes:
  - name: openebs
    disk: {match: 'disk.transport == "nvme" && !system_disk'}
    minSize: 100GiB
    filesystem: {projectQuota: true}
classes:
  - {name: openebs-hostpath, basePath: /var/mnt/openebs, default: true}
  - {name: openebs-keep, basePath: /var/mnt/openebs/keep, reclaimPolicy: Retain}
  - {name: elsewhere, basePath: /var/mnt/openebs2}
"#;

const BACKUP: &str = r#"
backup:
  location: {bucket: velero, prefix: lab, region: us-east-1, url: "http://10.88.0.1:7070", pathStyle: true, checksumAlgorithm: ""}
  secrets: [secrets.sops.yaml]
  schedules:
    - {name: daily, cron: "0 2 * * *", namespaces: [databases, web]}
    - {name: weekly-all, cron: "0 3 * * 0", ttl: 2160h}
"#;

fn intent(rest: &str) -> Intent {
    intent::parse("nodeprep.yaml", format!("{HEAD}{rest}").as_bytes()).unwrap()
}

fn secrets() -> Vec<StackSecret> {
    vec![
        secret("velero-repo-credentials", &[("repository-password", "correct horse")]),
        secret(
            "cloud-credentials",
            &[("cloud", "[default]\naws_access_key_id=id\naws_secret_access_key=key\n")],
        ),
    ]
}

/// As YAML documents; a wait is a comment, and of a CRD only the name is shown.
fn shown(items: &[StackItem]) -> String {
    let mut text = String::new();
    for item in items {
        text += &match item {
            StackItem::Object(o) if o.kind() == "CustomResourceDefinition" => format!("# {}\n", o.title()),
            StackItem::Object(o) => {
                let marks = [(o.secret, " (secret)"), (o.create_only, " (create only)")];
                let marks: String = marks.iter().filter(|(is, _)| *is).map(|(_, mark)| *mark).collect();
                format!("--- # {}{marks}\n{}", o.component, serde_yaml::to_string(&o.value).unwrap())
            }
            StackItem::Ready(Ready::Crd { name }) => format!("# wait for CRD {name}\n"),
            StackItem::Ready(Ready::Workload { kind, namespace, name }) => {
                format!("# wait for {kind} {namespace}/{name}\n")
            }
            StackItem::Ready(Ready::Node { name }) => format!("# wait for Node {name}\n"),
            StackItem::Ready(Ready::BackupLocation { namespace, name }) => {
                format!("# wait for BackupStorageLocation {namespace}/{name}\n")
            }
            StackItem::Ready(Ready::Schedule { namespace, name }) => {
                format!("# wait for Schedule {namespace}/{name}\n")
            }
        };
    }
    text
}

fn assert_golden(name: &str, items: &[StackItem]) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("golden/stack");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, shown(items)));
}

#[test]
fn openebs_as_a_deployment_is_the_golden_file() {
    let intent = intent(&format!("provisioner: {{openebs: {{}}}}\n{CLASSES}"));
    assert_golden("deployment", &stack::render(&intent, &[]).unwrap());
}

#[test]
fn openebs_as_a_daemonset_is_the_golden_file() {
    let provisioner = "provisioner:\n  openebs:\n    namespace: storage\n    workload: DaemonSet\n    \
                       nodeSelector: {openebs.io/storage-node: \"true\"}\nimages: {helper: mirror.lab/linux-utils:4.2.0}";
    let intent = intent(&format!("{provisioner}\n{CLASSES}"));
    assert_golden("daemonset", &stack::render(&intent, &[]).unwrap());
}

#[test]
fn velero_is_the_golden_file() {
    assert_golden("velero", &stack::render(&intent(BACKUP), &secrets()).unwrap());
}

#[test]
fn locations_and_schedules_of_the_example_are_the_golden_file() {
    let intent = intent::parse("backups.yaml", include_bytes!("../examples/backups.yaml")).unwrap();
    let cloud = [("cloud", "[default]\naws_access_key_id=id\naws_secret_access_key=key\n")];
    let stores = ["velero-s3-secret", "offsite-s3-secret"].map(|name| secret(name, &cloud));
    let items = stack::render(&intent, &[&secrets()[..1], &stores].concat()).unwrap();
    let shown = |item: &StackItem| match item {
        StackItem::Object(object) => ["BackupStorageLocation", "Schedule"].contains(&object.kind()),
        StackItem::Ready(ready) => matches!(ready, Ready::BackupLocation { .. } | Ready::Schedule { .. }),
    };
    assert_golden("backups", &items.into_iter().filter(shown).collect::<Vec<_>>());
}

#[test]
fn classes_of_csi_drivers_beside_those_of_two_provisioners_are_the_golden_file() {
    let text = "provisioner:\n  openebs: {}\n  \
         external: {name: rancher.io/local-path, namespace: kube-system, selector: {app: x}}\nclasses:\n  \
         - {name: local, basePath: /var/mnt/openebs, provisioner: openebs}\n  \
         - {name: theirs, basePath: /opt/local-path, provisioner: external}\n  \
         - name: fast-ssd\n    csi:\n      driver: ebs.csi.aws.com\n      \
             parameters: {type: gp3, iops: \"16000\", throughput: \"1000\", encrypted: \"true\"}\n      expansion: true\n      \
             mountOptions: [noatime]\n    default: true\n  \
         - {name: shared, csi: {driver: nfs.csi.k8s.io, bindingMode: Immediate}, reclaimPolicy: Retain}";
    let items = stack::render(&intent(text), &[]).unwrap();
    let classes: Vec<_> = items
        .into_iter()
        .filter(|item| matches!(item, StackItem::Object(object) if object.kind() == "StorageClass"))
        .collect();
    assert_golden("classes", &classes);
}

#[test]
fn an_external_provisioner_installs_nothing() {
    let external =
        "provisioner: {external: {name: rancher.io/local-path, namespace: kube-system, selector: {app: x}}}";
    assert!(stack::render(&intent(&format!("{external}\n{CLASSES}")), &[]).unwrap().is_empty());
    assert!(stack::render(&intent(""), &[]).unwrap().is_empty());
}

#[test]
fn a_shared_namespace_is_sent_once() {
    let both = "provisioner: {openebs: {namespace: storage}}\n";
    let backup = BACKUP.replace("backup:\n", "backup:\n  namespace: storage\n");
    let items = stack::render(&intent(&format!("{both}{backup}")), &secrets()).unwrap();
    let namespaces =
        items.iter().filter(|item| matches!(item, StackItem::Object(o) if o.kind() == "Namespace"));
    assert_eq!(namespaces.count(), 1);
}

#[test]
fn all_thirteen_crds_of_velero_come_before_the_server_and_are_waited_for() {
    let items = stack::render(&intent(BACKUP), &secrets()).unwrap();
    let place = |wanted: &dyn Fn(&StackItem) -> bool| items.iter().position(wanted).unwrap();
    let server = place(&|i| matches!(i, StackItem::Object(o) if o.kind() == "Deployment"));
    let password = place(&|i| matches!(i, StackItem::Object(o) if o.name() == "velero-repo-credentials"));
    let waits: Vec<_> =
        items.iter().take(server).filter(|i| matches!(i, StackItem::Ready(Ready::Crd { .. }))).collect();
    assert_eq!(waits.len(), 13);
    assert!(password < server);
    assert!(matches!(&items[password], StackItem::Object(o) if o.create_only && o.secret));
}

#[test]
fn hostile_values_stay_values() {
    let nasty = r#"
backup:
  location: {bucket: velero, prefix: "a: b\n# c\"'{{ x }}", region: "no", url: "http://x"}
  secrets: [velero.sops.yaml]
"#;
    let items = stack::render(&intent(nasty), &secrets()).unwrap();
    let location = items.iter().find_map(|item| match item {
        StackItem::Object(o) if o.kind() == "BackupStorageLocation" => Some(&o.value),
        _ => None,
    });
    let spec = &location.unwrap()["spec"];
    assert_eq!(spec["objectStorage"]["prefix"], "a: b\n# c\"'{{ x }}");
    assert_eq!(spec["config"]["region"], "no");
}

#[test]
fn a_missing_or_wrong_secret_is_named() {
    let intent = intent(BACKUP);
    let cases: [(Vec<StackSecret>, &str); 6] = [
        (vec![], "Secret `cloud-credentials` is missing"),
        (secrets()[1..].to_vec(), "Secret `velero-repo-credentials` is missing"),
        (
            vec![secret("cloud-credentials", &[("Cloud", "x")]), secrets()[0].clone()],
            "Secret `cloud-credentials` has no key `cloud`",
        ),
        (
            vec![secrets()[1].clone(), secret("velero-repo-credentials", &[("repository-password", " \n")])],
            "Secret `velero-repo-credentials`: the value of `repository-password` is empty",
        ),
        (
            vec![
                secrets()[0].clone(),
                secret("cloud-credentials", &[("cloud", "ENC[AES256_GCM,data:AA==]")]),
            ],
            "Secret `cloud-credentials`: the value of `cloud` is still encrypted",
        ),
        (
            [secrets(), vec![secret("cloud-credential", &[("cloud", "x")])]].concat(),
            "Secret `cloud-credential` is not one that Velero needs",
        ),
    ];
    for (secrets, text) in cases {
        let error = stack::render(&intent, &secrets).unwrap_err();
        assert_eq!(error.kind, Kind::Invalid);
        assert!(error.what.starts_with(text), "{error}");
    }
}

#[test]
fn no_secret_shows_in_debug_output() {
    let items = stack::render(&intent(BACKUP), &secrets()).unwrap();
    let text = format!("{items:?} {:?}", secrets());
    assert!(!text.contains("correct horse") && !text.contains("Y29ycmVjdCBob3JzZQ"), "{text}");
}

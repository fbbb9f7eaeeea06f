//! Laws of patches over generated configs and patches.

use nodeprep::config_doc::{ConfigDoc, redact};
use nodeprep::yaml::quote;
use proptest::prelude::*;

use super::cases;
use crate::common::diff;

/// A value of a field, as it may be written: the same one in several spellings.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z][a-z0-9.-]{0,8}",
        "[a-z ]{1,8}".prop_map(|text| format!("'{text}'")),
        "\\PC{1,8}".prop_map(|text| quote(&text)),
    ]
}

/// A map of labels, an empty one included, in block or flow style.
fn labels() -> impl Strategy<Value = Vec<String>> {
    let entries = proptest::collection::btree_map("[a-d]", text(), 0..4);
    (entries, any::<bool>(), "[ a-z]{0,6}").prop_map(|(entries, flow, comment)| {
        if flow || entries.is_empty() {
            let entries: Vec<_> =
                entries.iter().map(|(key, value)| format!("{key}: {}", quote(value))).collect();
            return vec![format!("nodeLabels: {{{}}} #{comment}", entries.join(", "))];
        }
        let entries = entries.iter().map(|(key, value)| format!("\t{key}: {value} #{comment}"));
        std::iter::once(format!("nodeLabels: #{comment}")).chain(entries).collect()
    })
}

fn list(name: &'static str) -> impl Strategy<Value = Vec<String>> {
    (proptest::collection::vec("[a-z]{1,5}", 0..3), 0..3).prop_map(move |(items, style)| match style {
        0 => vec![format!("{name}: [{}]", items.join(", "))],
        _ if items.is_empty() => vec![format!("{name}:")],
        1 => std::iter::once(format!("{name}:"))
            .chain(items.iter().map(|i| format!("\t- {i} # {i}")))
            .collect(),
        _ => {
            std::iter::once(format!("{name}: # all")).chain(items.iter().map(|i| format!("- {i}"))).collect()
        }
    })
}

fn interfaces() -> impl Strategy<Value = Vec<String>> {
    let device = ("eth[0-2]", 0..2000u32, any::<bool>());
    proptest::collection::btree_map("eth[0-2]", device, 0..3).prop_map(|devices| {
        let lines = devices.into_iter().flat_map(|(name, (_, mtu, dhcp))| {
            [
                format!("\t\t- interface: {name}"),
                format!("\t\t  mtu: {mtu}"),
                format!("\t\t  dhcp: {dhcp} # {mtu}"),
            ]
        });
        let lines: Vec<_> = lines.collect();
        if lines.is_empty() {
            vec!["network: {}".to_owned()]
        } else {
            ["network:".to_owned(), "\tinterfaces:".to_owned()].into_iter().chain(lines).collect()
        }
    })
}

fn subnets() -> impl Strategy<Value = Vec<String>> {
    list("podSubnets").prop_map(|list| {
        std::iter::once("network:".to_owned()).chain(list.iter().map(|line| format!("\t{line}"))).collect()
    })
}

/// Sections of a machine config; a patch is another one of them, with or without lists that grow.
pub(super) fn config(growing: bool) -> impl Strategy<Value = String> {
    let sans = if growing { list("certSANs").boxed() } else { Just(Vec::new()).boxed() };
    let disk = prop_oneof![
        Just(Vec::new()),
        text().prop_map(|disk| vec!["install:".into(), format!("\tdisk: {disk}")])
    ];
    let volume = prop_oneof![Just(None), (1..900u32, any::<bool>()).prop_map(Some)];
    (labels(), sans, interfaces(), disk, subnets(), volume, any::<bool>(), 1..3usize).prop_map(
        |(labels, sans, interfaces, disk, subnets, volume, windows, step)| {
            let machine = [labels, sans, interfaces, disk].concat();
            let mut lines = vec!["machine:".to_owned(), "\ttype: worker # w".to_owned()];
            lines.extend(machine.iter().map(|line| format!("\t{line}")));
            lines.push("cluster:".to_owned());
            lines.extend(subnets.iter().map(|line| format!("\t{line}")));
            if let Some((size, grow)) = volume {
                lines.push(format!(
                    "---\napiVersion: v1alpha1\nkind: UserVolumeConfig\nname: v\nprovisioning:\n\tdiskSelector: {{match: 'true'}}\n\tminSize: {size}GiB # s\n\tgrow: {grow}"
                ));
            }
            let text = lines.join("\n").replace('\t', &" ".repeat(2 * step)) + "\n";
            if windows { text.replace('\n', "\r\n") } else { text }
        },
    )
}

fn patched(config: &str, patch: &str) -> Result<String, TestCaseError> {
    let fail = |error: nodeprep::error::Error| {
        TestCaseError::fail(format!("{}\n--- config\n{config}\n--- patch\n{patch}", error.what))
    };
    let mut doc = ConfigDoc::parse(config).map_err(fail)?;
    doc.patch(patch).map_err(fail)?;
    Ok(doc.text().to_owned())
}

#[test]
fn an_empty_patch_changes_no_byte_of_any_case() {
    for (name, config, _) in cases().into_iter().filter(|(_, config, _)| config.contains("machine:")) {
        for empty in [
            "",
            "# nothing\n",
            "---\n---\n",
            "machine: null\n",
            "machine:\ncluster:\n",
            "version: v1alpha1\n",
        ] {
            let mut doc = ConfigDoc::parse(&config).unwrap();
            assert!(!doc.patch(empty).unwrap(), "{name} {empty:?}");
            assert_eq!(doc.text(), config, "{name} {empty:?}");
        }
    }
}

/// Twice is once, but for lists that Talos appends to: it does so again.
#[test]
fn a_case_applied_twice_is_the_case_applied_once_but_for_lists_that_grow() {
    let growing = [
        "admission-plugins-by-name",
        "extra-config",
        "file-content",
        "flow-config",
        "inline-manifests",
        "interfaces-by-name",
        "interfaces-selector-with-bool",
        "list-appended",
        "list-appended-flow",
        "list-empty-flow",
        "list-new",
        "list-null",
        "list-of-maps",
        "list-of-maps-new",
        "list-without-indentation",
        "service-files-by-path",
        "struct-in-map",
        "two-spaces",
        "vlans-by-id",
        "windows-line-ends",
        "written-patch-n1", // the keys of its encrypted volumes
    ];
    let mut grown = Vec::new();
    for (name, config, patch) in cases() {
        let mut doc = ConfigDoc::parse(&config).unwrap();
        if doc.patch(&patch).is_err() {
            continue;
        }
        let once = doc.text().to_owned();
        match doc.patch(&patch) {
            Ok(_) if doc.text() == once => {}
            Ok(_) => grown.push(name),
            Err(error) => panic!("{name}: {}", error.what),
        }
    }
    assert_eq!(grown, growing);
}

#[test]
fn no_secret_shows_in_the_diff_of_any_case() {
    for (name, config, patch) in cases() {
        let mut doc = ConfigDoc::parse(&config).unwrap();
        if doc.patch(&patch).is_ok() {
            let shown = diff(&config, doc.text());
            for secret in ["0123456789abcdef", "T0xE", "S0VZ", "jointoken=t", "jointoken=u"] {
                assert!(!shown.contains(secret), "{name}: {secret} in {shown}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn an_empty_patch_changes_no_byte(config in config(true)) {
        for empty in ["", "# nothing\n", "---\n", "machine:\ncluster: null\n"] {
            prop_assert_eq!(&patched(&config, empty)?, &config);
        }
    }

    #[test]
    fn a_config_patched_with_another_twice_is_patched_once(config in config(false), patch in config(false)) {
        let once = patched(&config, &patch)?;
        prop_assert_eq!(&patched(&once, &patch)?, &once);
    }

    #[test]
    fn a_list_grows_by_the_items_of_the_patch_each_time(config in config(true), sans in proptest::collection::vec("[a-z]{1,5}", 1..4)) {
        let items = |text: &str| -> Result<Vec<String>, TestCaseError> {
            let doc = ConfigDoc::parse(text).map_err(|error| TestCaseError::fail(error.what))?;
            let legacy = doc.legacy().ok_or_else(|| TestCaseError::fail("no legacy document"))?;
            let items = legacy.root.get(&["machine", "certSANs"]).map(|list| list.items().to_vec()).unwrap_or_default();
            Ok(items.iter().filter_map(|item| item.text().map(str::to_owned)).collect())
        };
        let patch = format!("machine: {{certSANs: [{}]}}\n", sans.join(", "));
        let once = patched(&config, &patch)?;
        let twice = patched(&once, &patch)?;
        prop_assert_eq!(items(&once)?, [items(&config)?, sans.clone()].concat());
        prop_assert_eq!(items(&twice)?, [items(&config)?, sans.clone(), sans].concat());
    }

    /// Every line of the config that has nothing to do with what the patch names is in the result, in order.
    #[test]
    fn lines_that_the_patch_does_not_name_survive(config in config(true), value in text()) {
        let result = patched(&config, &format!("machine:\n  sysctls:\n    a: {value}\n"))?;
        let mut lines = result.lines();
        for line in config.lines() {
            prop_assert!(lines.any(|other| other == line), "{line:?} of\n{config}\nis not in\n{result}");
        }
    }

    #[test]
    fn a_deleted_label_is_gone_and_no_other(config in config(true), key in "[a-d]") {
        let labels = |text: &str| ConfigDoc::parse(text).map(|doc| doc.labels()).map_err(|e| TestCaseError::fail(e.what));
        let mut expected = labels(&config)?;
        expected.remove(&key);
        let result = patched(&config, &format!("machine: {{nodeLabels: {{{key}: {{$patch: delete}}}}}}\n"))?;
        prop_assert_eq!(labels(&result)?, expected);
    }

    #[test]
    fn no_text_makes_a_patch_panic(
        config in config(true),
        patch in r#"(machine|cluster|network|nodeLabels|certSANs|interfaces|kind|apiVersion|name|\$patch: delete|: |:\n|\n|  |- |\{|\}|\[|\]|, |#|'|"|\||a|1|null|~|&a|\*a|<<|---\n|!!str ){0,24}"#,
        noise in ".{0,40}",
    ) {
        for patch in [patch.as_str(), noise.as_str()] {
            if let Ok(mut doc) = ConfigDoc::parse(&config) {
                let _ = doc.patch(patch);
            }
            let _ = redact(patch);
        }
        if let Ok(mut doc) = ConfigDoc::parse(&patch) {
            let _ = doc.patch(&config);
        }
    }

    #[test]
    fn no_secret_of_a_patch_shows_in_the_diff(config in config(true), secret in "S3cr[A-Za-z0-9+/]{8,50}") {
        let patch = format!(
            "machine:\n  token: {secret}\n  ca: {{crt: Q1JU, key: {secret}}}\n  files:\n    - {{content: {secret}, path: /var/x, permissions: 0o600, op: create}}\ncluster: {{secret: {secret}, aescbcEncryptionSecret: {secret}}}\n---\napiVersion: v1alpha1\nkind: WireguardConfig\nname: wg0\nprivateKey: {secret}\n---\napiVersion: v1alpha1\nkind: RegistryAuthConfig\nname: r\nusername: u\npassword: {secret}\n"
        );
        let result = patched(&config, &patch)?;
        prop_assert!(result.contains(&secret));
        for shown in [diff(&config, &result), diff(&result, &config), redact(&result)] {
            prop_assert!(!shown.contains(&secret), "{shown}");
        }
    }
}

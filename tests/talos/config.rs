use std::path::{Path, PathBuf};

use nodeprep::error::{Error, Kind};
use nodeprep::talos::Context;
use nodeprep::talos::config::Places;

use super::pki::{Ca, now, parse, talosconfig};

fn places(flag: &str, talosconfig: &str, talos_home: &str, home: &str) -> Places {
    let path = |text: &str| (text != "-").then(|| PathBuf::from(text));
    Places {
        flag: path(flag),
        talosconfig: path(talosconfig),
        talos_home: path(talos_home),
        home: path(home),
    }
}

#[test]
fn the_places_are_those_of_talosctl_in_its_order() {
    let in_cluster = "/var/run/secrets/talos.dev/config";
    let table: [(_, &[&str]); 6] = [
        (places("/f", "/t", "/th", "/h"), &["/f"]),
        (places("-", "/t", "/th", "/h"), &["/t", "/th/config", in_cluster]),
        (places("-", "/t", "-", "/h"), &["/t", "/h/.talos/config", in_cluster]),
        (places("-", "-", "-", "/h"), &["/h/.talos/config", in_cluster]),
        (places("-", "", "", "/h"), &["/h/.talos/config", in_cluster]),
        (places("-", "-", "-", "-"), &[in_cluster]),
    ];
    for (places, expected) in table {
        let expected: Vec<_> = expected.iter().map(PathBuf::from).collect();
        assert_eq!(places.candidates(), expected, "{places:?}");
    }
}

#[test]
fn the_first_file_that_is_there_is_read_and_its_absence_names_every_place() {
    let ca = Ca::new();
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    std::fs::create_dir_all(home.join(".talos")).unwrap();
    let mut places =
        Places { talosconfig: Some(dir.path().join("gone")), home: Some(home.clone()), ..Places::default() };
    let error = places.find().unwrap_err();
    assert_eq!(error.kind, Kind::Invalid);
    for place in ["gone", "home/.talos/config", "/var/run/secrets/talos.dev/config"] {
        assert!(error.what.contains(place), "{error}");
    }
    std::fs::write(home.join(".talos/config"), talosconfig(&ca.pem, &ca.client((2031, 1, 1)))).unwrap();
    let context = Context::load(&places, None, now()).unwrap();
    assert_eq!((context.name.as_str(), context.file.clone()), ("lab", home.join(".talos/config")));
    assert_eq!(context.endpoints, ["127.0.0.1"]);
    places.flag = Some(dir.path().join("flag"));
    assert!(
        Context::load(&places, None, now()).unwrap_err().what.contains("flag"),
        "a flag is not passed over"
    );
}

#[test]
fn the_context_is_chosen_by_flag_then_by_the_file() {
    let ca = Ca::new();
    let one = talosconfig(&ca.pem, &ca.client((2031, 1, 1)));
    let two = format!(
        "{one}    other:\n{}",
        one.lines().skip(3).map(|line| format!("{line}\n")).collect::<String>()
    );
    let two =
        two.replacen("- 127.0.0.1", "- 127.0.0.1\n        target: 10.0.0.9\n        nodes: [10.0.0.2]", 1);
    let load = |text: &str, name| Context::parse(text, Path::new("t"), name, now());
    assert_eq!(load(&two, None).unwrap().name, "lab");
    assert_eq!(load(&two, Some("other")).unwrap().name, "other");
    let lab = load(&two, Some("lab")).unwrap();
    assert_eq!(
        (lab.endpoints, lab.nodes),
        (vec!["127.0.0.1".into(), "10.0.0.9".into()], vec!["10.0.0.2".to_owned()])
    );
    assert_eq!(load(&two, Some("nope")).unwrap_err().what, r#"t: no context "nope"; it has: lab, other"#);
    assert_eq!(
        load(&two.replace("context: lab", ""), None).unwrap_err().what,
        "t: no context is chosen; it has: lab, other"
    );
    assert_eq!(load("context: a", None).unwrap_err().what, r#"t: no context "a"; it has none"#);
}

#[test]
fn an_expired_certificate_is_refused_with_its_days_and_the_way_out() {
    let ca = Ca::new();
    let until = |date| parse(&talosconfig(&ca.pem, &ca.client(date)), now());
    assert!(until((2030, 6, 11)).is_ok());
    let error = until((2030, 5, 30)).unwrap_err();
    assert_eq!(error.kind, Kind::Invalid);
    assert!(error.what.contains("expired on 2030-05-30, 2 days ago"), "{error}");
    assert!(error.hint.unwrap().contains("talosctl config new"));
    let early =
        parse(&talosconfig(&ca.pem, &ca.client((2031, 1, 1))), "2019-01-01T00:00:00Z".parse().unwrap());
    assert!(early.unwrap_err().what.contains("not valid before"));
}

#[test]
fn what_cannot_be_used_says_why_and_never_shows_a_secret() {
    let ca = Ca::new();
    let good = talosconfig(&ca.pem, &ca.client((2031, 1, 1)));
    let key = good.lines().find_map(|line| line.trim().strip_prefix("key: ")).unwrap().to_owned();
    let crt = good.lines().find_map(|line| line.trim().strip_prefix("crt: ")).unwrap().to_owned();
    let table: [(String, &str); 10] = [
        (good.replace("        crt:", "      crt:"), "malformed at line"),
        (good.replace("endpoints:\n", "endpoints: {}\n"), "malformed at line"),
        (format!("contexts: {key}"), "malformed at line"),
        (good.replace(&key, "'%%%'"), "key is not base64"),
        (good.replace(&key, &crt), "key: "),
        (good.replace(&crt, &key), "crt holds no certificate"),
        (good.replace(&format!("crt: {crt}"), ""), "crt is missing"),
        (
            good.replace(
                &format!("ca: {}", good.split("ca: ").nth(1).unwrap().lines().next().unwrap()),
                "ca: ''",
            ),
            "ca is missing",
        ),
        (format!("{good}        auth:\n            siderov1:\n                identity: a@b.c\n"), "Omni"),
        (format!("{good}        proxy-url: http://proxy:3128\n"), "proxy-url"),
    ];
    for (text, expected) in table {
        let error: Error = parse(&text, now()).unwrap_err();
        assert_eq!(error.kind, Kind::Invalid, "{error}");
        assert!(
            error.what.contains(expected) && error.what.starts_with("talosconfig: "),
            "{expected}: {error}"
        );
        assert!(!error.what.contains(&key[..40]), "{error}");
    }
    let context = parse(&good, now()).unwrap();
    assert!(!format!("{context:?}").contains("PRIVATE"), "{context:?}");
}

#[test]
fn a_key_labelled_the_usual_way_is_taken_too_and_one_of_another_certificate_is_not() {
    let ca = Ca::new();
    let (crt, key) = ca.client((2031, 1, 1));
    let usual = (crt.clone(), key.replace("ED25519 ", ""));
    assert!(parse(&talosconfig(&ca.pem, &usual), now()).is_ok());
    let mixed = parse(&talosconfig(&ca.pem, &(crt, ca.client((2031, 1, 1)).1)), now()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _inside = runtime.enter();
    let error = nodeprep::talos::Client::connect(&mixed, &mixed.endpoints, &Default::default()).unwrap_err();
    assert_eq!(error.kind, Kind::Invalid, "{error}");
}

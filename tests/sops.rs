//! Files encrypted by the real sops, by this crate, and files that somebody tampered with.

mod fixtures;
mod grid;
mod kept;
mod laws;
mod vectors;

use std::path::Path;

use jiff::Timestamp;
use nodeprep::error::{Error, Kind, Result};
use nodeprep::secrets::{
    Environment, Format, Identities, NewKey, Recipient, Selector, Settings, creation_rule, decrypt, encrypt,
    is_encrypted, kubernetes_secrets, load_kubernetes_secrets, settings_for, update_keys,
};
use nodeprep::yaml::{Stream, Value};
use secrecy::ExposeSecret as _;

const NOW: i64 = 1_780_000_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap_or_default()
}

struct Keys {
    identities: Identities,
    settings: Settings,
}

fn keys(selector: Option<Selector>) -> Result<Keys> {
    let key = NewKey::generate(now());
    Ok(Keys {
        identities: Identities::from_text(key.to_text().expose_secret())?,
        settings: Settings {
            recipients: vec![key.recipient()],
            selector: selector.unwrap_or_default(),
            mac_only_encrypted: false,
        },
    })
}

fn values(text: &str) -> Result<Vec<Value>> {
    Ok(Stream::parse(text)?.documents().iter().map(|document| document.root.value()).collect())
}

fn what<T>(result: Result<T>) -> String {
    result
        .err()
        .map(|error| format!("{} ({})", error.what, error.hint.unwrap_or_default()))
        .unwrap_or_default()
}

const SECRET: &str = "# the bucket's user\napiVersion: v1\nkind: Secret\nmetadata:\n  name: velero # keep\n  namespace: velero\nstringData:\n  # encrypted too\n  cloud: |\n    [default]\n    aws_access_key_id=minio\n\n    aws_secret_access_key=minio123\n  count: \"5\"\n  empty: \"\"\n  none:\ndata:\n  password: aHVudGVyMg==\n";

fn kubernetes() -> Result<Option<Selector>> {
    Selector::new("encrypted_regex", "^(data|stringData)$")
}

#[test]
fn only_the_selected_values_change_and_they_come_back() -> Result<()> {
    let keys = keys(kubernetes()?)?;
    let encrypted = encrypt(SECRET.as_bytes(), Format::Yaml, &keys.settings, now())?;
    for shown in
        ["# the bucket's user\n", "kind: Secret\n", "name: velero # keep\n", "  empty: \"\"\n", "  none:\n"]
    {
        assert!(encrypted.contains(shown), "{shown} in {encrypted}");
    }
    for hidden in ["minio", "aHVudGVyMg", "encrypted too", "\"5\""] {
        assert!(!encrypted.contains(hidden), "{hidden} in {encrypted}");
    }
    assert!(encrypted.contains("lastmodified: \"2026-05-28T20:26:40Z\""), "{encrypted}");
    assert!(is_encrypted(&encrypted, Format::Yaml) && !is_encrypted(SECRET, Format::Yaml));
    let decrypted = decrypt(&encrypted, Format::Yaml, &keys.identities)?;
    assert_eq!(decrypted.expose_text()?, SECRET);
    assert!(!format!("{decrypted:?}").contains("minio"));
    let again = encrypt(decrypted.expose(), Format::Yaml, &decrypted.settings, now())?;
    assert_ne!(again, encrypted, "a new data key and new IVs every time");
    Ok(())
}

#[test]
fn kubernetes_secrets_are_read_from_all_documents() -> Result<()> {
    let keys = keys(kubernetes()?)?;
    let two = format!(
        "{SECRET}---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: other\nstringData: {{a: b}}\n"
    );
    let encrypted = encrypt(two.as_bytes(), Format::Yaml, &keys.settings, now())?;
    let dir = tempfile::tempdir().map_err(|error| Error::failed(error.to_string()))?;
    let path = dir.path().join("velero.sops.yaml");
    std::fs::write(&path, &encrypted).map_err(|error| Error::failed(error.to_string()))?;
    let secrets = load_kubernetes_secrets(&path, &keys.identities)?;
    let names: Vec<_> =
        secrets.iter().map(|secret| (secret.namespace.as_deref(), secret.name.as_str())).collect();
    assert_eq!(names, [(Some("velero"), "velero"), (None, "other")]);
    let value = |key: &str| secrets[0].data.get(key).map(|value| value.expose_secret().to_vec());
    assert_eq!(value("password"), Some(b"hunter2".to_vec()));
    assert_eq!(
        value("cloud"),
        Some(b"[default]\naws_access_key_id=minio\n\naws_secret_access_key=minio123\n".to_vec())
    );
    assert_eq!((value("empty"), value("none")), (Some(vec![]), Some(vec![])));
    assert!(!format!("{secrets:?}").contains("hunter2"));
    Ok(())
}

#[test]
fn every_way_a_secret_file_can_be_wrong_is_invalid_input_and_says_why() -> Result<()> {
    let keys = keys(kubernetes()?)?;
    let read = |text: &str| kubernetes_secrets(text, Format::Yaml, &keys.identities);
    let sealed = |text: &str| encrypt(text.as_bytes(), Format::Yaml, &keys.settings, now());
    let group = "sops:\n  key_groups: [{age: []}, {age: []}]\n  lastmodified: x\n  mac: y\n";
    let table = [
        (read(SECRET), "holds secrets in plaintext"),
        (read(SECRET), "nodeprep secrets encrypt"),
        (read(&sealed(SECRET)?.replace("name: velero", "name: valero")), "MAC mismatch"),
        (read(&sealed("apiVersion: v1\nkind: ConfigMap\n")?), "kind Secret"),
        (read(&sealed("apiVersion: v1\nkind: Secret\n")?), "no metadata.name"),
        (
            read(&sealed("apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {k: '%'}\n")?),
            "data.k is not base64",
        ),
        (
            read(&sealed("apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {k: 5}\n")?),
            "value of k is no text",
        ),
        (read("a: [\n"), "line 1, column 4"),
        (read("- a\n"), "plaintext"),
        (read(&format!("a: b\n{group}")), "key groups"),
        (read("a: b\nsops: {age: [], pgp: [{fp: x}], lastmodified: x, mac: y}\n"), "no age recipient"),
        (
            read("a: b\nsops: {age: [{recipient: age1x, enc: nonsense}], lastmodified: x, mac: y}\n"),
            "damaged",
        ),
        (read("a: b\nsops: {age: [{recipient: age1x, enc: e}], lastmodified: x}\n"), "has no mac"),
    ];
    for (result, message) in table {
        let kind = result.as_ref().err().map(|error| error.kind);
        let text = what(result);
        assert!(text.contains(message), "{message}: {text}");
        assert_eq!(kind, Some(Kind::Invalid), "{text}");
        assert!(!text.contains("minio") && !text.contains("hunter2"), "{text}");
    }
    let missing = load_kubernetes_secrets(Path::new("/nonexistent/x.yaml"), &keys.identities);
    assert_eq!(missing.map(|_| ()).map_err(|error| error.kind), Err(Kind::Invalid));
    Ok(())
}

#[test]
fn what_sops_cannot_hold_is_refused() -> Result<()> {
    let keys = keys(None)?;
    let table = [
        ("- a\n", "not a map"),
        ("1: a\n", "only text can be a key"),
        ("a: &x b\nc: *x\n", "anchors"),
        ("a: 9223372036854775808\n", "9223372036854775807"),
        ("a: !binary x\n", "tag"),
        ("a: b\nsops: {}\n", "encrypted already"),
        ("a: b\n---\n", "empty"),
        ("", "nothing to encrypt"),
    ];
    for (text, message) in table {
        let error = what(encrypt(text.as_bytes(), Format::Yaml, &keys.settings, now()));
        assert!(error.contains(message), "{text:?}: {error}");
    }
    let nobody = Settings::default();
    assert!(what(encrypt(b"a: b\n", Format::Yaml, &nobody, now())).contains("--age"));
    assert!(what(encrypt(b"{a: b}", Format::Json, &keys.settings, now())).contains("not valid JSON"));
    Ok(())
}

/// Where go-yaml, and so sops, takes a comment for another place's, it must not decide what is encrypted (`sops::grid`).
#[test]
fn a_comment_whose_place_is_not_certain_decides_nothing() -> Result<()> {
    let by_comments = keys(Selector::new("encrypted_comment_regex", "sops:enc")?)?;
    for (text, word) in [
        ("a:\r\n  - 'x\r\n    y'\r\n  # sops:enc\r\n  - b: c\r\n", "CR LF"),
        ("a:\n  # sops:enc\n  -\n  # b\n\n  - c\n", "line 3: a comment says what is encrypted"),
    ] {
        let refused = encrypt(text.as_bytes(), Format::Yaml, &by_comments.settings, now());
        assert!(what(refused).contains(word), "{text:?}");
        assert!(encrypt(text.as_bytes(), Format::Yaml, &keys(None)?.settings, now()).is_ok(), "{text:?}");
    }
    Ok(())
}

#[test]
fn json_and_binary_files_come_back() -> Result<()> {
    let keys = keys(None)?;
    let json = "{\n\t\"a\": {\"b\": [1, 1.5, true, null, \"\", \"x\\n\\u00fc\\\\ \\/\"]},\n\t\"c_unencrypted\": \"shown\",\n\t\"d\": {}, \"e\": []\n}\n";
    for text in [json, "{}", "{\"a\":\"b\"}"] {
        let encrypted = encrypt(text.as_bytes(), Format::Json, &keys.settings, now())?;
        assert!(serde_json::from_str::<serde_json::Value>(&encrypted).is_ok(), "{encrypted}");
        let decrypted = decrypt(&encrypted, Format::Json, &keys.identities)?;
        let parsed = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
        assert_eq!(parsed(decrypted.expose_text()?), parsed(text));
    }
    for bytes in [&b"any\x00\xff bytes\n"[..], b"", b"text"] {
        let encrypted = encrypt(bytes, Format::Binary, &keys.settings, now())?;
        assert_eq!(decrypt(&encrypted, Format::Binary, &keys.identities)?.expose(), bytes);
    }
    Ok(())
}

#[test]
fn other_recipients_can_read_after_update_keys_and_the_old_one_cannot() -> Result<()> {
    let (old, new) = (keys(kubernetes()?)?, keys(None)?);
    let two = format!("{SECRET}---\na: b\n");
    for (text, format) in
        [(two.as_str(), Format::Yaml), ("{\"a\": \"b\"}", Format::Json), ("{a: b}\n", Format::Yaml)]
    {
        let encrypted = encrypt(text.as_bytes(), format, &old.settings, now())?;
        let updated = update_keys(&encrypted, format, &old.identities, &new.settings.recipients)?;
        let decrypted = decrypt(&updated, format, &new.identities)?;
        assert_eq!(values(decrypted.expose_text()?)?, values(text)?);
        assert!(what(decrypt(&updated, format, &old.identities)).contains("no age identity"));
    }
    Ok(())
}

#[test]
fn identities_are_looked_for_where_sops_does_and_the_error_lists_every_place() -> Result<()> {
    let dir = tempfile::tempdir().map_err(|error| Error::failed(error.to_string()))?;
    let (fits, other) = (NewKey::generate(now()), NewKey::generate(now()));
    let settings = Settings { recipients: vec![fits.recipient()], ..Settings::default() };
    let encrypted = encrypt(b"a: b\n", Format::Yaml, &settings, now())?;
    let file = dir.path().join("key.txt");
    fits.write(&file)?;
    let default = dir.path().join("config");
    fits.write(&default.join("sops/age/keys.txt"))?;
    let words = format!(
        "# c\n {} {}",
        other.to_text().expose_secret().lines().last().unwrap_or_default(),
        fits.to_text().expose_secret().lines().last().unwrap_or_default()
    );
    let good = [
        (Some(file.as_path()), Environment::default()),
        (None, Environment { age_key: Some(words.into()), ..Environment::default() }),
        (None, Environment { age_key_file: Some(file.clone()), ..Environment::default() }),
        (
            None,
            Environment { age_key_cmd: Some(format!("cat {}", file.display())), ..Environment::default() },
        ),
        (None, Environment { config_dir: Some(default), ..Environment::default() }),
    ];
    for (flag, env) in good {
        let identities = Identities::load(flag, &env)?;
        decrypt(&encrypted, Format::Yaml, &identities)
            .map_err(|error| error.at(format!("{identities:?}")))?;
        assert!(!format!("{identities:?} {env:?}").contains("AGE-SECRET-KEY"));
    }
    let wrong = Environment {
        age_key: Some(other.to_text()),
        age_key_file: Some(dir.path().join("missing.txt")),
        age_key_cmd: Some("false".to_owned()),
        config_dir: Some(dir.path().join("nothing")),
        ..Environment::default()
    };
    let error = what(decrypt(&encrypted, Format::Yaml, &Identities::load(None, &wrong)?));
    let places = [
        fits.recipient().to_string(),
        format!("SOPS_AGE_KEY ({})", other.recipient()),
        "missing.txt (not found)".to_owned(),
        "SOPS_AGE_KEY_CMD (failed".to_owned(),
        "nothing/sops/age/keys.txt (not found)".to_owned(),
    ];
    for place in places {
        assert!(error.contains(&place), "{place} in {error}");
    }
    assert!(Identities::load(Some(&dir.path().join("missing.txt")), &Environment::default()).is_err());
    let empty = what(decrypt(&encrypted, Format::Yaml, &Identities::load(None, &Environment::default())?));
    assert!(empty.contains("SOPS_AGE_KEY (not set)"), "{empty}");
    Ok(())
}

#[test]
fn a_broken_identity_is_named_by_its_kind_and_never_quoted() {
    for (text, message) in [
        ("AGE-SECRET-KEY-PQ-1XYZZY", "post-quantum"),
        ("AGE-SECRET-KEY-1XYZZY", "no age identity"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nXYZZY", "SSH key"),
        ("\"AGE-SECRET-KEY-1XYZZY\"", "no age identity"),
        ("# only a comment\n", "holds no identity"),
    ] {
        let error = what(Identities::from_text(text));
        assert!(error.contains(message) && !error.contains("XYZZY"), "{error}");
    }
    for (text, message) in [
        ("age1pq1xyz", "post-quantum"),
        ("ssh-ed25519 AAAA", "SSH"),
        ("age1yubikey1qqq", "plugin"),
        ("nonsense", "no age recipient"),
        ("AGE-SECRET-KEY-1XYZZY", "secret key was given"),
    ] {
        let error = what(text.parse::<Recipient>());
        assert!(error.contains(message) && !error.contains("XYZZY"), "{error}");
    }
}

#[test]
fn a_key_file_is_as_age_keygen_writes_it_private_and_never_overwritten() -> Result<()> {
    let dir = tempfile::tempdir().map_err(|error| Error::failed(error.to_string()))?;
    let path = dir.path().join("new/keys.txt");
    let key = NewKey::generate(now());
    key.write(&path)?;
    let text = std::fs::read_to_string(&path).map_err(|error| Error::failed(error.to_string()))?;
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "# created: 2026-05-28T20:26:40Z");
    assert_eq!(lines[1], format!("# public key: {}", key.recipient()));
    assert!(lines[2].starts_with("AGE-SECRET-KEY-1") && lines.len() == 3);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&path).map(|meta| meta.permissions().mode() & 0o777).unwrap_or_default();
        assert_eq!(mode, 0o600);
    }
    assert_eq!(NewKey::generate(now()).write(&path).map_err(|error| error.kind), Err(Kind::Refused));
    assert!(!format!("{key:?}").contains("SECRET"));
    Ok(())
}

#[test]
fn the_first_creation_rule_that_matches_decides() -> Result<()> {
    let (a, b) = (NewKey::generate(now()).recipient(), NewKey::generate(now()).recipient());
    let config = format!(
        "creation_rules:\n  - path_regex: talos/.*\\.sops\\.ya?ml$\n    encrypted_regex: ^(data|stringData)$\n    mac_only_encrypted: true\n    age: {a},\n      {b}\n  - path_regex: list/\n    key_groups: [{{age: [{b}]}}]\n  - path_regex: two/\n    key_groups: [{{age: [{a}]}}, {{age: [{b}]}}]\n  - path_regex: kms/\n    kms: arn\n  - age: [{a}]\nstores: {{yaml: {{indent: 2}}}}\n"
    );
    let rule = |path: &str| creation_rule(&config, path);
    let names = |settings: Option<Settings>| {
        settings.unwrap_or_default().recipients.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let first = rule("talos/a.sops.yaml")?.unwrap_or_default();
    assert!(first.mac_only_encrypted && matches!(first.selector, Selector::EncryptedRegex(_)));
    assert_eq!(names(Some(first)), [a.to_string(), b.to_string()]);
    assert_eq!(names(rule("list/x")?), [b.to_string()]);
    assert_eq!(names(rule("else")?), [a.to_string()]);
    assert!(what(rule("two/x")).contains("key group"));
    assert!(what(rule("kms/x")).contains("no age recipient"));
    assert!(creation_rule("creation_rules:\n- path_regex: x\n", "y")?.is_none());
    assert!(creation_rule("creation_rules:\n- path_regex: (\n", "y").is_err());

    let dir = tempfile::tempdir().map_err(|error| Error::failed(error.to_string()))?;
    std::fs::create_dir_all(dir.path().join("list/deep"))
        .map_err(|error| Error::failed(error.to_string()))?;
    std::fs::write(dir.path().join(".sops.yaml"), &config)
        .map_err(|error| Error::failed(error.to_string()))?;
    let env = Environment::default();
    let deep = dir.path().join("list/deep/x.yaml");
    assert_eq!(names(Some(settings_for(&deep, &[], &env)?)), [b.to_string()]);
    assert_eq!(names(Some(settings_for(&deep, std::slice::from_ref(&a), &env)?)), [a.to_string()]);
    let listed = Environment { age_recipients: Some(format!("{a}, {b}")), ..Environment::default() };
    assert_eq!(names(Some(settings_for(&deep, &[], &listed)?)), [a.to_string(), b.to_string()]);
    Ok(())
}

#[test]
fn at_most_one_selector_may_be_set() -> Result<()> {
    let keys = keys(None)?;
    let encrypted = encrypt(b"a: b\n", Format::Yaml, &keys.settings, now())?;
    let both = encrypted.replace("    mac:", "    encrypted_suffix: x\n    mac:");
    assert!(what(decrypt(&both, Format::Yaml, &keys.identities)).contains("more than one"));
    Ok(())
}

#[test]
fn a_value_that_was_moved_or_keys_that_were_swapped_fail() -> Result<()> {
    let keys = keys(None)?;
    let encrypted = encrypt(
        b"a: one\nb: two\nc_unencrypted: x\nd_unencrypted: y\n",
        Format::Yaml,
        &keys.settings,
        now(),
    )?;
    let mut lines: Vec<&str> = encrypted.lines().collect();
    let moved = encrypted.replacen("a: ", "z: ", 1);
    assert!(what(decrypt(&moved, Format::Yaml, &keys.identities)).contains("does not authenticate"));
    for (first, second) in [(0, 1), (2, 3)] {
        lines.swap(first, second);
        let swapped = lines.join("\n");
        assert!(
            what(decrypt(&swapped, Format::Yaml, &keys.identities)).contains("MAC mismatch"),
            "{swapped}"
        );
        lines.swap(first, second);
    }
    assert!(decrypt(&lines.join("\n"), Format::Yaml, &keys.identities).is_ok());
    Ok(())
}

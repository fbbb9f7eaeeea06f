//! Nothing of a file is lost or changed on the way: comments, recipients, merge keys, block scalars; and what cannot be kept is
//! refused by its name.

use nodeprep::error::{Error, Kind, Result};
use nodeprep::secrets::{
    Environment, Format, Identities, NewKey, Recipient, creation_rule, decrypt, encrypt, kubernetes_secrets,
    settings_for,
};
use nodeprep::yaml::Stream;
use secrecy::ExposeSecret as _;

use super::{keys, kubernetes, now, values, what};

fn comments(text: &str) -> Result<Vec<String>> {
    let stream = Stream::parse(text)?;
    let spans = stream.documents().iter().flat_map(|document| &document.comments);
    Ok(spans.map(|span| stream.slice(span).to_owned()).collect())
}

#[test]
fn a_comment_behind_a_value_of_several_lines_is_no_part_of_it() -> Result<()> {
    let keys = keys(None)?;
    for text in [
        "a: \"[default]\\nid=A\\n\" # gitleaks:allow\n",
        "a: | # header\n  one\n  two\n",
        "a: >- # header\r\n  one\r\n\r\n  two\r\nb: 1\r\n",
        "a: |2+ # header\n   one\n\n# next\nb: 1\n",
        "l:\n- |  # header\n  one\n  two\n- \"x\\ny\" # behind\n- k: |-  # in it\n    z\n    w\n",
        "a: one\n  two # behind\n",
        "a: 'one\n\n  two' # behind\n",
        "f: {a: \"x\\ny\", # in it\n b: 1} # behind\n",
        "a: \"x\\ny\"   \nb: \"p\\nq\\n\"\t# tab",
        "a: # above\n  \"x\\ny\"\n",
        "a: \"x\\ny\"\n    # further right\nb: 1\n",
        "l:\n- m: \"x\\ny\"\n\n    # further right\n  n: 1\n",
        "l:\n- |+ # no line break at the end\n  one\n  two",
    ] {
        let sealed = encrypt(text.as_bytes(), Format::Yaml, &keys.settings, now())?;
        assert!(!sealed.contains("gitleaks") && !sealed.contains("header"), "{sealed}");
        let back = decrypt(&sealed, Format::Yaml, &keys.identities)?;
        assert_eq!(values(back.expose_text()?)?, values(text)?, "{text:?}: {}", back.expose_text()?);
        assert_eq!(comments(back.expose_text()?)?, comments(text)?, "{text:?}: {}", back.expose_text()?);
    }
    Ok(())
}

#[test]
fn the_last_value_of_a_file_keeps_its_line_break() -> Result<()> {
    let keys = keys(None)?;
    let sealed = encrypt(b"a: b\nz: \"x\\ny\\n\"\n", Format::Yaml, &keys.settings, now())?;
    let (values_part, block) = sealed.split_at(sealed.find("sops:").unwrap_or_default());
    let moved = format!("{block}{}", values_part.trim_end());
    let back = decrypt(&moved, Format::Yaml, &keys.identities)?;
    assert_eq!(values(back.expose_text()?)?, values("a: b\nz: \"x\\ny\\n\"\n")?);
    Ok(())
}

#[test]
fn a_shown_block_scalar_at_the_end_of_a_file_without_line_break_gets_none() -> Result<()> {
    let keys = keys(kubernetes()?)?;
    for header in ["|", "|+", ">2+", "|-", "|+2 # c"] {
        let text = format!("a: {header}\n  one\n  two");
        let sealed = encrypt(text.as_bytes(), Format::Yaml, &keys.settings, now())?;
        let back = decrypt(&sealed, Format::Yaml, &keys.identities)?;
        assert_eq!(values(back.expose_text()?)?, values(&text)?, "{sealed}");
    }
    Ok(())
}

#[test]
fn block_scalars_with_every_indicator_come_back() -> Result<()> {
    let keys = keys(None)?;
    for style in ["|", ">"] {
        for indicators in ["", "-", "+", "2", "2-", "2+", "+2", "-2"] {
            for (text, tail) in [("one\n\n    two", "\n"), ("one", "\n\n\n"), ("", "\n"), ("one", "")] {
                for next in ["  b: x\n", "# end\n", ""] {
                    let text = format!("data:\n  a: {style}{indicators}\n    {text}{tail}{next}");
                    let list = format!("l:\n- {style}{indicators}\n    one{tail}- b\nc: d\n");
                    for text in [text, list] {
                        if Stream::parse(text.as_str()).is_err() {
                            continue;
                        }
                        let sealed = encrypt(text.as_bytes(), Format::Yaml, &keys.settings, now())
                            .map_err(|error| error.at(format!("{text:?}")))?;
                        let back = decrypt(&sealed, Format::Yaml, &keys.identities)?;
                        assert_eq!(values(back.expose_text()?)?, values(&text)?, "{text:?}\n{sealed}");
                    }
                }
            }
        }
    }
    for text in ["|\n  only this\n", "--- |+\n only this\n\n", "--- >- # c\n  x\n", "text\n", "- a\n"] {
        let error = what(encrypt(text.as_bytes(), Format::Yaml, &keys.settings, now()));
        assert!(error.contains("not a map"), "{text:?}: {error}");
    }
    Ok(())
}

#[test]
fn recipients_of_other_kinds_are_named_and_nothing_is_encrypted() -> Result<()> {
    let age = NewKey::generate(now()).recipient();
    let rules = [
        ("pgp: ABCD", "PGP"),
        ("pgp: [ABCD]", "PGP"),
        ("kms: arn:aws:kms:x", "AWS KMS"),
        ("gcp_kms: projects/x", "Google Cloud KMS"),
        ("hckms: [x]", "Huawei Cloud KMS"),
        ("azure_keyvault: https://x", "Azure Key Vault"),
        ("hc_vault_transit_uri: https://x", "HashiCorp Vault"),
    ];
    for (rule, kind) in rules {
        let text = format!("creation_rules:\n- age: {age}\n  {rule}\n");
        let error = what(creation_rule(&text, "x"));
        assert!(error.contains(kind) && error.contains("line 3, column 3"), "{rule}: {error}");
        let alone = what(creation_rule(&format!("creation_rules:\n- {rule}\n"), "x"));
        assert!(alone.contains("no age recipient") && alone.contains(kind), "{rule}: {alone}");
    }
    let groups = [
        ("pgp: [ABCD]", "PGP"),
        ("kms: [{arn: x}]", "AWS KMS"),
        ("hc_vault: [https://x]", "HashiCorp Vault"),
        ("merge: [{pgp: [ABCD]}]", "PGP"),
        ("new_kms: [x]", "new_kms"),
    ];
    for (group, kind) in groups {
        let text = format!("creation_rules:\n- key_groups:\n  - age: [{age}]\n    {group}\n");
        let error = what(creation_rule(&text, "x"));
        assert!(error.contains(kind) && error.contains("line 4"), "{group}: {error}");
    }
    for empty in ["pgp: ''", "pgp:", "kms: []", "hckms: []", "key_groups: []", "shamir_threshold: 1"] {
        let text = format!("creation_rules:\n- age: {age}\n  {empty}\n");
        assert!(creation_rule(&text, "x")?.is_some(), "{empty}");
    }
    let merged = format!("creation_rules:\n- key_groups:\n  - merge: [{{age: [{age}]}}]\n    age: [{age}]\n");
    assert_eq!(creation_rule(&merged, "x")?.map(|settings| settings.recipients.len()), Some(1));

    let folder = tempfile::tempdir().map_err(|error| Error::failed(error.to_string()))?;
    let rule = format!("creation_rules:\n- age: {age}\n  pgp: ABCD\n  encrypted_regex: ^x$\n");
    std::fs::write(folder.path().join(".sops.yaml"), rule)
        .map_err(|error| Error::failed(error.to_string()))?;
    let file = folder.path().join("s.yaml");
    let refused = settings_for(&file, &[], &Environment::default());
    assert_eq!(refused.as_ref().err().map(|error| error.kind), Some(Kind::Invalid));
    assert!(what(refused).contains(".sops.yaml: line 3"));
    let given = settings_for(&file, std::slice::from_ref(&age), &Environment::default())?;
    assert_eq!(given.recipients.len(), 1, "who is given by flag is meant to be the only one");
    let set = |name: &'static str| move |asked: &str| (asked == name).then(|| std::ffi::OsString::from("x"));
    for name in ["SOPS_PGP_FP", "SOPS_KMS_ARN", "SOPS_VAULT_URIS"] {
        let env = Environment::from_variables(&set(name));
        assert!(what(settings_for(&file, std::slice::from_ref(&age), &env)).contains(name), "{name}");
    }
    Ok(())
}

#[test]
fn merge_keys_of_a_rule_count_as_if_they_were_written_out() -> Result<()> {
    let (a, b) = (NewKey::generate(now()).recipient(), NewKey::generate(now()).recipient());
    let config = format!(
        "common: &common\n  encrypted_regex: ^(data|stringData)$\n  path_regex: secrets/.*\n  age: {a}\nlast: &last\n  age: {a}\n  mac_only_encrypted: true\ncreation_rules:\n  - <<: *common\n    age: {b}\n  - <<: [*last, *common]\n    path_regex: two/\n"
    );
    let rule = creation_rule(&config, "secrets/x.yaml")?.unwrap_or_default();
    assert_eq!(rule.recipients.iter().map(ToString::to_string).collect::<Vec<_>>(), [b.to_string()]);
    assert!(format!("{:?}", rule.selector).contains("stringData"), "{rule:?}");
    assert!(creation_rule(&config, "elsewhere/x.yaml")?.is_none());
    let second = creation_rule(&config, "two/x")?.unwrap_or_default();
    assert!(second.mac_only_encrypted && format!("{:?}", second.selector).contains("stringData"));
    let broken = "creation_rules:\n  - <<: text\n    age: x\n";
    assert!(what(creation_rule(broken, "x")).contains("line 2, column 9: `<<` takes"));
    Ok(())
}

#[test]
fn merge_keys_of_a_secret_are_encrypted_where_they_stand_and_count_when_it_is_read() -> Result<()> {
    let keys = keys(kubernetes()?)?;
    let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData:\n  <<: {k: v, c: from the merged}\n  c: own\n";
    let sealed = encrypt(text.as_bytes(), Format::Yaml, &keys.settings, now())?;
    assert!(!sealed.contains("own"), "{sealed}");
    let written_out = sealed.replace("  <<:", "  !!merge <<:");
    for sealed in [&sealed, &written_out] {
        let secrets = kubernetes_secrets(sealed, Format::Yaml, &keys.identities)?;
        let value = |key: &str| secrets[0].data.get(key).map(|value| value.expose_secret().to_vec());
        assert_eq!((value("k"), value("c"), value("<<")), (Some(b"v".to_vec()), Some(b"own".to_vec()), None));
    }
    for (text, message) in [
        ("a: {<<: text}\n", "line 1, column 9: `<<` takes a map or a list of maps"),
        ("a: {<<: [text]}\n", "`<<` takes a map or a list of maps"),
        ("b: &b {k: v}\na: {<<: *b}\n", "line 1, column 7: anchors and aliases"),
    ] {
        let error = what(encrypt(text.as_bytes(), Format::Yaml, &keys.settings, now()));
        assert!(error.contains(message), "{text:?}: {error}");
    }
    Ok(())
}

#[test]
fn a_threshold_says_nothing_where_there_is_one_group() -> Result<()> {
    let keys = keys(None)?;
    let sealed = encrypt(b"a: x\n", Format::Yaml, &keys.settings, now())?;
    let with = sealed.replace("    version:", "    shamir_threshold: 1\n    version:");
    assert!(with.contains("shamir"));
    assert_eq!(decrypt(&with, Format::Yaml, &keys.identities)?.expose_text()?, "a: x\n");
    Ok(())
}

#[test]
fn a_file_for_keys_that_are_not_supported_says_so_and_advises_nothing_that_cannot_help() -> Result<()> {
    let keys = keys(None)?;
    let file = |recipients: &[&str], rest: &str| {
        let age: Vec<_> = recipients.iter().map(|name| format!("{{recipient: {name}, enc: x}}")).collect();
        format!("a: b\nsops: {{age: [{}], lastmodified: x, mac: y{rest}}}\n", age.join(", "))
    };
    for (recipients, rest, message) in [
        (vec!["ssh-ed25519 AAAA"], "", "SSH keys cannot be used here"),
        (vec!["ssh-rsa AAAA", "ssh-ed25519 AAAA"], "", "SSH keys cannot be used here"),
        (vec!["age1yubikey1qqq"], "", "age plugins cannot be used here"),
        (vec!["age1yubikey1qqq", "ssh-rsa A"], "", "SSH keys and age plugins cannot be used here"),
        (vec![], ", pgp: [{fp: x}]", "only to PGP keys"),
        (vec![], ", kms: [{arn: x}], hc_vault: [{key_name: x}]", "only to AWS KMS and HashiCorp Vault keys"),
        (vec![], ", key_groups: [{pgp: [{fp: x}]}]", "only to PGP keys"),
        (vec![], "", "to no age recipient, nor to anybody else"),
    ] {
        let error = what(decrypt(&file(&recipients, rest), Format::Yaml, &keys.identities));
        assert!(error.contains(message) && !error.contains("SOPS_AGE_KEY_FILE to the key"), "{error}");
    }
    let both = what(decrypt(&file(&["ssh-rsa AAAA", "age1xyz"], ""), Format::Yaml, &keys.identities));
    assert!(both.contains("set SOPS_AGE_KEY_FILE to the key"), "{both}");
    Ok(())
}

#[test]
fn post_quantum_keys_are_made_encrypt_and_decrypt_and_stand_beside_classic_ones() -> Result<()> {
    let (hybrid, classic) = (NewKey::post_quantum(now()), NewKey::generate(now()));
    let text = hybrid.to_text();
    assert!(hybrid.recipient().to_string().starts_with("age1pq1"));
    assert!(text.expose_secret().contains("\nAGE-SECRET-KEY-PQ-1"), "as age-keygen -pq writes it");
    assert!(!format!("{hybrid:?}").contains("SECRET"));
    let settings = nodeprep::secrets::Settings {
        recipients: vec![hybrid.recipient(), classic.recipient()],
        ..Default::default()
    };
    let sealed = encrypt(b"a: x\n", Format::Yaml, &settings, now())?;
    for key in [&hybrid, &classic] {
        let identities = Identities::from_text(key.to_text().expose_secret())?;
        assert_eq!(decrypt(&sealed, Format::Yaml, &identities)?.expose_text()?, "a: x\n");
    }
    let other = Identities::from_text(NewKey::post_quantum(now()).to_text().expose_secret())?;
    let error = what(decrypt(&sealed, Format::Yaml, &other));
    assert!(error.contains("no age identity can decrypt") && error.len() < 600, "{error}");

    let recipient = hybrid.recipient().to_string();
    assert_eq!(recipient.parse::<Recipient>()?.to_string(), recipient);
    for broken in
        [&recipient[..recipient.len() - 1], &recipient.to_uppercase(), &recipient.replace("pq1", "pq1q")]
    {
        let error = what(broken.parse::<Recipient>());
        assert!(!error.is_empty() && error.len() < 3000, "{error}");
    }
    let secret = text.expose_secret().lines().last().unwrap_or_default();
    for broken in [&secret[..secret.len() - 1], &secret.to_lowercase(), &secret.replace("PQ-1", "PQ-1Q")] {
        let error = what(Identities::from_text(broken));
        assert!(!error.is_empty() && !error.contains(broken), "{error}");
    }
    Ok(())
}

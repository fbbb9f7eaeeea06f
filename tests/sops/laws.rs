//! Laws over generated files.

use nodeprep::error::Result;
use nodeprep::secrets::{Format, Settings, decrypt, encrypt};
use nodeprep::yaml::Stream;
use proptest::prelude::*;

use super::{keys, now, values};

fn leaf() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,12}".prop_map(|text| nodeprep::yaml::quote(&text)),
        "[a-z \\n#:'\"|-]{0,20}".prop_map(|text| nodeprep::yaml::quote(&text)),
        any::<i64>().prop_map(|number| number.to_string()),
        (-1e9..1e9f64).prop_map(|number| format!("{number:.3}")),
        Just("1.0".to_owned()),
        Just("true".to_owned()),
        Just("null".to_owned()),
        Just("2024-05-06".to_owned()),
        Just("0777".to_owned()),
        Just("yes".to_owned()),
        "[a-z]{1,6}( # [a-z ]{0,9})?",
    ]
}

fn document() -> impl Strategy<Value = String> {
    let entry =
        ("k[a-z]{1,5}(_unencrypted)?", leaf(), leaf(), 0..6u8).prop_map(|(key, a, b, form)| match form {
            0 => format!("{key}:\n  # about x\n  x: {a}\n  y: {b}\n"),
            1 => format!("{key}:\n  - {a}\n  # about the second\n  - {b}\n  - z: {a}\n"),
            2 => format!("{key}:\n- x:\n    y: {b}\n"),
            3 => format!("# about\n{key}: {a}\n\n"),
            4 => format!("{key}: |\n  line\n\n   more\n"),
            _ => format!("{key}: {{x: \"a\", y: [1, 'b']}}\n"),
        });
    proptest::collection::vec(entry, 1..6).prop_filter_map("keys twice", |entries| {
        let text = entries.concat();
        Stream::parse(text.as_str()).is_ok().then_some(text)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn what_is_encrypted_decrypts_to_the_same_meaning_and_comments(
        documents in proptest::collection::vec(document(), 1..3), mac_only_encrypted: bool
    ) {
        let run = || -> Result<(String, String)> {
            let keys = keys(None)?;
            let settings = Settings { mac_only_encrypted, ..keys.settings };
            let text = documents.join("---\n");
            let encrypted = encrypt(text.as_bytes(), Format::Yaml, &settings, now())?;
            let decrypted = decrypt(&encrypted, Format::Yaml, &keys.identities)?;
            assert_eq!(values(decrypted.expose_text()?)?, values(&text)?);
            Ok((text, decrypted.expose_text()?.to_owned()))
        };
        let (before, after) = run().map_err(|error| TestCaseError::fail(error.what))?;
        let comments = |text: &str| -> Vec<String> {
            let stream = Stream::parse(text).ok();
            let spans = stream.iter().flat_map(|s| s.documents().iter().flat_map(|d| d.comments.iter().map(|c| s.slice(c).to_owned())).collect::<Vec<_>>());
            spans.collect()
        };
        prop_assert_eq!(comments(&before), comments(&after));
    }

    #[test]
    fn reading_anything_never_panics(text in "[a-z{}\\[\\]:,\"'#ENC!|\\n -]{0,80}") {
        let keys = keys(None).map_err(|error| TestCaseError::fail(error.what))?;
        let sops = "\nsops:\n  age: [{recipient: a, enc: b}]\n  lastmodified: c\n  mac: d\n";
        for format in [Format::Yaml, Format::Json, Format::Binary] {
            let _ = decrypt(&format!("{text}{sops}"), format, &keys.identities);
            let _ = encrypt(text.as_bytes(), format, &keys.settings, now());
        }
    }
}

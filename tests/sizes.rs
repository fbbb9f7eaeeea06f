//! Sizes are what they are to Talos: every text of `tests/golden/sizes/texts.json`, as `minSize` and as `maxSize`, and what each
//! release made of it (`e2e/oracle/record sizes`).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nodeprep::intent::{MaxSize, Size};
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Said {
    #[serde(default)]
    error: String,
    bytes: Option<u64>,
    percent: Option<u64>,
    #[serde(default)]
    negative: bool,
}

type Answers = BTreeMap<String, BTreeMap<String, Said>>;

/// Texts that Talos takes for a size and nodeprep refuses, with the reason.
const REFUSED: [(&str, &str); 6] = [
    ("", "nothing is said"),
    ("nan%", "it is no number"),
    ("0x1p4%", "nobody writes a share in hexadecimal"),
    ("0x_1p4%", "nobody writes a share in hexadecimal"),
    ("1_0%", "nobody writes a share with underscores"),
    ("1G\u{130}B", "the letter is no I"),
];

fn answers(release: &str) -> Answers {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/sizes/{release}.json"));
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Whether nodeprep makes of a text what Talos made of it.
fn same(text: &str, key: &str, said: &Said) -> Result<(), String> {
    let ours = match key {
        "minSize" => Size::parse(text).map(MaxSize::Bytes),
        _ => MaxSize::parse(text),
    };
    if REFUSED.iter().any(|(refused, _)| *refused == text) {
        return if ours.is_err() { Ok(()) } else { Err(format!("{ours:?}")) };
    }
    let right = match &ours {
        Err(_) => !said.error.is_empty(),
        Ok(_) if !said.error.is_empty() => false,
        Ok(MaxSize::Bytes(size)) => said.bytes == Some(size.0) && !said.negative,
        Ok(MaxSize::AllBut(size)) => said.bytes == Some(size.0) && said.negative,
        Ok(MaxSize::Percent(share)) => said.percent == Some(share.whole.into()) && !said.negative,
        Ok(MaxSize::AllButPercent(share)) => said.percent == Some(share.whole.into()) && said.negative,
    };
    if right { Ok(()) } else { Err(format!("{key} {text:?}: nodeprep {ours:?}, Talos {said:?}")) }
}

#[test]
fn sizes_are_what_the_newest_talos_reads() {
    let mut wrong = Vec::new();
    let newest = answers("v1.14.1");
    assert!(newest.len() > 100, "{}", newest.len());
    for (text, places) in &newest {
        for (key, said) in places {
            // Taken when it is read, and refused when the document is validated.
            let late = key == "minSize" && said.negative;
            if late {
                assert!(Size::parse(text).is_err(), "{text}");
            } else {
                wrong.extend(same(text, key, said).err());
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for (text, _) in REFUSED {
        assert!(newest[text]["maxSize"].error.is_empty(), "{text:?} is refused by Talos too");
    }
}

/// What an older release takes, it takes as the newest one does; what it does not take is a share or below zero, which
/// nodeprep refuses for that release (`plan/versions.rs`).
#[test]
fn older_releases_take_less_and_mean_the_same() {
    let newest = answers("v1.14.1");
    for (release, shares) in [("v1.10.9", false), ("v1.11.5", false), ("v1.12.6", true)] {
        for (text, places) in answers(release) {
            for (key, said) in &places {
                let new = &newest[&text][key];
                let missing = text.starts_with('-') || (text.contains('%') && !shares);
                if said.error.is_empty() {
                    assert_eq!((said.bytes, said.percent), (new.bytes, new.percent), "{release} {text}");
                } else {
                    assert!(!new.error.is_empty() || missing, "{release} {key} {text}: {}", said.error);
                }
            }
        }
    }
}

#[test]
fn a_size_is_written_back_as_what_it_is() {
    for text in answers("v1.14.1").keys() {
        if let Ok(most) = MaxSize::parse(text) {
            assert_eq!(MaxSize::parse(&most.to_string()), Ok(most), "{text}");
        }
        if let Ok(size) = Size::parse(text) {
            assert_eq!(Size::parse(&size.to_string()), Ok(size), "{text}");
        }
    }
}

proptest! {
    #[test]
    fn no_text_is_too_odd(text in "\\PC{0,12}", near in "-?[0-9]{0,20}[.,]?[0-9]{0,4}[ ]?[kKmMgGtTpPeEiIbB%]{0,4}") {
        for text in [&text, &near] {
            let _ = nodeprep::intent::quantity::parse(text);
            let _ = nodeprep::intent::Duration::parse(text);
            if let Ok(most) = MaxSize::parse(text) {
                prop_assert_eq!(MaxSize::parse(&most.to_string()), Ok(most), "{}", text);
                let _ = most.of(u64::MAX);
            }
        }
    }

    #[test]
    fn any_number_of_bytes_is_written_as_a_size(bytes in 0u64..1 << 53, unit in 0u32..6) {
        for bytes in [bytes, bytes % 10_000 * 1000u64.pow(unit.min(5)), (bytes % 10_000) << (unit * 10)] {
            let text = Size(bytes).to_string();
            let read = Size::parse(&text).unwrap();
            // A float holds no more.
            prop_assert!(read == Size(bytes) || bytes > 1 << 53, "{} {}", bytes, text);
        }
    }
}

//! The age test vectors of C2SP (`$NODEPREP_AGE_VECTORS`, a folder of them): `e2e/sops-test` fetches them.

use std::collections::HashMap;
use std::io::Read as _;

use nodeprep::error::{Error, Result};
use nodeprep::secrets::Identities;
use sha2::{Digest as _, Sha256};

/// The age crate reads these on purpose, though the specification does not: early versions of other programs wrote them.
const LEGACY: [&str; 2] = ["stanza_missing_body", "stanza_missing_final_line"];

type Fields = HashMap<String, Vec<String>>;

/// A vector's lines of `name: value`, each name's values in their order, and its age file.
fn parts(bytes: &[u8]) -> Option<(Fields, Vec<u8>)> {
    let end = bytes.windows(2).position(|two| two == b"\n\n")?;
    let mut fields: HashMap<_, Vec<_>> = HashMap::new();
    for line in std::str::from_utf8(&bytes[..end]).ok()?.lines() {
        let (name, value) = line.split_once(": ")?;
        fields.entry(name.to_owned()).or_default().push(value.to_owned());
    }
    let rest = &bytes[end + 2..];
    let mut file = Vec::new();
    let mut packed = flate2::read::ZlibDecoder::new(rest);
    if fields.contains_key("compressed") {
        packed.read_to_end(&mut file).ok()?;
    } else {
        file.extend(rest);
    }
    Some((fields, file))
}

fn verdict(fields: &Fields, file: &[u8]) -> Result<String> {
    let text = fields.get("identity").map(|lines| lines.join("\n")).unwrap_or_default();
    let identities = if text.is_empty() { Identities::default() } else { Identities::from_text(&text)? };
    // Around an armor white space is cut off where a file's metadata is read.
    let file = if fields.contains_key("armored") { file.trim_ascii() } else { file };
    Ok(match identities.open(file) {
        Ok(bytes) => {
            let digest: String = Sha256::digest(&*bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            format!("success {digest}")
        }
        Err(age::DecryptError::NoMatchingKeys) => "no match".to_owned(),
        Err(error) => format!("failure: {error}"),
    })
}

#[test]
#[ignore = "needs the vectors"]
fn age_files_are_read_or_refused_as_the_vectors_of_the_specification_say() -> Result<()> {
    let failed = |error: std::io::Error| Error::failed(error.to_string());
    let folder = std::env::var_os("NODEPREP_AGE_VECTORS").ok_or_else(|| Error::failed("no vectors"))?;
    let (mut read, mut hybrid, mut wrong) = (0, 0, Vec::new());
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let (fields, file) = parts(&std::fs::read(entry.path()).map_err(failed)?)
            .ok_or_else(|| Error::failed(format!("{name} is no vector")))?;
        // A key file's identities are no passphrases: such a file must not open.
        let passphrase = fields.contains_key("passphrase");
        let expected = fields.get("expect").map_or("", |lines| lines[0].as_str());
        let verdict = verdict(&fields, &file)?;
        let right = match expected {
            "success" if !passphrase => verdict == format!("success {}", fields["payload"][0]),
            "no match" if !passphrase => verdict == "no match",
            _ => !verdict.starts_with("success") || LEGACY.contains(&name.as_str()),
        };
        if !right {
            wrong.push(format!("{name}: {expected} expected, {verdict}"));
        }
        read += 1;
        hybrid += usize::from(name.contains("hybrid"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(read > 140 && hybrid > 15, "{read} {hybrid}");
    Ok(())
}

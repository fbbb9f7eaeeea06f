//! The files that the real sops encrypted (`make` makes them), and the real sops reading ours: `e2e/sops-test`
//! runs these.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use nodeprep::error::{Error, Result};
use nodeprep::secrets::{Format, Identities, NewKey, Settings, decrypt, encrypt};
use nodeprep::yaml::Stream;

use super::{keys, now, values, what};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sops")
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| Error::failed(error.to_string()).at(path.display()))
}

/// The cases that the real sops encrypted: folder, encrypted text, format.
fn cases() -> Result<Vec<(PathBuf, String, Format)>> {
    let entries = std::fs::read_dir(fixtures()).map_err(|error| Error::failed(error.to_string()))?;
    let dirs: BTreeSet<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect();
    let mut cases = Vec::new();
    for dir in dirs {
        for (name, format) in
            [("enc.yaml", Format::Yaml), ("enc.json", Format::Json), ("enc.bin", Format::Binary)]
        {
            if dir.join(name).is_file() {
                cases.push((dir.clone(), read(&dir.join(name))?, format));
            }
        }
    }
    Ok(cases)
}

/// The key of every case, and that of the one with a post-quantum key.
fn fixture_key() -> Result<Identities> {
    let keys = [fixtures().join("age.key"), fixtures().join("hybrid/age.key")];
    Identities::from_text(&keys.iter().map(|path| read(path)).collect::<Result<Vec<_>>>()?.concat())
}

#[test]
fn what_the_real_sops_encrypted_decrypts_to_its_plain_text() -> Result<()> {
    let key = fixture_key()?;
    let cases = cases()?;
    assert!(cases.len() >= 18, "{}", cases.len());
    for (dir, text, format) in cases {
        let decrypted = decrypt(&text, format, &key).map_err(|error| error.at(dir.display()))?;
        if format == Format::Binary {
            let plain =
                std::fs::read(dir.join("plain.bin")).map_err(|error| Error::failed(error.to_string()))?;
            assert_eq!(decrypted.expose(), plain);
            continue;
        }
        let extension = if format == Format::Yaml { "yaml" } else { "json" };
        let plain = read(&dir.join(format!("plain.{extension}")))?;
        assert_eq!(values(decrypted.expose_text()?)?, values(&plain)?, "{}", dir.display());
        let comments = |text: &str| -> Result<BTreeSet<String>> {
            let stream = Stream::parse(text)?;
            let spans = stream.documents().iter().flat_map(|document| &document.comments);
            Ok(spans.map(|span| stream.slice(span).trim().to_owned()).collect())
        };
        assert_eq!(comments(decrypted.expose_text()?)?, comments(&plain)?, "{}", dir.display());
        let again = encrypt(decrypted.expose(), format, &decrypted.settings, now())?;
        let again = decrypt(&again, format, &key)?;
        assert_eq!(values(again.expose_text()?)?, values(&plain)?, "{}", dir.display());
    }
    Ok(())
}

#[test]
fn a_fixture_with_another_key_fails_and_names_recipients_and_sources() -> Result<()> {
    let other = keys(None)?;
    for (dir, text, format) in cases()? {
        let error = what(decrypt(&text, format, &other.identities));
        assert!(
            error.contains("encrypted to age1") && error.contains("tried: the given identities"),
            "{}: {error}",
            dir.display()
        );
    }
    Ok(())
}

/// Every leaf of a fixture, the metadata's `mac` and `lastmodified` included, with the fate of a change to it.
#[test]
fn tampering_with_any_single_value_fails() -> Result<()> {
    let key = fixture_key()?;
    let mut tampered = 0;
    for (dir, text, format) in cases()? {
        let only_encrypted = text.contains("mac_only_encrypted");
        let stream = Stream::parse(text.as_str())?;
        for (index, document) in stream.documents().iter().enumerate() {
            let mut spans = Vec::new();
            leaves(&document.root, &mut vec![], &mut spans);
            for (path, span) in spans {
                let metadata = path.first().is_some_and(|key| key == "sops");
                let checked =
                    ["mac", "lastmodified"].contains(&path.get(1).map_or("", String::as_str)) && index == 0;
                let encrypted = stream.slice(&span).contains("ENC[");
                if (metadata && !checked) || (!metadata && only_encrypted && !encrypted) {
                    continue;
                }
                let mut changed = text.clone();
                changed.replace_range(span.clone(), &other_value(stream.slice(&span)));
                let result = decrypt(&changed, format, &key);
                assert!(result.is_err(), "{} {path:?}", dir.display());
                tampered += 1;
            }
        }
    }
    assert!(tampered > 60, "{tampered}");
    Ok(())
}

fn leaves(
    node: &nodeprep::yaml::Node,
    path: &mut Vec<String>,
    out: &mut Vec<(Vec<String>, std::ops::Range<usize>)>,
) {
    for (key, value) in node.entries() {
        path.push(key.text().unwrap_or_default().to_owned());
        leaves(value, path, out);
        path.pop();
    }
    for item in node.items() {
        leaves(item, path, out);
    }
    if node.text().is_some_and(|text| !text.is_empty() && !text.contains("type:comment")) && !node.is_null() {
        out.push((path.clone(), node.span.clone()));
    }
}

/// The same kind of text, but another one.
fn other_value(text: &str) -> String {
    match text.find("data:") {
        Some(at) => {
            let (head, tail) = text.split_at(at + 5);
            let first = if tail.starts_with('A') { "B" } else { "A" };
            format!("{head}{first}{}", tail.get(1..).unwrap_or_default())
        }
        None => "\"2001-01-01T00:00:00Z\"".to_owned(),
    }
}

/// Proves that the real sops reads what we write: needs `sops` (`$NODEPREP_SOPS` or on PATH); `e2e/sops-test`.
#[test]
#[ignore = "needs the real sops"]
fn the_real_sops_decrypts_what_we_encrypt() -> Result<()> {
    let sops = std::env::var_os("NODEPREP_SOPS").unwrap_or_else(|| "sops".into());
    let dir = tempfile::tempdir().map_err(|error| Error::failed(error.to_string()))?;
    let key = NewKey::generate(now());
    let key_file = dir.path().join("key.txt");
    key.write(&key_file)?;
    let mut count = 0;
    for (case, text, format) in cases()? {
        let settings = decrypt(&text, format, &fixture_key()?)?.settings;
        let settings = Settings { recipients: vec![key.recipient()], ..settings };
        let (extension, kind) = match format {
            Format::Yaml => ("yaml", "yaml"),
            Format::Json => ("json", "json"),
            Format::Binary => ("bin", "binary"),
        };
        let plain = std::fs::read(case.join(format!("plain.{extension}")))
            .map_err(|error| Error::failed(error.to_string()))?;
        let path = dir.path().join(format!("file.{extension}"));
        let sealed = encrypt(&plain, format, &settings, now())?;
        std::fs::write(&path, &sealed).map_err(|error| Error::failed(error.to_string()))?;
        let decrypts = |path: &Path, key_file: &Path| {
            std::process::Command::new(&sops)
                .args(["decrypt", "--input-type", kind, "--output-type", kind])
                .arg(path)
                .env("SOPS_AGE_KEY_FILE", key_file)
                .output()
                .map_err(|error| Error::failed(error.to_string()))
        };
        let output = decrypts(&path, &key_file)?;
        let (out, errors) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}: {errors}\n{sealed}", case.display());
        assert!(
            !errors.contains("unencrypted comment") && !out.contains("ENC["),
            "{}: {errors}\n{out}\n{sealed}",
            case.display()
        );
        match format {
            Format::Binary => assert_eq!(output.stdout, plain),
            _ => {
                // It writes some values in a way of its own (1.0 as 1), whoever encrypted them.
                let own_key = [case.join("age.key"), fixtures().join("age.key")];
                let own_key = own_key.iter().find(|path| path.is_file()).unwrap_or(&key_file);
                let own = decrypts(&case.join(format!("enc.{extension}")), own_key)?;
                let own = String::from_utf8_lossy(&own.stdout);
                // The block scalars that it writes into lists are not always YAML; the same tree gives the same text.
                if out != own {
                    assert_eq!(values(&out)?, values(&own)?, "{}", case.display());
                }
            }
        }
        count += 1;
    }
    assert!(count >= 12);
    Ok(())
}

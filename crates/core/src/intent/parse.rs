//! From text to [`Intent`], with errors that point at the line and say what is allowed.

use std::path::Path;

use super::validate::certificates;
use super::{Intent, typed, validate};
use crate::error::{Error, Result};

pub(super) const EXAMPLE_HINT: &str =
    "`nodeprep schema` prints what is allowed; examples/ holds a whole file";

/// Reads a `nodeprep.yaml`, and the files that it names in place of a text; `read` reads one by its path.
pub fn parse_with(
    name: &str,
    bytes: &[u8],
    read: impl Fn(&Path) -> std::io::Result<String>,
) -> Result<Intent> {
    let mut intent = parse(name, bytes)?;
    let Some(backup) = &mut intent.backup else { return Ok(intent) };
    let others = (0..).map(|index| vec!["locations".into(), index.into()]).zip(&mut backup.locations);
    for (at, location) in std::iter::once((vec!["location".into()], &mut backup.location)).chain(others) {
        let Some(ca_cert) = location.ca_cert.as_mut().filter(|text| !certificates::are_inline(text)) else {
            continue;
        };
        let path = Path::new(ca_cert.trim());
        let shown = path.display();
        let wrong = |what: &str| {
            let at = [&["backup".into()], at.as_slice(), &["caCert".into()]].concat();
            validate::broken(name, bytes, &at, what)
        };
        let text = read(path)
            .map_err(|error| wrong(&format!("can't read {shown}: {error}")).hint(certificates::HINT))?;
        certificates::check(&text)
            .map_err(|(line, why)| wrong(&format!("{shown}:{line}: {why}")).hint(certificates::HINT))?;
        *ca_cert = text;
    }
    Ok(intent)
}

/// Reads a `nodeprep.yaml`; `name` is what errors call the file.
pub fn parse(name: &str, bytes: &[u8]) -> Result<Intent> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        Error::invalid(format!("{name}: not a text file (invalid UTF-8 at byte {})", e.valid_up_to()))
            .hint("a nodeprep.yaml is YAML in UTF-8")
    })?;
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Err(Error::invalid(format!("{name}: the file is empty")).hint(EXAMPLE_HINT));
    }
    let intent = typed::read(name, text)?;
    validate::validate(name, text, &intent)?;
    Ok(intent)
}

/// The JSON schema of `nodeprep.yaml`.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Intent).to_value()
}

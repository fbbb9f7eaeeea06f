//! From text to [`Intent`], with errors that point at the line and say what is allowed.

use super::{Intent, validate};
use crate::error::{Error, Result};

const EXAMPLE_HINT: &str = "`nodeprep schema` prints what is allowed; examples/ holds a whole file";

/// Reads a `nodeprep.yaml`; `name` is what errors call the file.
pub fn parse(name: &str, bytes: &[u8]) -> Result<Intent> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        Error::invalid(format!("{name}: not a text file (invalid UTF-8 at byte {})", e.valid_up_to()))
            .hint("a nodeprep.yaml is YAML in UTF-8")
    })?;
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Err(Error::invalid(format!("{name}: the file is empty")).hint(EXAMPLE_HINT));
    }
    let intent: Intent = serde_yaml::from_str(text).map_err(|error| {
        let error = error.without_snippet();
        let place = error.location().map_or_else(String::new, |l| format!(":{}:{}", l.line(), l.column()));
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or(&message);
        Error::invalid(format!("{name}{place}: {message}")).hint(EXAMPLE_HINT)
    })?;
    validate::validate(name, text, &intent)?;
    Ok(intent)
}

/// The JSON schema of `nodeprep.yaml`.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Intent).to_value()
}

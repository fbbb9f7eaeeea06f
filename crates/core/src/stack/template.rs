//! The manifests' templates: embedded, strict about unknown names, every value written as JSON.

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde_json::Value;

use crate::error::{Error, Result, chain};

/// Fills a template (`name` is for errors) and reads the documents in it.
pub(super) fn fill(name: &'static str, source: &'static str, values: &Value) -> Result<Vec<Value>> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::Json);
    let text = environment
        .render_named_str(name, source, minijinja::Value::from(Serde(values)))
        .map_err(|e| Error::failed(format!("manifests/{name}: {}", chain(&e))))?;
    documents(name, &text)
}

/// Reads the documents of a YAML text, leaving out empty ones.
pub(super) fn documents(name: &'static str, text: &str) -> Result<Vec<Value>> {
    let options = serde_yaml::options! { strict_booleans: true };
    let documents: Vec<Value> = serde_yaml::from_multiple_with_options(text, options)
        .map_err(|e| Error::failed(format!("manifests/{name}: {}", e.without_snippet())))?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

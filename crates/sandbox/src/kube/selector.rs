//! Label and field selectors of lists and watches.

use serde_json::Value;

use super::status::{Refusal, bad_request};

/// What an object must have to be in a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    labels: Vec<Want>,
    fields: Vec<Want>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Want {
    key: String,
    /// Any of these; with none the key has to be there.
    values: Vec<String>,
    not: bool,
}

/// Fields that every kind can be selected by, and those of some kinds.
const FIELDS: [&str; 2] = ["metadata.name", "metadata.namespace"];
const MORE_FIELDS: [(&str, &[&str]); 4] = [
    (
        "Event",
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "reason",
            "reportingComponent",
            "type",
        ],
    ),
    ("Pod", &["spec.nodeName", "spec.restartPolicy", "spec.serviceAccountName", "status.phase"]),
    ("Secret", &["type"]),
    ("Namespace", &["status.phase"]),
];

impl Selector {
    /// Reads the two parameters of a request for objects of this kind.
    pub fn parse(kind: &str, labels: &str, fields: &str) -> Result<Self, Refusal> {
        let selector = Self { labels: wants(labels)?, fields: wants(fields)? };
        let more = MORE_FIELDS.iter().find(|(of, _)| *of == kind).map_or(&[][..], |(_, fields)| fields);
        let known = |field: &str| FIELDS.contains(&field) || more.contains(&field);
        if let Some(unknown) = selector.fields.iter().find(|want| !known(&want.key)) {
            let only: Vec<String> = FIELDS.iter().chain(more).map(|field| format!("{field:?}")).collect();
            let message =
                format!("{:?} is not a known field selector: only {}", unknown.key, only.join(", "));
            return Err(bad_request(message));
        }
        Ok(selector)
    }

    pub fn holds(&self, object: &Value) -> bool {
        let label = |key: &str| object["metadata"]["labels"].get(key);
        let field = |key: &str| object.pointer(&format!("/{}", key.replace('.', "/")));
        self.labels.iter().all(|want| want.holds(label(&want.key)))
            && self.fields.iter().all(|want| want.holds(Some(field(&want.key).unwrap_or(&Value::Null))))
    }
}

impl Want {
    fn holds(&self, value: Option<&Value>) -> bool {
        let text = value.map(|value| value.as_str().unwrap_or_default());
        let has = match text {
            Some(text) => self.values.is_empty() || self.values.iter().any(|wanted| wanted == text),
            None => false,
        };
        has != self.not
    }
}

fn wants(text: &str) -> Result<Vec<Want>, Refusal> {
    parts(text).into_iter().filter(|part| !part.trim().is_empty()).map(|part| want(part.trim())).collect()
}

/// Split at the commas that are not within parentheses.
fn parts(text: &str) -> Vec<&str> {
    let (mut depth, mut from, mut found) = (0_i32, 0, Vec::new());
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                found.push(text.get(from..at).unwrap_or_default());
                from = at + 1;
            }
            _ => {}
        }
    }
    found.push(text.get(from..).unwrap_or_default());
    found
}

fn want(part: &str) -> Result<Want, Refusal> {
    let one = |key: &str, values: Vec<String>, not: bool| Want { key: key.trim().to_owned(), values, not };
    for (sign, not) in [("!=", true), ("==", false), ("=", false)] {
        if let Some((key, value)) = part.split_once(sign) {
            return Ok(one(key, vec![value.trim().to_owned()], not));
        }
    }
    for (word, not) in [(" notin ", true), (" in ", false)] {
        if let Some((key, list)) = part.split_once(word) {
            let list = list.trim().strip_prefix('(').and_then(|list| list.strip_suffix(')'));
            let list = list.ok_or_else(|| bad_request(format!("unable to parse requirement: {part}")))?;
            return Ok(one(key, list.split(',').map(|value| value.trim().to_owned()).collect(), not));
        }
    }
    Ok(match part.strip_prefix('!') {
        Some(key) => one(key, Vec::new(), true),
        None => one(part, Vec::new(), false),
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_and_fields_choose() {
        let object =
            json!({"metadata": {"name": "a", "labels": {"app": "web", "tier": "one"}}, "type": "Normal"});
        for (labels, fields, holds) in [
            ("", "", true),
            ("app=web", "metadata.name=a", true),
            ("app==web,tier!=two", "", true),
            ("app in (db, web),!gone", "", true),
            ("tier notin (one)", "", false),
            ("gone", "", false),
            ("gone!=x", "", true),
            ("", "metadata.name!=a", false),
            ("", "involvedObject.name=", true),
            ("", "type=Warning", false),
        ] {
            let selector = Selector::parse("Event", labels, fields).unwrap();
            assert_eq!(selector.holds(&object), holds, "{labels} {fields}");
        }
        assert!(Selector::parse("ConfigMap", "", "type=x").is_err());
        assert!(Selector::parse("ConfigMap", "a in x", "").is_err());
    }
}

//! Sets of fields, and the form in which an object's `managedFields` keep them (FieldsV1).
//! Source: sigs.k8s.io/structured-merge-diff, fieldpath: `f:` a field, `k:` a list item by its keys, `v:` by its value, `.`
//! the thing itself beside what is in it.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

/// One step on the way to a field.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Field(String),
    /// A list item by its keys: names and JSON values, ordered by name.
    Key(Vec<(String, String)>),
    /// A list item by its own JSON value.
    Value(String),
}

/// A set of fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    /// Whether the thing itself is in the set.
    pub here: bool,
    pub below: BTreeMap<Step, Self>,
}

impl Fields {
    pub fn leaf() -> Self {
        Self { here: true, below: BTreeMap::new() }
    }

    pub fn is_empty(&self) -> bool {
        !self.here && self.below.values().all(Self::is_empty)
    }

    pub fn union(&self, other: &Self) -> Self {
        let mut both = self.clone();
        both.here |= other.here;
        for (step, fields) in &other.below {
            let mine = both.below.remove(step).unwrap_or_default();
            both.below.insert(step.clone(), mine.union(fields));
        }
        both
    }

    pub fn minus(&self, other: &Self) -> Self {
        self.keep(other, &|mine, theirs| mine && !theirs)
    }

    pub fn common(&self, other: &Self) -> Self {
        self.keep(other, &|mine, theirs| mine && theirs)
    }

    fn keep(&self, other: &Self, rule: &dyn Fn(bool, bool) -> bool) -> Self {
        let empty = Self::default();
        let below = self.below.iter().filter_map(|(step, fields)| {
            let kept = fields.keep(other.below.get(step).unwrap_or(&empty), rule);
            (!kept.is_empty()).then(|| (step.clone(), kept))
        });
        Self { below: below.collect(), here: rule(self.here, other.here) }
    }

    /// The ways to all members, shorter ones first.
    pub fn paths(&self) -> Vec<Vec<Step>> {
        let mut found = Vec::new();
        self.walk(&mut Vec::new(), &mut found);
        found
    }

    fn walk(&self, way: &mut Vec<Step>, found: &mut Vec<Vec<Step>>) {
        if self.here {
            found.push(way.clone());
        }
        for (step, fields) in &self.below {
            way.push(step.clone());
            fields.walk(way, found);
            way.pop();
        }
    }

    pub fn insert(&mut self, way: &[Step]) {
        match way {
            [] => self.here = true,
            [first, rest @ ..] => self.below.entry(first.clone()).or_default().insert(rest),
        }
    }

    /// What lies at the end of a way.
    pub fn at(&self, way: &[Step]) -> Option<&Self> {
        way.iter().try_fold(self, |fields, step| fields.below.get(step))
    }

    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        if self.here && !self.below.is_empty() {
            map.insert(".".into(), Value::Object(Map::new()));
        }
        for (step, fields) in &self.below {
            map.insert(step.to_key(), fields.to_json());
        }
        Value::Object(map)
    }

    /// Reads FieldsV1; what can't be read is left out.
    pub fn from_json(value: &Value) -> Self {
        let map = value.as_object();
        let mut fields = Self { here: map.is_none_or(Map::is_empty), below: BTreeMap::new() };
        for (key, value) in map.into_iter().flatten() {
            if key == "." {
                fields.here = true;
            } else if let Some(step) = Step::from_key(key) {
                fields.below.insert(step, Self::from_json(value));
            }
        }
        fields
    }
}

impl Step {
    fn to_key(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(keys) => {
                let pairs: Vec<String> = keys
                    .iter()
                    .map(|(name, value)| format!("{}:{value}", Value::from(name.as_str())))
                    .collect();
                format!("k:{{{}}}", pairs.join(","))
            }
            Self::Value(value) => format!("v:{value}"),
        }
    }

    fn from_key(key: &str) -> Option<Self> {
        match key.split_once(':')? {
            ("f", name) => Some(Self::Field(name.to_owned())),
            ("v", value) => Some(Self::Value(value.to_owned())),
            ("k", keys) => {
                let Ok(Value::Object(keys)) = serde_json::from_str(keys) else { return None };
                let mut keys: Vec<_> =
                    keys.into_iter().map(|(name, value)| (name, value.to_string())).collect();
                keys.sort();
                Some(Self::Key(keys))
            }
            _ => None,
        }
    }
}

/// As the API server names a field in a conflict: `.spec.containers[name="a"].image`.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(keys) => {
                let pairs: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(f, "[{}]", pairs.join(","))
            }
            Self::Value(value) => write!(f, "[={value}]"),
        }
    }
}

/// A way as the API server writes it.
pub fn written(way: &[Step]) -> String {
    way.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_set_reads_as_it_was_written() {
        let recorded = json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}, "f:name": {}}}},
            "f:metadata": {"f:finalizers": {"v:\"x\"": {}}}});
        let fields = Fields::from_json(&recorded);
        assert_eq!(Fields::from_json(&fields.to_json()), fields);
        let ways: Vec<String> = fields.paths().iter().map(|way| written(way)).collect();
        assert_eq!(
            ways,
            [
                ".metadata.finalizers[=\"x\"]",
                ".spec.containers[name=\"a\"]",
                ".spec.containers[name=\"a\"].image",
                ".spec.containers[name=\"a\"].name",
            ]
        );
    }

    #[test]
    fn sets_are_joined_shared_and_taken_from_each_other() {
        let a = Fields::from_json(&json!({"f:data": {"f:a": {}, "f:b": {}}}));
        let b = Fields::from_json(&json!({"f:data": {"f:b": {}, "f:c": {}}}));
        assert_eq!(a.union(&b).to_json(), json!({"f:data": {"f:a": {}, "f:b": {}, "f:c": {}}}));
        assert_eq!(a.common(&b).to_json(), json!({"f:data": {"f:b": {}}}));
        assert_eq!(a.minus(&b).to_json(), json!({"f:data": {"f:a": {}}}));
        assert!(a.minus(&a).is_empty() && !a.is_empty());
    }
}

//! What the fields of the served kinds are, and how lists of them are merged: recorded from a real API server
//! (`e2e/record-types`); for kinds of a CustomResourceDefinition, read from its schema.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::Value;

/// The type of a value.
#[derive(Debug, Clone, PartialEq)]
pub enum Type {
    Scalar(Scalar),
    /// Anything at all; one value for whoever owns it.
    Any,
    /// A struct of the table; some hold themselves.
    Named(String),
    Struct(Struct),
    /// Names to values of one type.
    Map(Box<Self>),
    List(Box<Self>, Merge),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalar {
    String,
    Integer,
    Number,
    Boolean,
    /// A number or a string.
    Quantity,
}

/// Fields by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Struct {
    pub fields: BTreeMap<String, Type>,
    /// One value for whoever owns it, whatever is in it.
    pub atomic: bool,
    /// Unknown fields are kept (`x-kubernetes-preserve-unknown-fields`).
    pub open: bool,
}

impl Struct {
    /// The type of a field; one that is not known may hold anything.
    pub fn field(&self, name: &str) -> &Type {
        self.fields.get(name).unwrap_or(&Type::Any)
    }
}

/// How a list is merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merge {
    /// One value.
    Atomic,
    /// By the values themselves.
    Set,
    /// By the items' values of these keys.
    Keys(Vec<String>),
}

/// A type with its name looked up.
#[derive(Debug, Clone, Copy)]
pub enum Shape<'a> {
    Scalar(Scalar),
    Any,
    Struct(&'a Struct),
    Map(&'a Type),
    List(&'a Type, &'a Merge),
}

impl Type {
    pub fn shape(&self) -> Shape<'_> {
        match self {
            Self::Scalar(scalar) => Shape::Scalar(*scalar),
            Self::Any => Shape::Any,
            Self::Named(name) => TABLE.types.get(name).map_or(Shape::Any, Shape::Struct),
            Self::Struct(one) => Shape::Struct(one),
            Self::Map(of) => Shape::Map(of),
            Self::List(of, merge) => Shape::List(of, merge),
        }
    }

    /// The type of a kind of the table, such as `apps/v1` and `Deployment`.
    pub fn of_kind(api_version: &str, kind: &str) -> Option<Self> {
        TABLE.kinds.get(&format!("{api_version} {kind}")).cloned().map(Self::Named)
    }

    /// The type that a CustomResourceDefinition's schema describes, with the metadata that every object has.
    pub fn of_crd(schema: &Value) -> Self {
        let mut of = Self::of_schema(schema);
        if let Self::Struct(one) = &mut of {
            one.fields.insert("apiVersion".into(), Self::Scalar(Scalar::String));
            one.fields.insert("kind".into(), Self::Scalar(Scalar::String));
            one.fields.insert("metadata".into(), Self::Named("meta.v1.ObjectMeta".into()));
        }
        of
    }

    fn of_schema(schema: &Value) -> Self {
        let open = schema["x-kubernetes-preserve-unknown-fields"] == true;
        if schema["x-kubernetes-int-or-string"] == true {
            return Self::Scalar(Scalar::Quantity);
        }
        match schema["type"].as_str() {
            Some("string") => Self::Scalar(Scalar::String),
            Some("integer") => Self::Scalar(Scalar::Integer),
            Some("number") => Self::Scalar(Scalar::Number),
            Some("boolean") => Self::Scalar(Scalar::Boolean),
            Some("array") => {
                let merge = match schema["x-kubernetes-list-type"].as_str() {
                    Some("map") => Merge::Keys(strings(&schema["x-kubernetes-list-map-keys"])),
                    Some("set") => Merge::Set,
                    _ => Merge::Atomic,
                };
                Self::List(Box::new(Self::of_schema(&schema["items"])), merge)
            }
            Some("object") if schema["additionalProperties"].is_object() => {
                Self::Map(Box::new(Self::of_schema(&schema["additionalProperties"])))
            }
            Some("object") => {
                let fields = schema["properties"].as_object().into_iter().flatten();
                let fields = fields.map(|(name, schema)| (name.clone(), Self::of_schema(schema))).collect();
                Self::Struct(Struct { fields, atomic: schema["x-kubernetes-map-type"] == "atomic", open })
            }
            _ => Self::Any,
        }
    }

    /// Reads the recorded form (`e2e/record-types` says what it is).
    fn of_recorded(text: &Value) -> Self {
        match text {
            Value::String(code) => match code.as_str() {
                "s" => Self::Scalar(Scalar::String),
                "i" => Self::Scalar(Scalar::Integer),
                "n" => Self::Scalar(Scalar::Number),
                "b" => Self::Scalar(Scalar::Boolean),
                "q" => Self::Scalar(Scalar::Quantity),
                "x" => Self::Any,
                name => Self::Named(name.to_owned()),
            },
            Value::Object(map) if map.contains_key("l") => {
                let merge = match (map.get("k"), map.get("set")) {
                    (Some(keys), _) => Merge::Keys(strings(keys)),
                    (None, Some(_)) => Merge::Set,
                    (None, None) => Merge::Atomic,
                };
                Self::List(Box::new(Self::of_recorded(&map["l"])), merge)
            }
            Value::Object(map) if map.contains_key("a") => Self::Any,
            Value::Object(map) => Self::Map(Box::new(map.get("m").map_or(Self::Any, Self::of_recorded))),
            _ => Self::Any,
        }
    }
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|one| Some(one.as_str()?.to_owned())).collect()
}

#[derive(Deserialize)]
struct Recorded {
    kinds: BTreeMap<String, String>,
    types: BTreeMap<String, RecordedType>,
}

#[derive(Deserialize)]
struct RecordedType {
    f: BTreeMap<String, Value>,
    #[serde(default)]
    a: bool,
}

struct Table {
    kinds: BTreeMap<String, String>,
    types: BTreeMap<String, Struct>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let recorded: Recorded = serde_json::from_str(include_str!("types.json")).expect("types.json is a table");
    let types = recorded.types.into_iter().map(|(name, one)| {
        let fields = one.f.iter().map(|(field, text)| (field.clone(), Type::of_recorded(text))).collect();
        (name, Struct { fields, atomic: one.a, open: false })
    });
    Table { kinds: recorded.kinds, types: types.collect() }
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_in_the_table_is_in_the_table() {
        fn check(of: &Type) {
            match of {
                Type::Named(name) => assert!(TABLE.types.contains_key(name), "{name}"),
                Type::Map(of) | Type::List(of, _) => check(of),
                Type::Struct(_) | Type::Scalar(_) | Type::Any => {}
            }
        }
        assert!(TABLE.kinds.len() > 20 && TABLE.types.len() > 200);
        TABLE.kinds.values().for_each(|name| check(&Type::Named(name.clone())));
        TABLE.types.values().flat_map(|one| one.fields.values()).for_each(check);
    }

    #[test]
    fn a_containers_ports_are_merged_by_number_and_protocol() {
        let container = Type::Named("core.v1.Container".into());
        let Shape::Struct(container) = container.shape() else { panic!() };
        let Shape::List(_, merge) = container.fields["ports"].shape() else { panic!() };
        assert_eq!(*merge, Merge::Keys(vec!["containerPort".into(), "protocol".into()]));
        assert!(Type::of_kind("apps/v1", "Deployment").is_some() && Type::of_kind("v1", "Nothing").is_none());
    }
}

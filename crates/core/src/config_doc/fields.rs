//! How Talos merges each field of each kind of document, as `e2e/oracle` read it off Talos' own types.
//!
//! `fields.json` holds, newest version last to speak, for every kind its type and for every type its fields. The notation:
//!
//! | rule | what a patch does |
//! |---|---|
//! | `string`, `number`, `text:ZERO` | replaces it, unless the patch's value is empty, 0 or ZERO |
//! | `bool` | replaces it always, also where the patch does not name it |
//! | `over` | the same: a patch that does not name it empties it |
//! | `size` | replaces it, but bytes do not become a percentage |
//! | `url` | replaces it part by part |
//! | `closed` | fails if there is one already |
//! | `any` | merges what exists by its type |
//! | `args` | a map whose values are replaced |
//! | `*RULE` | nothing if there is no value; a zero one counts |
//! | `[]RULE` | appends its items |
//! | `[KEY\|KEY]RULE` | merges items with the same key (the first one that is set), appends others; `KEY=` replaces them |
//! | `{}RULE` | merges a map by its keys |
//! | `=RULE` | replaces it as a whole |
//! | a name | merges the fields of that type |

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::LazyLock;

use serde::Deserialize;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rule {
    /// A scalar, with the text that its zero value has beside the empty one.
    Text(String),
    Number,
    Bool,
    Over,
    Size,
    Url,
    Closed,
    Any,
    Args,
    Pointer(Box<Self>),
    List(Box<Self>),
    Keyed {
        keys: Vec<String>,
        replaced: bool,
        item: Box<Self>,
    },
    Map(Box<Self>),
    Replaced(Box<Self>),
    Struct(String),
}

#[derive(Deserialize)]
struct File {
    kinds: HashMap<String, String>,
    named: HashSet<String>,
    types: HashMap<String, BTreeMap<String, String>>,
}

pub(super) struct Fields {
    kinds: HashMap<String, Rule>,
    named: HashSet<String>,
    types: HashMap<String, BTreeMap<String, Rule>>,
}

/// The table; the legacy document is the kind `v1alpha1`.
pub(super) static FIELDS: LazyLock<Fields> = LazyLock::new(|| {
    let file: File = serde_json::from_str(include_str!("fields.json")).expect("fields.json is a table");
    let rules = |fields: BTreeMap<String, String>| -> BTreeMap<String, Rule> {
        fields.into_iter().map(|(name, rule)| (name, Rule::parse(&rule))).collect()
    };
    Fields {
        kinds: file.kinds.into_iter().map(|(kind, rule)| (kind, Rule::parse(&rule))).collect(),
        named: file.named,
        types: file.types.into_iter().map(|(name, fields)| (name, rules(fields))).collect(),
    }
});

impl Fields {
    /// The rule of a kind of document.
    pub(super) fn kind(&self, kind: &str) -> Option<&Rule> {
        self.kinds.get(kind)
    }

    /// Whether several documents of this kind are told apart by their names.
    pub(super) fn is_named(&self, kind: &str) -> bool {
        self.named.contains(kind)
    }

    pub(super) fn of(&self, name: &str) -> impl Iterator<Item = (&str, &Rule)> {
        self.types.get(name).into_iter().flatten().map(|(field, rule)| (field.as_str(), rule))
    }

    pub(super) fn field(&self, name: &str, field: &str) -> Option<&Rule> {
        self.types.get(name)?.get(field)
    }
}

impl Rule {
    fn parse(text: &str) -> Self {
        let boxed = |text: &str| Box::new(Self::parse(text));
        if let Some(inner) = text.strip_prefix('*') {
            return Self::Pointer(boxed(inner));
        }
        if let Some(inner) = text.strip_prefix('=') {
            return Self::Replaced(boxed(inner));
        }
        if let Some(inner) = text.strip_prefix("{}") {
            return Self::Map(boxed(inner));
        }
        if let Some((keys, item)) = text.strip_prefix('[').and_then(|text| text.split_once(']')) {
            return match keys {
                "" => Self::List(boxed(item)),
                keys => Self::Keyed {
                    keys: keys.trim_end_matches('=').split('|').map(str::to_owned).collect(),
                    replaced: keys.ends_with('='),
                    item: boxed(item),
                },
            };
        }
        match (text, text.strip_prefix("text:")) {
            (_, Some(zero)) => Self::Text(zero.to_owned()),
            ("string", _) => Self::Text(String::new()),
            ("number", _) => Self::Number,
            ("bool", _) => Self::Bool,
            ("over", _) => Self::Over,
            ("size", _) => Self::Size,
            ("url", _) => Self::Url,
            ("closed", _) => Self::Closed,
            ("any", _) => Self::Any,
            ("args", _) => Self::Args,
            (name, _) => Self::Struct(name.to_owned()),
        }
    }

    /// The rule without the pointer to it.
    pub(super) fn target(&self) -> &Self {
        match self {
            Self::Pointer(inner) | Self::Replaced(inner) => inner.target(),
            rule => rule,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_is_known_of_well_known_fields() {
        let rule = |kind: &str, path: &[&str]| {
            let start = FIELDS.kind(kind).unwrap().clone();
            path.iter().fold(start, |rule, field| match rule.target() {
                Rule::Struct(name) => FIELDS.field(name, field).unwrap().clone(),
                rule => unreachable!("{rule:?} has no field {field}"),
            })
        };
        let text = || Rule::Text(String::new());
        let boxed = |rule| Box::new(rule);
        assert_eq!(rule("v1alpha1", &["machine", "nodeLabels"]), Rule::Map(boxed(text())));
        assert_eq!(rule("v1alpha1", &["machine", "certSANs"]), Rule::List(boxed(text())));
        let subnets = rule("v1alpha1", &["cluster", "network", "podSubnets"]);
        assert_eq!(subnets, Rule::Replaced(boxed(Rule::List(boxed(text())))));
        let interfaces = rule("v1alpha1", &["machine", "network", "interfaces"]);
        assert!(matches!(interfaces, Rule::Keyed { keys, replaced: false, .. } if keys.len() == 2));
        assert_eq!(rule("UserVolumeConfig", &["provisioning", "minSize"]), Rule::Over);
        assert_eq!(rule("NetworkDefaultActionConfig", &["ingress"]), Rule::Text("accept".to_owned()));
        assert!(FIELDS.is_named("UserVolumeConfig") && !FIELDS.is_named("WatchdogTimerConfig"));
    }

    #[test]
    fn every_type_that_a_rule_names_is_in_the_table() {
        let rules = FIELDS.kinds.values().chain(FIELDS.types.values().flat_map(BTreeMap::values));
        for rule in rules {
            if let Rule::Struct(name) = innermost(rule) {
                assert!(FIELDS.types.contains_key(name), "{name}");
            }
        }
    }

    fn innermost(rule: &Rule) -> &Rule {
        match rule {
            Rule::Pointer(inner) | Rule::List(inner) | Rule::Map(inner) | Rule::Replaced(inner) => {
                innermost(inner)
            }
            Rule::Keyed { item, .. } => innermost(item),
            rule => rule,
        }
    }
}

//! Which nodes a volume's node affinity allows.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume};

/// Whether terms of an affinity allow a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    Yes,
    No,
    /// They say nothing, or something that is not understood here.
    Unknown,
}

/// The terms that a volume is bound by, any of which is enough.
pub fn terms(volume: &PersistentVolume) -> &[NodeSelectorTerm] {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required.as_ref());
    required.map(|required| required.node_selector_terms.as_slice()).unwrap_or_default()
}

/// Whether the terms allow the node of this name and these labels.
pub fn fit(terms: &[NodeSelectorTerm], name: &str, labels: &BTreeMap<String, String>) -> Fit {
    let fits: Vec<Fit> = terms.iter().map(|term| fit_one(term, name, labels)).collect();
    match () {
        () if fits.contains(&Fit::Yes) => Fit::Yes,
        () if fits.is_empty() || fits.contains(&Fit::Unknown) => Fit::Unknown,
        () => Fit::No,
    }
}

fn fit_one(term: &NodeSelectorTerm, name: &str, labels: &BTreeMap<String, String>) -> Fit {
    let by_label = term.match_expressions.iter().flatten();
    let by_label = by_label.map(|rule| meets(rule, labels.get(&rule.key).map(String::as_str)));
    let by_field = term.match_fields.iter().flatten();
    let by_field = by_field.map(|rule| if rule.key == NAME { meets(rule, Some(name)) } else { Fit::Unknown });
    let rules: Vec<Fit> = by_label.chain(by_field).collect();
    match () {
        () if rules.contains(&Fit::No) => Fit::No,
        () if rules.is_empty() || rules.contains(&Fit::Unknown) => Fit::Unknown,
        () => Fit::Yes,
    }
}

/// The one field of a node that an affinity can ask for.
const NAME: &str = "metadata.name";

/// Whether a value is as one rule wants it.
fn meets(rule: &NodeSelectorRequirement, found: Option<&str>) -> Fit {
    let listed = || found.is_some_and(|found| rule.values.iter().flatten().any(|value| value == found));
    let meets = match rule.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        _ => return Fit::Unknown,
    };
    if meets { Fit::Yes } else { Fit::No }
}

/// What a volume is pinned to: the values of labels, or names of nodes, that its terms list, as text. Nothing where a term
/// lists none, since any node may be good enough for that one.
pub fn pinned_to(volume: &PersistentVolume) -> Option<String> {
    let mut all = Vec::new();
    for term in terms(volume) {
        let rules = term.match_expressions.iter().flatten().chain(term.match_fields.iter().flatten());
        let values = rules.filter(|rule| rule.operator == "In").flat_map(|rule| rule.values.iter().flatten());
        let before = all.len();
        all.extend(values.map(String::as_str));
        if all.len() == before {
            return None;
        }
    }
    (!all.is_empty()).then(|| all.join(", "))
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_node_fits_where_any_term_holds_as_a_whole_and_what_is_not_understood_is_not_known() {
        let labels =
            BTreeMap::from([("host".to_owned(), "h1".to_owned()), ("zone".to_owned(), "1".to_owned())]);
        let rule = |key: &str, operator: &str, values: &[&str]| json!({"key": key, "operator": operator, "values": values});
        let term = |rules: &[&Value]| json!({ "matchExpressions": rules });
        let (here, there) = (rule("host", "In", &["h1"]), rule("host", "In", &["h2"]));
        let (any, odd) = (rule("zone", "Exists", &[]), rule("zone", "Near", &["1"]));
        let named = |name: &str| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]});
        let strange = json!({"matchFields": [{"key": "spec.x", "operator": "In", "values": ["n1"]}]});
        for (name, terms, fits, pinned) in [
            ("its own", vec![term(&[&here])], Fit::Yes, Some("h1")),
            ("another's", vec![term(&[&there])], Fit::No, Some("h2")),
            ("one of two", vec![term(&[&there]), term(&[&here])], Fit::Yes, Some("h2, h1")),
            ("both in one", vec![term(&[&here, &there])], Fit::No, Some("h1, h2")),
            ("and a label that it has", vec![term(&[&here, &any])], Fit::Yes, Some("h1")),
            ("or any that has a label", vec![term(&[&there]), term(&[&any])], Fit::Yes, None),
            ("by its name", vec![named("n1")], Fit::Yes, Some("n1")),
            ("by another's name", vec![named("n2")], Fit::No, Some("n2")),
            ("not in its zone", vec![term(&[&rule("zone", "NotIn", &["1"])])], Fit::No, None),
            ("without a label", vec![term(&[&rule("rack", "DoesNotExist", &[])])], Fit::Yes, None),
            ("an operator that nobody knows", vec![term(&[&here, &odd])], Fit::Unknown, Some("h1")),
            ("the same, of another", vec![term(&[&there, &odd])], Fit::No, Some("h2")),
            ("a field that nobody knows", vec![strange], Fit::Unknown, Some("n1")),
            ("an empty term", vec![json!({})], Fit::Unknown, None),
            ("no terms", vec![], Fit::Unknown, None),
        ] {
            let affinity = json!({"required": {"nodeSelectorTerms": terms}});
            let volume: PersistentVolume =
                serde_json::from_value(json!({"metadata": {}, "spec": {"nodeAffinity": affinity}})).unwrap();
            assert_eq!(fit(super::terms(&volume), "n1", &labels), fits, "{name}");
            assert_eq!(pinned_to(&volume).as_deref(), pinned, "{name}");
        }
        let bare = PersistentVolume::default();
        assert_eq!((fit(super::terms(&bare), "n1", &labels), pinned_to(&bare)), (Fit::Unknown, None));
    }
}

//! What the specs of backups and restores choose: names that are included and excluded, and labels.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::objects::list;
use super::super::text;
use crate::intent::fits;

/// Included and excluded names; nothing included means everything.
#[derive(Debug)]
pub(super) struct Chosen {
    included: Vec<String>,
    excluded: Vec<String>,
}

impl Chosen {
    /// From two lists of a spec, such as `includedNamespaces` and `excludedNamespaces`.
    pub(super) fn of(spec: &Value, what: &str) -> Self {
        let named = |list_of: &str| {
            let names = list(spec, &format!("/{list_of}{what}")).iter().filter_map(Value::as_str);
            names.map(str::to_owned).collect()
        };
        Self { included: named("included"), excluded: named("excluded") }
    }

    pub(super) fn takes(&self, name: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| fits(pattern, name));
        !any(&self.excluded) && (self.included.is_empty() || any(&self.included))
    }

    /// A resource such as `deployments.apps`, which may be called without its group. Short names are not known.
    pub(super) fn takes_resource(&self, resource: &str) -> bool {
        let plural = resource.split('.').next().unwrap_or_default();
        let any =
            |names: &[String]| names.iter().any(|name| name == "*" || name == resource || name == plural);
        !any(&self.excluded) && (self.included.is_empty() || any(&self.included))
    }

    pub(super) fn includes(&self, name: &str) -> bool {
        self.included.iter().any(|one| one == name)
    }

    /// Whether nothing is left out.
    pub(super) fn everything(&self) -> bool {
        self.excluded.is_empty() && self.included.iter().all(|name| name == "*")
    }

    /// What is wrong with the lists.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.included.len() > 1 && self.includes("*") {
            faults
                .push("includes list must either contain '*' only, or a non-empty list of items".to_owned());
        }
        if self.excluded.iter().any(|name| name == "*") {
            faults.push("excludes list cannot contain '*'".to_owned());
        }
        let both: BTreeSet<&String> = self.excluded.iter().filter(|name| self.includes(name)).collect();
        let said =
            |name: &String| format!("excludes list cannot contain an item in the includes list: {name}");
        faults.extend(both.into_iter().map(said));
        faults
    }
}

/// What is wrong with what a spec chooses; `word` says whose it is, `backup` or `restore`.
pub(super) fn faults_of(spec: &Value, word: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (one, what) in [("resource", "Resources"), ("namespace", "Namespaces")] {
        let wrong = Chosen::of(spec, what).faults().into_iter();
        faults.extend(wrong.map(|fault| format!("Invalid included/excluded {one} lists: {fault}")));
    }
    if !spec["labelSelector"].is_null() && !spec["orLabelSelectors"].is_null() {
        faults.push(format!(
            "encountered labelSelector as well as orLabelSelectors in {word} spec, only one can be specified"
        ));
    }
    faults
}

/// What is wrong with a spec's label selector, which Velero finds out only when it lists what is to be backed up.
pub(super) fn selector_fault(spec: &Value) -> Option<&'static str> {
    list(spec, "/labelSelector/matchExpressions").iter().find_map(|wanted| {
        let some = !list(wanted, "/values").is_empty();
        match text(wanted, "/operator") {
            "In" | "NotIn" if !some => Some("for 'in', 'notin' operators, values set can't be empty"),
            "Exists" | "DoesNotExist" if some => {
                Some("values set must be empty for exists and does not exist")
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => None,
            _ => Some("it is not a valid label selector operator"),
        }
    })
}

/// Whether the spec's label selectors choose the object.
pub(super) fn selects(spec: &Value, object: &Value) -> bool {
    let any = list(spec, "/orLabelSelectors");
    labelled(&spec["labelSelector"], object)
        && (any.is_empty() || any.iter().any(|one| labelled(one, object)))
}

fn labelled(selector: &Value, object: &Value) -> bool {
    let label = |key: &str| object["metadata"]["labels"].get(key);
    let mut equal = selector["matchLabels"].as_object().into_iter().flatten();
    let meets = |wanted: &Value| {
        let value = label(text(wanted, "/key"));
        let within = value.is_some_and(|value| list(wanted, "/values").contains(value));
        match text(wanted, "/operator") {
            "In" => within,
            "NotIn" => !within,
            "Exists" => value.is_some(),
            _ => value.is_none(),
        }
    };
    equal.all(|(key, value)| label(key) == Some(value))
        && list(selector, "/matchExpressions").iter().all(meets)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_chosen_by_two_lists() {
        let spec =
            |included: &[&str], excluded: &[&str]| json!({"includedX": included, "excludedX": excluded});
        for (included, excluded, takes, leaves) in [
            (&[][..], &[][..], "a", ""),
            (&["*"], &["a"], "b", "a"),
            (&["app-*"], &["app-test"], "app-1", "app-test"),
            (&["a", "b"], &[], "b", "c"),
        ] {
            let chosen = Chosen::of(&spec(included, excluded), "X");
            assert!(chosen.takes(takes) && (leaves.is_empty() || !chosen.takes(leaves)), "{chosen:?}");
            assert_eq!(chosen.everything(), leaves.is_empty(), "{chosen:?}");
            assert_eq!(chosen.faults(), [""; 0]);
        }
        let resources = Chosen::of(&spec(&["pods", "deployments"], &[]), "X");
        assert!(resources.takes_resource("deployments.apps") && !resources.takes_resource("secrets"));
        let wrong = Chosen::of(&spec(&["*", "a"], &["*", "a"]), "X").faults();
        assert_eq!(wrong.len(), 4, "{wrong:?}");
    }

    #[test]
    fn labels_choose_objects() {
        let object = json!({"metadata": {"labels": {"app": "web", "tier": "one"}}});
        let wants = |key: &str, operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        for (spec, chosen) in [
            (json!({}), true),
            (json!({"labelSelector": {"matchLabels": {"app": "web"}}}), true),
            (json!({"labelSelector": {"matchLabels": {"app": "db"}}}), false),
            (json!({"labelSelector": wants("tier", "In", &["one", "two"])}), true),
            (json!({"labelSelector": wants("tier", "NotIn", &["one"])}), false),
            (json!({"labelSelector": wants("gone", "Exists", &[])}), false),
            (json!({"labelSelector": wants("gone", "DoesNotExist", &[])}), true),
            (
                json!({"orLabelSelectors": [wants("gone", "Exists", &[]), {"matchLabels": {"app": "web"}}]}),
                true,
            ),
            (json!({"orLabelSelectors": [wants("gone", "Exists", &[])]}), false),
        ] {
            assert_eq!(selects(&spec, &object), chosen, "{spec}");
        }
    }
}

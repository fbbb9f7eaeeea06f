//! What a restore changes of objects on their way, by the rules in a ConfigMap.

use serde_json::{Value, json};

use super::super::{Stage, names, text};

/// The rules of a restore.
#[derive(Debug, Default)]
pub(super) struct Modifiers(Vec<Value>);

impl Modifiers {
    /// # Errors
    /// What the restore ends with when the rules can't be had.
    pub(super) fn of(stage: &Stage<'_>, restore: &Value) -> Result<Self, String> {
        let name = text(restore, "/spec/resourceModifier/name");
        if name.is_empty() {
            return Ok(Self::default());
        }
        let (home, _) = names(restore);
        let missing = || {
            format!("failed to get resource modifiers configmap {home}/{name}: ConfigMap {name:?} not found")
        };
        let found = stage.get("/configmaps", home, name).ok_or_else(missing)?;
        let mut texts = found["data"].as_object().into_iter().flatten().filter_map(|(_, text)| text.as_str());
        let text = texts.next().unwrap_or_default();
        let rules: Value = serde_yaml::from_str(text).map_err(|error| {
            format!("Error in parsing resource modifiers provided in configmap {home}/{name}: {error}")
        })?;
        Ok(Self(rules["resourceModifierRules"].as_array().cloned().unwrap_or_default()))
    }

    /// Changes an object of this resource, such as `pods`, as each rule says that fits.
    pub(super) fn change(&self, resource: &str, object: &mut Value) {
        for rule in &self.0 {
            let matches = rule["conditions"]["matches"].as_array().into_iter().flatten();
            let fits = matches.fold(rule["conditions"]["groupResource"] == resource, |fits, one| {
                fits && object.pointer(text(one, "/path")).is_some_and(|found| *found == one["value"])
            });
            for patch in rule["patches"].as_array().into_iter().flatten().filter(|_| fits) {
                let plain = text(patch, "/value");
                // A text that is an object, a list or a number stands for that.
                let value = serde_json::from_str(plain).unwrap_or_else(|_| json!(plain));
                let patch = json!([{"op": patch["operation"], "path": patch["path"], "value": value}]);
                if let Ok(patch) = serde_json::from_value::<json_patch::Patch>(patch) {
                    let _ = json_patch::patch(object, &patch);
                }
            }
        }
    }
}

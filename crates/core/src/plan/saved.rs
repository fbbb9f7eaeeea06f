//! A plan in a file: what was reviewed, without the bytes. Keyed digests tell whether a plan made later is the same one, and
//! tell nothing about the secrets in it to whoever does not have the key.

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};

use super::{Plan, Step, Target};
use crate::error::{Error, Result};

/// The file's format; a reader refuses another.
const API_VERSION: &str = "nodeprep.dev/v1alpha1";
const KIND: &str = "SavedPlan";

/// The key of the digests: a block of SHA-256.
pub type Key = [u8; 64];

/// The fewest bytes that a person's key may have: who has the plan's file can try guesses of what is in it on the digests.
const FEWEST: usize = 32;

/// The key that a file holds, however long the file is, so that two machines can have the same one.
///
/// # Errors
/// `Invalid` when it is shorter than 32 bytes.
pub fn shared_key(name: &str, bytes: &[u8]) -> Result<Key> {
    let bytes = bytes.trim_ascii();
    if bytes.len() < FEWEST {
        let what =
            format!("{name}: a key of {} bytes can be guessed; it needs {FEWEST} or more", bytes.len());
        return Err(Error::invalid(what).hint("`openssl rand -hex 32` makes one"));
    }
    Ok(Sha512::digest(bytes).into())
}

/// A reviewed plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Saved {
    api_version: String,
    kind: String,
    pub cluster: String,
    /// Tells which key the digests were made with, and nothing of it.
    #[serde(default)]
    key_id: String,
    pub steps: Vec<SavedStep>,
}

/// A step as the file and the journal name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SavedStep {
    pub id: String,
    pub target: Target,
    pub title: String,
    /// What changes, as it was shown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub diff: String,
    /// Of everything that the step does and of the state that it was planned from, as 64 hex digits.
    pub digest: String,
}

impl Saved {
    pub fn of(cluster: &str, plan: &Plan, key: &Key) -> Self {
        let step = |step: &Step| SavedStep {
            id: step.id.clone(),
            target: step.target.clone(),
            title: step.title.clone(),
            diff: step.diff.clone(),
            digest: digest(step, key),
        };
        Self {
            api_version: API_VERSION.into(),
            kind: KIND.into(),
            cluster: cluster.into(),
            key_id: key_id(key),
            steps: plan.steps.iter().map(step).collect(),
        }
    }

    /// Reads a file that [`Saved`] was written to.
    ///
    /// # Errors
    /// `Kind::Invalid` with the line.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let saved: Self = serde_json::from_str(text)
            .map_err(|error| Error::invalid(format!("{name} is no saved plan: {error}")))?;
        if saved.api_version != API_VERSION || saved.kind != KIND {
            return Err(Error::invalid(format!(
                "{name}: {} {} is not known here",
                saved.api_version, saved.kind
            ))
            .hint("`nodeprep plan --out FILE` writes a plan"));
        }
        Ok(saved)
    }

    /// The plan's own digest: of its steps in their order.
    pub fn digest(&self, key: &Key) -> String {
        let mut mac = Digest::new(key);
        for step in &self.steps {
            mac.text(&step.id).text(&step.digest);
        }
        mac.hex()
    }

    /// Whether `now`, made from what exists now, does the very same.
    ///
    /// # Errors
    /// `Kind::Refused` with every step that moved; `Kind::Invalid` when the digests are of two keys, so that nobody can tell.
    pub fn same(&self, now: &Self) -> Result<()> {
        if self.key_id != now.key_id {
            return Err(Error::invalid("the plan was made with another key, so that it can't be compared with what is there")
                .hint(
                    "a plan is for the machine that made it, unless a key is shared: `plan --out FILE --plan-key KEY` there, \
                     `apply --plan FILE --plan-key KEY` here",
                ));
        }
        let find = |saved: &Self, id: &str| saved.steps.iter().find(|step| step.id == id).cloned();
        let mut moved = Vec::new();
        for step in &self.steps {
            match find(now, &step.id) {
                None => moved.push(format!("{}: {} is not needed any more", step.target, step.title)),
                Some(other) if other.digest != step.digest => {
                    moved.push(format!("{}: {} would do something else now", step.target, step.title));
                }
                Some(_) => {}
            }
        }
        for step in now.steps.iter().filter(|step| find(self, &step.id).is_none()) {
            moved.push(format!("{}: {} has become necessary", step.target, step.title));
        }
        if moved.is_empty() && self.steps != now.steps {
            moved.push("the steps would be taken in another order".into());
        }
        if self.cluster != now.cluster {
            moved.push(format!("the plan is for {}, the file for {}", self.cluster, now.cluster));
        }
        if moved.is_empty() {
            return Ok(());
        }
        Err(Error::refused(format!("the world moved since the plan was made:\n  {}", moved.join("\n  ")))
            .hint("plan again, and review what is different; nothing was changed"))
    }
}

fn key_id(key: &Key) -> String {
    let mut mac = Digest::new(key);
    mac.text("nodeprep.dev/plan-key");
    mac.hex().chars().take(16).collect()
}

/// Of everything that a step does, and of what it was planned from.
fn digest(step: &Step, key: &Key) -> String {
    let mut mac = Digest::new(key);
    mac.text(&step.id).text(&step.target.to_string()).text(&step.title).text(&step.diff);
    mac.list(&step.needs);
    step.action.digest(&mut mac);
    mac.hex()
}

/// Texts one after the other, each with its length, so that no two lists of texts give the same bytes.
pub(super) struct Digest(Hmac<Sha256>);

impl Digest {
    fn new(key: &Key) -> Self {
        Self(<Hmac<Sha256> as KeyInit>::new(key.into()))
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.0.update(&(text.len() as u64).to_be_bytes());
        self.0.update(text.as_bytes());
        self
    }

    fn list(&mut self, texts: &[String]) {
        self.text(&texts.len().to_string());
        for text in texts {
            self.text(text);
        }
    }

    fn hex(self) -> String {
        self.0.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use secrecy::SecretString;
    use serde_json::json;

    use super::*;
    use crate::model::object::Object;
    use crate::plan::{Action, ApplyConfig, NodeAction, ObjectAction};

    fn step(id: &str, action: Action) -> Step {
        Step::new(id, Target::node("10.0.0.1"), format!("step {id}"), action)
    }

    fn config(base: &str, text: &str) -> Action {
        Action::Node(NodeAction::Config(ApplyConfig {
            address: "10.0.0.1".into(),
            control_plane: false,
            base_version: base.into(),
            config: SecretString::from(text.to_owned()),
            volumes: Vec::new(),
            labels: Vec::new(),
            disks: Vec::new(),
        }))
    }

    fn object(value: &str) -> Action {
        let value = json!({"kind": "Secret", "metadata": {"name": "s"}, "stringData": {"key": value}});
        Action::Object(ObjectAction::Apply(Object {
            value,
            component: "velero",
            secret: true,
            create_only: false,
        }))
    }

    fn saved(steps: Vec<Step>) -> Saved {
        Saved::of("home", &Plan { steps, ..Plan::default() }, &[7; 64])
    }

    #[test]
    fn a_plan_that_would_do_the_same_is_taken_and_any_other_is_refused_with_what_moved() {
        let made = || vec![step("a", config("3", "text")), step("b", object("hush"))];
        let plan = saved(made());
        plan.same(&saved(made())).unwrap();
        for (steps, word) in [
            (
                vec![step("a", config("4", "text")), step("b", object("hush"))],
                "step a would do something else",
            ),
            (
                vec![step("a", config("3", "text ")), step("b", object("hush"))],
                "step a would do something else",
            ),
            (
                vec![step("a", config("3", "text")), step("b", object("hash"))],
                "step b would do something else",
            ),
            (vec![step("a", config("3", "text"))], "step b is not needed"),
            (made().into_iter().chain([step("c", object("x"))]).collect(), "step c has become necessary"),
            (vec![step("b", object("hush")), step("a", config("3", "text"))], "another order"),
        ] {
            let error = plan.same(&saved(steps)).unwrap_err();
            assert!(error.what.contains(word), "{error}");
            assert_eq!(error.kind.exit_code(), 5);
        }
    }

    #[test]
    fn the_file_holds_no_secret_and_another_key_gives_other_digests() {
        let plan = || Plan { steps: vec![step("b", object("hush"))], ..Plan::default() };
        let text = serde_json::to_string(&Saved::of("home", &plan(), &[7; 64])).unwrap();
        assert!(!text.contains("hush"));
        assert_eq!(Saved::parse("p", &text).unwrap(), Saved::of("home", &plan(), &[7; 64]));
        assert!(Saved::parse("p", &text).unwrap().same(&Saved::of("home", &plan(), &[8; 64])).is_err());
        for wrong in ["", "{}", "[]", &text.replace("SavedPlan", "Plan")] {
            assert_eq!(Saved::parse("p", wrong).unwrap_err().kind.exit_code(), 2);
        }
    }
}

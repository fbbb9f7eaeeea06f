//! The one event type: everything that happens, as data. Output is nothing but readers of events.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The version of the JSON lines protocol, carried by the first event of a run.
pub const PROTOCOL: u32 = 1;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Counts up from 1 within a run.
    pub seq: u64,
    /// When it happened, RFC 3339, UTC.
    pub at: String,
    /// The node or `cluster` it happened to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target: Option<String>,
    /// The id of the step or check it belongs to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub step: Option<String>,
    #[serde(flatten)]
    pub what: EventKind,
}

/// What happened; `event` names it in JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventKind {
    RunStarted {
        protocol: u32,
        verb: String,
        steps: usize,
        simulated: bool,
    },
    StepStarted {
        title: String,
    },
    /// Still waiting; `last` is the newest reason why it isn't there yet.
    Waiting {
        what: String,
        last: String,
    },
    /// What a person is told by the way.
    Message {
        message: String,
    },
    /// What is about to be asked about and carried out: as people read it, and as data.
    Planned {
        #[serde(skip)]
        text: String,
        plan: serde_json::Value,
    },
    /// What only those want to know who ask for more.
    Note {
        message: String,
    },
    Warning {
        message: String,
    },
    StepDone {
        changed: bool,
    },
    StepSkipped {
        why: String,
    },
    StepFailed {
        error: String,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        hint: Option<String>,
    },
    Checked {
        check: CheckResult,
    },
    RunFinished {
        ok: bool,
        summary: String,
    },
}

impl EventKind {
    /// Every text that may hold words of somebody else.
    pub fn texts(&mut self, change: &mut dyn FnMut(&mut String)) {
        match self {
            Self::Waiting { what, last } => [what, last].into_iter().for_each(change),
            Self::StepStarted { title: text }
            | Self::Message { message: text }
            | Self::Planned { text, .. }
            | Self::Note { message: text }
            | Self::Warning { message: text }
            | Self::StepSkipped { why: text }
            | Self::RunFinished { summary: text, .. } => change(text),
            Self::StepFailed { error, hint } => std::iter::once(error).chain(hint).for_each(change),
            Self::Checked { check } => match &mut check.verdict {
                Verdict::Pass { summary: text, .. } | Verdict::Skip { why: text } => change(text),
                Verdict::Warn { why, hint } | Verdict::Fail { why, hint } => {
                    [why, hint].into_iter().for_each(change);
                }
            },
            Self::RunStarted { .. } | Self::StepDone { .. } => {}
        }
    }
}

/// The outcome of one check on one subject.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckResult {
    /// The id of the check, such as `binding-mode`.
    pub id: String,
    pub title: String,
    pub subject: SubjectId,
    /// Seconds it took.
    pub seconds: f64,
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Why the verdict does not speak of the real product, such as `stand-in` for the test provisioner.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub labels: Vec<String>,
    /// The file asks for nothing that could be judged, so a warning of it proves nothing.
    #[serde(skip)]
    pub without_subject: bool,
}

/// What a check judges: the cluster, a storage class, or a class on a node. In JSON it is as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum SubjectId {
    Cluster,
    Class(String),
    Node { class: String, node: String },
}

/// How the cluster is shown. No class can be mistaken for it in a run, which goes by the type.
const CLUSTER: &str = "cluster";
/// Between a class and its node: neither can have a blank in its name.
const ON: &str = " on ";

impl SubjectId {
    /// Whether two subjects have to do with each other: one is the cluster, or they share the class and, where both name
    /// one, the node.
    pub fn concerns(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Cluster, _) | (_, Self::Cluster) => true,
            (Self::Node { class, node }, Self::Node { class: other, node: on }) => {
                class == other && node == on
            }
            (
                Self::Class(class) | Self::Node { class, .. },
                Self::Class(other) | Self::Node { class: other, .. },
            ) => class == other,
        }
    }
}

impl From<String> for SubjectId {
    fn from(text: String) -> Self {
        match text.split_once(ON) {
            Some((class, node)) => Self::Node { class: class.to_owned(), node: node.to_owned() },
            None if text == CLUSTER => Self::Cluster,
            None => Self::Class(text),
        }
    }
}

impl From<SubjectId> for String {
    fn from(subject: SubjectId) -> Self {
        subject.to_string()
    }
}

impl fmt::Display for SubjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str(CLUSTER),
            Self::Class(class) => f.write_str(class),
            Self::Node { class, node } => write!(f, "{class}{ON}{node}"),
        }
    }
}

/// A measured value with its unit, such as 1234.5 `IOPS`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    pub value: f64,
    pub unit: Unit,
}

impl Measurement {
    pub fn seconds(time: Duration) -> Self {
        Self { value: time.as_secs_f64(), unit: Unit::Seconds }
    }
}

/// What a value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    #[serde(rename = "s")]
    Seconds,
    #[serde(rename = "µs")]
    Microseconds,
    /// Operations a second.
    #[serde(rename = "IOPS")]
    Iops,
    #[serde(rename = "B/s")]
    BytesPerSecond,
    /// 1 is yes, 0 is no.
    #[serde(rename = "bool")]
    YesNo,
}

/// What a check found. "Could not run" is an error, not a verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum Verdict {
    Pass {
        #[serde(skip_serializing_if = "String::is_empty", default)]
        summary: String,
        #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
        measurements: BTreeMap<String, Measurement>,
    },
    Warn {
        why: String,
        hint: String,
    },
    Fail {
        why: String,
        hint: String,
    },
    Skip {
        why: String,
    },
}

impl Verdict {
    pub fn pass(summary: impl Into<String>) -> Self {
        Self::Pass { summary: summary.into(), measurements: BTreeMap::new() }
    }

    pub fn warn(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Warn { why: why.into(), hint: hint.into() }
    }

    pub fn fail(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Fail { why: why.into(), hint: hint.into() }
    }

    pub fn skip(why: impl Into<String>) -> Self {
        Self::Skip { why: why.into() }
    }
}

type Sink = Arc<dyn Fn(Event) + Send + Sync>;
type Clock = Arc<dyn Fn() -> String + Send + Sync>;

/// Where events are sent; cheap to clone, and a clone may carry a target and a step.
#[derive(Clone)]
pub struct Events {
    sink: Sink,
    clock: Clock,
    seq: Arc<AtomicU64>,
    target: Option<String>,
    step: Option<String>,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("target", &self.target)
            .field("step", &self.step)
            .finish_non_exhaustive()
    }
}

impl Events {
    /// Sends every event to `sink`, stamped by `clock` (RFC 3339).
    pub fn new(
        clock: impl Fn() -> String + Send + Sync + 'static,
        sink: impl Fn(Event) + Send + Sync + 'static,
    ) -> Self {
        Self { sink: Arc::new(sink), clock: Arc::new(clock), seq: Arc::default(), target: None, step: None }
    }

    /// The same stream, which `sink` sees too, after whom it is for.
    #[must_use]
    pub fn also(&self, sink: impl Fn(Event) + Send + Sync + 'static) -> Self {
        let first = Arc::clone(&self.sink);
        let both = move |event: Event| {
            first(event.clone());
            sink(event);
        };
        Self { sink: Arc::new(both), ..self.clone() }
    }

    /// The same stream, for events of one target and step.
    #[must_use]
    pub fn of(&self, target: impl Into<String>, step: impl Into<String>) -> Self {
        Self { target: Some(target.into()), step: Some(step.into()), ..self.clone() }
    }

    pub fn send(&self, what: EventKind) {
        let seq = self.seq.fetch_add(1, Ordering::Relaxed) + 1;
        let event =
            Event { seq, at: (self.clock)(), target: self.target.clone(), step: self.step.clone(), what };
        (self.sink)(event);
    }

    pub fn say(&self, message: impl Into<String>) {
        self.send(EventKind::Message { message: message.into() });
    }

    pub fn note(&self, message: impl Into<String>) {
        self.send(EventKind::Note { message: message.into() });
    }

    pub fn warn(&self, message: impl Into<String>) {
        self.send(EventKind::Warning { message: message.into() });
    }

    pub fn waiting(&self, what: impl Into<String>, last: impl Into<String>) {
        self.send(EventKind::Waiting { what: what.into(), last: last.into() });
    }
}

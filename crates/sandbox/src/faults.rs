//! Faults that a scenario stages: at some calls, the server answers otherwise, late, not at all, or goes down.

use serde::{Deserialize, Serialize};

use crate::intent::Duration;

/// A fault: where, at which call, how often, and what happens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Fault {
    /// A machine's address, or `kubernetes`; `*` is every place.
    #[serde(rename = "where")]
    pub place: String,
    /// Such as `ApplyConfiguration` or `List Disks.block.talos.dev`; for Kubernetes such as `POST /api/v1/namespaces`.
    /// A `*` at its end stands for anything.
    pub call: String,
    /// How often it happens; always, when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// So many calls go well first.
    #[serde(default)]
    pub after: u32,
    /// The call is refused with this text, as a server that is overloaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// For Kubernetes: refused with this HTTP status, and the error as the server's message, instead of by a proxy's 503.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// The refusal asks to be left alone for so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Duration>,
    /// The call is answered this much later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Duration>,
    /// What was asked is done, and the connection ends without an answer.
    #[serde(default)]
    pub drop_after_acting: bool,
    /// The connection ends, and nothing is done.
    #[serde(default)]
    pub reset: bool,
    /// What was asked is done, and then the machine reboots.
    #[serde(default)]
    pub reboot: bool,
    /// The call is answered, and its connection ends this much later: in the middle of a watch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_after: Option<Duration>,
    /// The history that watches need is forgotten first.
    #[serde(default)]
    pub compact: bool,
}

/// The faults that are still to come.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    /// The fault of this call, if it has one; it is counted.
    pub fn at(&mut self, place: &str, call: &str) -> Option<Fault> {
        let fault = self.0.iter_mut().find(|fault| fault.fits(place, call))?;
        if fault.after > 0 {
            fault.after -= 1;
            return None;
        }
        if let Some(times) = &mut fault.times {
            *times -= 1;
        }
        let fault = fault.clone();
        self.0.retain(|fault| fault.times != Some(0));
        Some(fault)
    }
}

impl Fault {
    fn fits(&self, place: &str, call: &str) -> bool {
        let called = match self.call.strip_suffix('*') {
            Some(start) => call.starts_with(start),
            None => call == self.call,
        };
        called && (self.place == "*" || self.place == place) && self.times != Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(place: &str, call: &str, times: Option<u32>, after: u32) -> Fault {
        let error = Some("overloaded".to_owned());
        Fault { place: place.into(), call: call.into(), times, after, error, ..Fault::default() }
    }

    #[test]
    fn a_fault_happens_where_it_is_said_and_as_often() {
        let mut faults =
            Faults(vec![fault("10.5.0.2", "List *", Some(2), 1), fault("*", "Version", None, 0)]);
        let mut at = |place, call| faults.at(place, call).is_some();
        assert!(!at("10.5.0.3", "List Disks") && !at("10.5.0.2", "Get Disks"));
        let listed: Vec<bool> = (0..4).map(|_| at("10.5.0.2", "List Disks")).collect();
        assert_eq!(listed, [false, true, true, false]);
        assert!(at("10.5.0.2", "Version") && at("10.5.0.9", "Version"));
    }
}

//! What takes time in the sandbox: things that were begun and are done later.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// When what was begun is done, by a key that says what it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Timers {
    due: BTreeMap<String, Timestamp>,
    /// Since when something is so, by a key that says what. The times in objects are whole seconds; these are exact.
    #[serde(default)]
    since: BTreeMap<String, Timestamp>,
    /// How many times faster than in the world things go.
    pub speed: f64,
}

impl Default for Timers {
    fn default() -> Self {
        Self { due: BTreeMap::new(), since: BTreeMap::new(), speed: 1.0 }
    }
}

impl Timers {
    /// Things go so many times faster than in the world.
    pub fn at(speed: f64) -> Self {
        Self { speed, ..Self::default() }
    }

    /// Whether something that takes so long is done. The first time it is asked, it begins; once it was done, it is
    /// forgotten, and can begin again.
    pub fn done(&mut self, key: &str, takes: Duration, now: Timestamp) -> bool {
        let takes = takes.div_f64(self.speed.max(0.001));
        let takes = SignedDuration::try_from(takes).unwrap_or(SignedDuration::MAX);
        let end = now.checked_add(takes).unwrap_or(Timestamp::MAX);
        let due = *self.due.entry(key.to_owned()).or_insert(end);
        if due > now {
            return false;
        }
        self.due.remove(key);
        true
    }

    /// Whether something has been so for so long: since it was asked first, and as long as it is kept.
    pub fn lasts(&mut self, key: &str, long: Duration, now: Timestamp) -> bool {
        let long = long.div_f64(self.speed.max(0.001));
        let long = SignedDuration::try_from(long).unwrap_or(SignedDuration::MAX);
        let since = *self.since.entry(key.to_owned()).or_insert(now);
        let end = since.checked_add(long).unwrap_or(Timestamp::MAX);
        if end > now {
            self.wake(key, end);
        }
        end <= now
    }

    /// What of these keys is so no more.
    pub fn keep(&mut self, is_so: impl Fn(&str) -> bool) {
        self.since.retain(|key, _| is_so(key));
    }

    /// Something is due at this time of the calendar, however fast things go.
    pub fn wake(&mut self, key: &str, at: Timestamp) {
        self.due.insert(key.to_owned(), at);
    }

    /// Forgets what was begun under keys that start so.
    pub fn forget(&mut self, prefix: &str) {
        self.due.retain(|key, _| !key.starts_with(prefix));
    }

    /// Forgets what was done by now and nobody asks for any more.
    pub fn forget_due(&mut self, now: Timestamp) {
        self.due.retain(|_, due| *due > now);
    }

    /// Whether something of these keys is done by now.
    pub fn due(&self, now: Timestamp, of: impl Fn(&str) -> bool) -> bool {
        self.due.iter().any(|(key, due)| *due <= now && of(key))
    }

    /// When the next thing is done.
    pub fn next(&self) -> Option<Timestamp> {
        self.due.values().min().copied()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_was_begun_is_done_once_at_its_time() {
        let at = |millis| Timestamp::from_millisecond(millis).unwrap();
        let mut timers = Timers { speed: 2.0, ..Timers::default() };
        let takes = Duration::from_secs(2);
        assert!(!timers.done("a", takes, at(0)));
        assert_eq!(timers.next(), Some(at(1000)));
        assert!(!timers.done("a", takes, at(999)) && timers.done("a", takes, at(1000)));
        assert_eq!(timers.next(), None);
        assert!(!timers.done("b/1", takes, at(0)));
        timers.forget("b/");
        assert_eq!(timers.next(), None);
        assert!(timers.done("c", Duration::ZERO, at(0)));
        timers.wake("d", at(5000));
        assert_eq!(timers.next(), Some(at(5000)), "whatever the speed");
    }

    #[test]
    fn what_lasts_is_counted_from_the_moment_it_was_so() {
        let at = |millis| Timestamp::from_millisecond(millis).unwrap();
        let mut timers = Timers { speed: 20.0, ..Timers::default() };
        let long = Duration::from_secs(10);
        assert!(!timers.lasts("a", long, at(900)) && !timers.lasts("a", long, at(1399)));
        assert!(timers.lasts("a", long, at(1400)) && timers.lasts("a", long, at(9000)));
        timers.keep(|key| key != "a");
        assert!(!timers.lasts("a", long, at(9001)));
    }
}

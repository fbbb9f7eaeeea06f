//! Spans of time as they are written in the file.

use std::fmt;

use jiff::fmt::friendly::SpanParser;

/// A span of time in whole seconds: `30s`, `5m`, `720h`, `1.5h`, or a mix such as `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(pub u64);

impl Duration {
    pub fn parse(text: &str) -> Result<Self, String> {
        let span = SpanParser::new().parse_duration(text).ok().filter(|span| span.subsec_nanos() == 0);
        let seconds = span.and_then(|span| u64::try_from(span.as_secs()).ok());
        let bad =
            || format!("`{text}` is not a duration in whole seconds: write one such as 30s, 5m or 720h");
        seconds.map(Self).ok_or_else(bad)
    }

    pub fn std(self) -> std::time::Duration {
        std::time::Duration::from_secs(self.0)
    }
}

/// As Go and Talos write durations, such as `720h0m0s`, which Velero reads back unchanged.
impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (h, m, s) = (self.0 / 3600, self.0 / 60 % 60, self.0 % 60);
        match (h, m) {
            (0, 0) => write!(f, "{s}s"),
            (0, _) => write!(f, "{m}m{s}s"),
            _ => write!(f, "{h}h{m}m{s}s"),
        }
    }
}

as_text!(Duration, "Duration", "^([0-9]+(\\.[0-9]+)?[smh])+$");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_as_go_does() {
        for (text, seconds) in
            [("30s", 30), ("5m", 300), ("720h", 2_592_000), ("1h30m", 5400), ("1.5h", 5400), ("0s", 0)]
        {
            assert_eq!(Duration::parse(text), Ok(Duration(seconds)), "{text}");
        }
        for text in ["", "5", "m", "5d", "-5s", "5s5", "1.5s", "500ms", "5s ago", "99999999999999999999h"] {
            assert!(Duration::parse(text).is_err(), "{text}");
        }
        assert_eq!(Duration(2_592_000).to_string(), "720h0m0s");
    }
}

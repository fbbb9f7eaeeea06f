//! When a schedule is due: cron lines as Velero's parser takes them, and its words for those that it does not take.
//! Source: robfig/cron, parser.go.

use std::str::FromStr;

use croner::Cron;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// A line that was understood.
#[derive(Debug)]
pub(super) enum Line {
    Cron(Box<Cron>, TimeZone),
    Every(SignedDuration),
}

/// A field's name for each of its numbers starts with these letters, from its lowest on.
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// The lowest and the highest number of each field, and their names.
const FIELDS: [(i64, i64, &[&str]); 5] =
    [(0, 59, &[]), (0, 23, &[]), (1, 31, &[]), (1, 12, &MONTHS), (0, 6, &DAYS)];
const NAMED: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

impl Line {
    /// Reads a line; the error says what is wrong with it.
    pub(super) fn parse(line: &str) -> Result<Self, String> {
        let zoned = line.strip_prefix("CRON_TZ=").or_else(|| line.strip_prefix("TZ="));
        let (zone, line) = match zoned {
            None => (TimeZone::UTC, line),
            Some(rest) => {
                let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                let zone = TimeZone::get(name);
                (
                    zone.map_err(|_| format!("provided bad location {name}: unknown time zone {name}"))?,
                    rest.trim(),
                )
            }
        };
        if let Some(period) = line.strip_prefix("@every ") {
            let wrong = || format!("failed to parse duration {line}: time: invalid duration {period:?}");
            let period: SignedDuration = period.parse().map_err(|_| wrong())?;
            return Ok(Self::Every(period.max(SignedDuration::from_secs(1))));
        }
        let line = match NAMED.iter().find(|(name, _)| *name == line) {
            Some((_, meant)) => meant,
            None if line.starts_with('@') => return Err(format!("unrecognized descriptor: {line}")),
            None => line,
        };
        let fields: Vec<&str> = line.split_whitespace().collect();
        if fields.len() != FIELDS.len() {
            return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
        }
        let plain: Result<Vec<String>, String> =
            fields.iter().zip(FIELDS).map(|(text, of)| field(text, of)).collect();
        let cron = Cron::from_str(&plain?.join(" ")).map_err(|error| error.to_string())?;
        Ok(Self::Cron(Box::new(cron), zone))
    }

    /// The first time after this one; none when there never is one.
    pub(super) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Every(period) => after.checked_add(*period).ok(),
            Self::Cron(cron, zone) => {
                let next = cron.find_next_occurrence(&after.to_zoned(zone.clone()), false).ok()?;
                Some(next.timestamp())
            }
        }
    }
}

type Bounds = (i64, i64, &'static [&'static str]);

/// A field in numbers.
fn field(text: &str, of: Bounds) -> Result<String, String> {
    let ranges = text.split(',').filter(|range| !range.is_empty());
    let plain: Result<Vec<String>, String> = ranges.map(|text| range(text, of)).collect();
    Ok(plain?.join(","))
}

fn range(text: &str, (lowest, highest, names): Bounds) -> Result<String, String> {
    let (numbers, step) = text.split_once('/').map_or((text, None), |(numbers, step)| (numbers, Some(step)));
    let ends: Vec<&str> = numbers.split('-').collect();
    let number = |text: &str| {
        let named = names.iter().zip(lowest..).find(|(name, _)| text.eq_ignore_ascii_case(name));
        named.map_or_else(|| integer(text), |(_, number)| Ok(number))
    };
    let every = matches!(ends.first(), Some(&"*" | &"?"));
    let (start, mut end) = match ends.as_slice() {
        _ if every => (lowest, highest),
        [one] => (number(one)?, number(one)?),
        [start, end] => (number(start)?, number(end)?),
        _ => return Err(format!("too many hyphens: {text}")),
    };
    let by = match step {
        None => 1,
        Some(step) if step.contains('/') => return Err(format!("too many slashes: {text}")),
        Some(step) => integer(step)?,
    };
    if step.is_some() && ends.len() == 1 {
        end = highest;
    }
    if start < lowest {
        return Err(format!("beginning of range ({start}) below minimum ({lowest}): {text}"));
    }
    if end > highest {
        return Err(format!("end of range ({end}) above maximum ({highest}): {text}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    if by == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    Ok(match (every, by) {
        (true, 1) => "*".to_owned(),
        _ if start == end => start.to_string(),
        (_, 1) => format!("{start}-{end}"),
        _ => format!("{start}-{end}/{by}"),
    })
}

fn integer(text: &str) -> Result<i64, String> {
    let wrong = || format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax");
    let number: i64 = text.parse().map_err(|_| wrong())?;
    if number < 0 { Err(format!("negative number ({number}) not allowed: {text}")) } else { Ok(number) }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_when_it_is_next() {
        // A Thursday.
        let now: Timestamp = "2026-01-01T12:30:00Z".parse().unwrap();
        for (line, next) in [
            ("0 2 * * *", "2026-01-02T02:00:00Z"),
            ("30 12 * * *", "2026-01-02T12:30:00Z"),
            ("*/20 * * * *", "2026-01-01T12:40:00Z"),
            ("5/20 * * * *", "2026-01-01T12:45:00Z"),
            ("0 0 ? * SUN", "2026-01-04T00:00:00Z"),
            ("0 0 1,15 feb-mar *", "2026-02-01T00:00:00Z"),
            // Either of both days.
            ("0 0 3 * 5", "2026-01-02T00:00:00Z"),
            ("@weekly", "2026-01-04T00:00:00Z"),
            ("@every 1h30m", "2026-01-01T14:00:00Z"),
            ("CRON_TZ=UTC 0 13 * * *", "2026-01-01T13:00:00Z"),
        ] {
            assert_eq!(Line::parse(line).unwrap().next(now), Some(next.parse().unwrap()), "{line}");
        }
        assert_eq!(Line::parse("0 0 30 2 *").unwrap().next(now), None, "a day that never comes");
    }

    #[test]
    fn a_line_that_is_wrong_is_refused_in_the_parsers_words() {
        for (line, why) in [
            ("bad", "expected exactly 5 fields, found 1: [bad]"),
            ("0 0 2 * * *", "expected exactly 5 fields, found 6: [0 0 2 * * *]"),
            ("60 2 * * *", "end of range (60) above maximum (59): 60"),
            ("0 2 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("0 2 * * 7", "end of range (7) above maximum (6): 7"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("*/2/3 * * * *", "too many slashes: */2/3"),
            ("0 2 L * *", "failed to parse int from L: strconv.Atoi: parsing \"L\": invalid syntax"),
            ("@nightly", "unrecognized descriptor: @nightly"),
            (
                "TZ=Nowhere/Land 0 2 * * *",
                "provided bad location Nowhere/Land: unknown time zone Nowhere/Land",
            ),
        ] {
            assert_eq!(Line::parse(line).unwrap_err(), why);
        }
        assert!(Line::parse(", 2 * * *").is_err());
    }
}

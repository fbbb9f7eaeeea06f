//! When a schedule is due: cron lines as Velero's parser takes them, and its words for those that it does not take.
//! Source: robfig/cron, parser.go and spec.go; `tests/golden/cron` holds what it answered.

use jiff::civil::{Date, DateTime};
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

/// A line that was understood.
#[derive(Debug, Clone)]
pub enum Cron {
    /// The minutes, hours, days, months and days of the week, in a time zone.
    Fields([Field; 5], TimeZone),
    Every(SignedDuration),
}

/// Which numbers a field allows, as bits, and whether it is a star: which lets the other field of the day decide alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Field {
    bits: u64,
    star: bool,
}

impl Field {
    const fn has(self, number: i8) -> bool {
        (self.bits >> number) & 1 == 1
    }
}

/// A field's name for each of its numbers starts with these letters, from its lowest on.
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// The lowest and the highest number of each field, and their names.
const FIELDS: [Bounds; 5] = [(0, 59, &[]), (0, 23, &[]), (1, 31, &[]), (1, 12, &MONTHS), (0, 6, &DAYS)];
const NAMED: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];
/// A line that names no day within so many years never does.
const YEARS: i16 = 5;

type Bounds = (i64, i64, &'static [&'static str]);

impl Cron {
    /// Reads a line; the error says what is wrong with it.
    pub fn parse(line: &str) -> Result<Self, String> {
        if line.is_empty() {
            return Err("empty spec string".to_owned());
        }
        let zoned = line.strip_prefix("CRON_TZ=").or_else(|| line.strip_prefix("TZ="));
        let (zone, line) = match zoned {
            None => (TimeZone::UTC, line),
            // The parser's own words: it does not look for the end of the name.
            Some(rest) => match rest.split_once(' ') {
                None => return Err("runtime error: slice bounds out of range [:-1]".to_owned()),
                Some((name, rest)) => (zone(name)?, rest.trim()),
            },
        };
        if let Some(period) = line.strip_prefix("@every ") {
            let period =
                duration(period).map_err(|why| format!("failed to parse duration {line}: time: {why}"))?;
            let whole = SignedDuration::from_secs(period.as_secs());
            return Ok(Self::Every(whole.max(SignedDuration::from_secs(1))));
        }
        let line = match NAMED.iter().find(|(name, _)| *name == line) {
            Some((_, meant)) => meant,
            None if line.starts_with('@') => return Err(format!("unrecognized descriptor: {line}")),
            None => line,
        };
        let texts: Vec<&str> = line.split_whitespace().collect();
        if texts.len() != FIELDS.len() {
            return Err(format!("expected exactly 5 fields, found {}: [{}]", texts.len(), texts.join(" ")));
        }
        let mut fields = [Field::default(); 5];
        for ((field, text), bounds) in fields.iter_mut().zip(texts).zip(FIELDS) {
            for text in text.split(',').filter(|range| !range.is_empty()) {
                let one = range(text, bounds)?;
                *field = Field { bits: field.bits | one.bits, star: field.star | one.star };
            }
        }
        Ok(Self::Fields(fields, zone))
    }

    /// The first time after this one; none when there never is one.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let (fields, zone) = match self {
            // In whole seconds.
            Self::Every(period) => {
                return Timestamp::from_second(after.as_second()).ok()?.checked_add(*period).ok();
            }
            Self::Fields(fields, zone) => (fields, zone),
        };
        let first = after.to_zoned(zone.clone()).date();
        let mut date = first;
        while date.year() <= first.year() + YEARS {
            if day(fields, date) {
                let due = times(fields, zone, date).filter(|due| *due > after).min();
                if due.is_some() {
                    return due;
                }
            }
            date = date.tomorrow().ok()?;
        }
        None
    }
}

/// Whether it is due on a day: on both kinds of day that it names, or, where it names both, on either.
fn day([_, _, of_month, month, of_week]: &[Field; 5], date: Date) -> bool {
    let both = (of_month.has(date.day()), of_week.has(date.weekday().to_sunday_zero_offset()));
    let right = if of_month.star || of_week.star { both.0 && both.1 } else { both.0 || both.1 };
    month.has(date.month()) && right
}

/// Every time of a day that it is due at. One that the clocks leave out is not, and one that they show twice is twice.
fn times<'a>(fields: &'a [Field; 5], zone: &'a TimeZone, date: Date) -> impl Iterator<Item = Timestamp> + 'a {
    let hours = (0..24).filter(|hour| fields[1].has(*hour));
    let minutes =
        move |hour| (0..60).filter(|minute| fields[0].has(*minute)).map(move |minute| (hour, minute));
    hours.flat_map(minutes).flat_map(move |(hour, minute)| instants(zone, date.at(hour, minute, 0, 0)))
}

/// The moments at which the clocks of a zone show this.
fn instants(zone: &TimeZone, shown: DateTime) -> impl Iterator<Item = Timestamp> {
    let shows = |offset: Offset| offset.to_timestamp(shown).ok();
    let ambiguous = zone.to_ambiguous_timestamp(shown).offset();
    let found = match ambiguous {
        jiff::tz::AmbiguousOffset::Unambiguous { offset } => [shows(offset), None],
        jiff::tz::AmbiguousOffset::Gap { .. } => [None, None],
        jiff::tz::AmbiguousOffset::Fold { before, after } => [shows(before), shows(after)],
    };
    found.into_iter().flatten()
}

/// A time zone by its name, which counts to the letter, as a file's does; without a name it is UTC, as Velero's pod is.
fn zone(name: &str) -> Result<TimeZone, String> {
    if matches!(name, "" | "UTC" | "Local") {
        return Ok(TimeZone::UTC);
    }
    if name.split(['/', '\\']).any(|part| part == "..") || name.starts_with(['/', '\\']) {
        return Err(format!("provided bad location {name}: time: invalid location name"));
    }
    let found = TimeZone::get(name).ok().filter(|zone| zone.iana_name() == Some(name));
    found.ok_or_else(|| format!("provided bad location {name}: unknown time zone {name}"))
}

/// A span of time as Go reads it.
fn duration(text: &str) -> Result<SignedDuration, String> {
    let invalid = || format!("invalid duration {text:?}");
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mut total, mut rest) = (0_f64, unsigned);
    if unsigned == "0" {
        return Ok(SignedDuration::ZERO);
    }
    if unsigned.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..end].parse().map_err(|_| invalid())?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let seconds = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "" => return Err(format!("missing unit in duration {text:?}")),
            unit => return Err(format!("unknown unit {unit:?} in duration {text:?}")),
        };
        total += number * seconds;
        rest = &rest[end..];
    }
    // As many nanoseconds as Go counts.
    if total > 9_223_372_036.0 {
        return Err(invalid());
    }
    let total = SignedDuration::try_from_secs_f64(total).map_err(|_| invalid())?;
    Ok(if negative { -total } else { total })
}

/// One range of a field.
fn range(text: &str, (lowest, highest, names): Bounds) -> Result<Field, String> {
    let parts: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = parts.first().unwrap_or(&"").split('-').collect();
    let number = |text: &str| {
        let named = names.iter().zip(lowest..).find(|(name, _)| text.eq_ignore_ascii_case(name));
        named.map_or_else(|| integer(text), |(_, number)| Ok(number))
    };
    let star = matches!(ends.first(), Some(&"*" | &"?"));
    let (start, mut end) = match ends.as_slice() {
        _ if star => (lowest, highest),
        [one] => (number(one)?, number(one)?),
        [start, end] => (number(start)?, number(end)?),
        _ => return Err(format!("too many hyphens: {text}")),
    };
    let step = match parts.as_slice() {
        [_] => 1,
        [_, step] => {
            if ends.len() == 1 {
                end = highest;
            }
            integer(step)?
        }
        _ => return Err(format!("too many slashes: {text}")),
    };
    if start < lowest {
        return Err(format!("beginning of range ({start}) below minimum ({lowest}): {text}"));
    }
    if end > highest {
        return Err(format!("end of range ({end}) above maximum ({highest}): {text}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    let by = usize::try_from(step).unwrap_or(usize::MAX);
    if by == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    let bits = (start..=end).step_by(by).fold(0, |bits, number| bits | (1 << number));
    Ok(Field { bits, star: star && by == 1 })
}

fn integer(text: &str) -> Result<i64, String> {
    let wrong = |why: &str| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: {why}");
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong("invalid syntax"));
    }
    let number: i64 = text.parse().map_err(|_| wrong("value out of range"))?;
    if number < 0 { Err(format!("negative number ({number}) not allowed: {text}")) } else { Ok(number) }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// What the parser that Velero is built with answered (`e2e/oracle/record cron`).
    const RECORDED: &str = include_str!("../../../../tests/golden/cron/robfig.json");

    #[test]
    fn a_line_is_taken_refused_and_due_as_veleros_parser_has_it() {
        let recorded: Value = serde_json::from_str(RECORDED).unwrap();
        let moments: Vec<Timestamp> = serde_json::from_value(recorded["moments"].clone()).unwrap();
        let answers = recorded["answers"].as_array().unwrap();
        assert!(answers.len() > 150 && moments.len() > 5);
        let mut wrong = Vec::new();
        for answer in answers {
            let line = answer["line"].as_str().unwrap();
            let ours = match Cron::parse(line) {
                Err(why) => Value::from(why),
                Ok(cron) => {
                    let next = moments.iter().map(|moment| cron.next(*moment));
                    next.map(|next| next.map_or_else(|| "never".to_owned(), |next| next.to_string()))
                        .collect()
                }
            };
            let theirs = if answer["error"].is_null() { &answer["next"] } else { &answer["error"] };
            if ours != *theirs {
                wrong.push(format!("{line:?}: {ours} instead of {theirs}"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

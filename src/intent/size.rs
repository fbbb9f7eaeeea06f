//! Sizes (`100GiB`, `1Gi`, `500GB`) and durations (`30s`, `720h`) as they are written in the file.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes, with the units of Talos (`GiB`, `GB`) and of Kubernetes (`Gi`, `G`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

const UNITS: [(&str, u64); 6] =
    [("Ei", 1 << 60), ("Pi", 1 << 50), ("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
const SIZE_HELP: &str = "write a size such as 100GiB, 1Gi or 500GB";

impl Size {
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not a size: {SIZE_HELP}");
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| bad())?;
        let factor = match unit.trim().trim_end_matches('B') {
            "" => 1,
            "k" => 1_000,
            "M" => 1_000_000,
            "G" => 1_000_000_000,
            "T" => 1_000_000_000_000,
            "P" => 1_000_000_000_000_000,
            binary => UNITS.iter().find(|(name, _)| *name == binary).ok_or_else(bad)?.1,
        };
        number.checked_mul(factor).map(Self).ok_or_else(|| format!("`{text}` is larger than any disk"))
    }

    /// As Kubernetes writes quantities, such as `1Gi`.
    pub fn quantity(self) -> String {
        self.exact("").unwrap_or_else(|| self.0.to_string())
    }

    fn exact(self, suffix: &str) -> Option<String> {
        let (unit, factor) = UNITS.iter().find(|(_, f)| self.0 >= *f && self.0.is_multiple_of(*f))?;
        Some(format!("{}{unit}{suffix}", self.0 / factor))
    }
}

/// As Talos writes sizes, such as `100GiB`; plain bytes when no binary unit fits exactly.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.exact("B").unwrap_or_else(|| self.0.to_string()))
    }
}

/// The most that a volume takes: so many bytes, a part of the free space (`80%`, Talos 1.12 and later), or all of it
/// but so much (`-10GiB`, Talos 1.13 and later).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxSize {
    Bytes(Size),
    Percent(u8),
    AllBut(Size),
}

impl MaxSize {
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(number) = text.strip_suffix('%') {
            let percent = number.parse().ok().filter(|percent| (1..=100).contains(percent));
            return percent.map(Self::Percent).ok_or_else(|| format!("`{text}` is not between 1% and 100%"));
        }
        match text.strip_prefix('-') {
            Some(rest) => Size::parse(rest).map(Self::AllBut),
            None => Size::parse(text).map(Self::Bytes),
        }
    }

    /// The number of bytes, when it does not depend on the disk.
    pub const fn bytes(self) -> Option<u64> {
        match self {
            Self::Bytes(size) => Some(size.0),
            Self::Percent(_) | Self::AllBut(_) => None,
        }
    }

    /// How much a volume takes when so many bytes are free.
    pub const fn of(self, free: u64) -> u64 {
        match self {
            Self::Bytes(size) if size.0 < free => size.0,
            Self::Bytes(_) => free,
            Self::Percent(percent) => free / 100 * percent as u64,
            Self::AllBut(size) => free.saturating_sub(size.0),
        }
    }
}

impl fmt::Display for MaxSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(size) => size.fmt(f),
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::AllBut(size) => write!(f, "-{size}"),
        }
    }
}

/// A span of time in whole seconds: `30s`, `5m`, `720h`, or a mix such as `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(pub u64);

impl Duration {
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not a duration: write one such as 30s, 5m or 720h");
        let (mut total, mut rest) = (0u64, text);
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
            let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
            let factor = match rest[digits..].chars().next() {
                Some('s') => 1,
                Some('m') => 60,
                Some('h') => 3600,
                _ => return Err(bad()),
            };
            total = number.checked_mul(factor).and_then(|n| n.checked_add(total)).ok_or_else(bad)?;
            rest = &rest[digits + 1..];
        }
        if text.is_empty() { Err(bad()) } else { Ok(Self(total)) }
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

macro_rules! as_text {
    ($type:ident, $name:literal, $pattern:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    };
}
as_text!(Size, "Size", "^[0-9]+ ?([kMGTP]B?|[KMGTPE]iB?|B)?$");
as_text!(MaxSize, "MaxSize", "^(-?[0-9]+ ?([kMGTP]B?|[KMGTPE]iB?|B)?|[0-9]{1,3}%)$");
as_text!(Duration, "Duration", "^([0-9]+[smh])+$");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_the_units_of_talos_and_kubernetes() {
        for (text, bytes) in [
            ("100GiB", 100 << 30),
            ("1Gi", 1 << 30),
            ("500GB", 500_000_000_000),
            ("2T", 2_000_000_000_000),
            ("1024", 1024),
            ("10 MiB", 10 << 20),
        ] {
            assert_eq!(Size::parse(text), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "GiB", "-1GiB", "1.5GiB", "1XiB", "99999999999TiB", "1GiBB B"] {
            assert!(Size::parse(text).is_err(), "{text}");
        }
        assert_eq!(Size(100 << 30).to_string(), "100GiB");
        assert_eq!(Size(1536 << 20).quantity(), "1536Mi");
        assert_eq!(Size(1000).quantity(), "1000");
    }

    #[test]
    fn the_most_is_bytes_a_part_or_all_but_something() {
        for (text, most, of_100_mib) in [
            ("10MiB", MaxSize::Bytes(Size(10 << 20)), 10 << 20),
            ("1GiB", MaxSize::Bytes(Size(1 << 30)), 100 << 20),
            ("50%", MaxSize::Percent(50), 50 << 20),
            ("-10MiB", MaxSize::AllBut(Size(10 << 20)), 90 << 20),
            ("-1GiB", MaxSize::AllBut(Size(1 << 30)), 0),
        ] {
            assert_eq!(MaxSize::parse(text), Ok(most), "{text}");
            assert_eq!((most.to_string(), most.of(100 << 20)), (text.to_owned(), of_100_mib), "{text}");
        }
        for text in ["", "%", "0%", "101%", "-", "-5%", "1.5%", "--1GiB"] {
            assert!(MaxSize::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_read_and_written_as_go_does() {
        for (text, seconds) in [("30s", 30), ("5m", 300), ("720h", 2_592_000), ("1h30m", 5400)] {
            assert_eq!(Duration::parse(text), Ok(Duration(seconds)), "{text}");
        }
        for text in ["", "5", "m", "5d", "-5s", "5s5"] {
            assert!(Duration::parse(text).is_err(), "{text}");
        }
        assert_eq!(Duration(2_592_000).to_string(), "720h0m0s");
    }
}

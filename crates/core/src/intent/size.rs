//! Sizes as Talos reads them: github.com/dustin/go-humanize v1.0.1 (bytes.go) for bytes, and siderolabs/talos
//! (pkg/machinery/config/types/block: byte_size.go, percentage_size.go, size.go) for the rest. `tests/sizes.rs` holds what
//! each release of Talos answered.

use std::fmt;

/// A number of bytes: `100GiB`, `500GB`, `1.8TB`, `1,000 MB`, `4096`; the letters of a unit may be small or large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Units by the letter that they begin with: of 1024, and of 1000.
const UNITS: [(char, u64, u64); 6] = [
    ('E', 1 << 60, 1_000_000_000_000_000_000),
    ('P', 1 << 50, 1_000_000_000_000_000),
    ('T', 1 << 40, 1_000_000_000_000),
    ('G', 1 << 30, 1_000_000_000),
    ('M', 1 << 20, 1_000_000),
    ('K', 1 << 10, 1_000),
];
const SIZE_HELP: &str = "write a size such as 100GiB, 1.8TB or 500GB";

impl Size {
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not a size: {SIZE_HELP}");
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ',').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let number: f64 = number.replace(',', "").parse().map_err(|_| bad())?;
        let factor = factor(&unit.trim().to_lowercase()).ok_or_else(bad)?;
        // A float, as there: what is beyond 2^53 loses its last digits, and a fraction of a byte is cut.
        let bytes = number * factor as f64;
        if bytes < u64::MAX as f64 {
            return Ok(Self(bytes as u64));
        }
        Err(format!("`{text}` is larger than any disk"))
    }

    /// As Kubernetes writes quantities, such as `1Gi`.
    pub fn quantity(self) -> String {
        let whole = UNITS.iter().find(|(_, binary, _)| self.0 >= *binary && self.0.is_multiple_of(*binary));
        whole.map_or_else(|| self.0.to_string(), |(unit, binary, _)| format!("{}{unit}i", self.0 / binary))
    }
}

/// What a unit in small letters stands for.
fn factor(unit: &str) -> Option<u64> {
    let unit = unit.strip_suffix('b').unwrap_or(unit);
    let (unit, binary) = unit.strip_suffix('i').map_or((unit, false), |unit| (unit, true));
    if unit.is_empty() {
        return (!binary).then_some(1);
    }
    let (_, of_1024, of_1000) =
        UNITS.iter().find(|(letter, _, _)| unit.chars().eq([letter.to_ascii_lowercase()]))?;
    Some(if binary { *of_1024 } else { *of_1000 })
}

/// As a person would write it, and as Talos reads it back: `100GiB`, `50GB`, `1.8TB`.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = self.0.to_string();
        let mut shortest: Option<String> = None;
        for (letter, binary, decimal) in UNITS {
            for (unit, suffix) in [(binary, "iB"), (decimal, "B")] {
                let tenths = u128::from(self.0) * 10;
                if self.0 < unit || !tenths.is_multiple_of(u128::from(unit)) {
                    continue;
                }
                let tenths = tenths / u128::from(unit);
                let fraction = if tenths % 10 == 0 { String::new() } else { format!(".{}", tenths % 10) };
                let text = format!("{}{fraction}{letter}{suffix}", tenths / 10);
                let short = text.len() < shortest.as_ref().map_or(plain.len() + 1, String::len);
                if short && Self::parse(&text) == Ok(*self) {
                    shortest = Some(text);
                }
            }
        }
        f.write_str(&shortest.unwrap_or(plain))
    }
}

/// The most that a volume takes: so many bytes; a part of the free space (`80%`, Talos 1.12 and later); or all of it but
/// so much (`-10GiB`, `-10%`, Talos 1.13 and later).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxSize {
    Bytes(Size),
    Percent(Percent),
    AllBut(Size),
    AllButPercent(Percent),
}

/// A part of a hundred. Talos takes a fraction, and cuts it off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent {
    pub whole: u8,
    /// As it was written, to be written again.
    thousandths: u16,
}

impl Percent {
    /// None for what is no number from 0 to 100.
    fn parse(number: &str) -> Option<Self> {
        let value: f64 = number.parse().ok().filter(|value| (0.0..=100.0).contains(value))?;
        let fraction = number.split_once('.').map_or("", |(_, fraction)| fraction);
        let digits = fraction.bytes().all(|digit| digit.is_ascii_digit());
        let thousandths = format!("{fraction:0<3}").get(..3).filter(|_| digits).and_then(|t| t.parse().ok());
        Some(Self { whole: value as u8, thousandths: thousandths.unwrap_or(0) })
    }

    fn of(self, space: u64) -> u64 {
        u64::try_from(u128::from(space) * u128::from(self.whole) / 100).unwrap_or(u64::MAX)
    }
}

impl From<u8> for Percent {
    fn from(whole: u8) -> Self {
        Self { whole, thousandths: 0 }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = format!(".{:03}", self.thousandths);
        write!(f, "{}{}%", self.whole, fraction.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl MaxSize {
    pub fn parse(text: &str) -> Result<Self, String> {
        let (number, negative) = text.strip_prefix('-').map_or((text, false), |rest| (rest, true));
        if number.contains('%') {
            let percent = number.strip_suffix('%').and_then(Percent::parse);
            let percent = percent.ok_or_else(|| format!("`{text}` is not between 1% and 100%"))?;
            return Ok(if negative { Self::AllButPercent(percent) } else { Self::Percent(percent) });
        }
        let size = Size::parse(number).map_err(|_| {
            let hint = "write a size such as 100GiB, 80% or -10GiB";
            format!("`{text}` is not a size: {hint}")
        })?;
        Ok(if negative { Self::AllBut(size) } else { Self::Bytes(size) })
    }

    /// The number of bytes, when it does not depend on the disk.
    pub const fn bytes(self) -> Option<u64> {
        match self {
            Self::Bytes(size) => Some(size.0),
            Self::Percent(_) | Self::AllBut(_) | Self::AllButPercent(_) => None,
        }
    }

    /// Talos takes nothing for "not set": the volume gets the whole space.
    pub const fn is_nothing(self) -> bool {
        match self {
            Self::Bytes(size) | Self::AllBut(size) => size.0 == 0,
            Self::Percent(percent) | Self::AllButPercent(percent) => percent.whole == 0,
        }
    }

    /// How much a volume takes when so many bytes are free.
    pub fn of(self, free: u64) -> u64 {
        match self {
            Self::Bytes(size) => size.0.min(free),
            Self::Percent(percent) => percent.of(free),
            Self::AllBut(size) => free.saturating_sub(size.0),
            Self::AllButPercent(percent) => free.saturating_sub(percent.of(free)),
        }
    }
}

impl fmt::Display for MaxSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(size) => size.fmt(f),
            Self::Percent(percent) => percent.fmt(f),
            Self::AllBut(size) => write!(f, "-{size}"),
            Self::AllButPercent(percent) => write!(f, "-{percent}"),
        }
    }
}

as_text!(Size, "Size", "^[0-9][0-9,]*(\\.[0-9]*)? ?([kKmMgGtTpPeE]i?)?[bB]?$");
as_text!(MaxSize, "MaxSize", "^-?[0-9][0-9,]*(\\.[0-9]*)? ?(%|([kKmMgGtTpPeE]i?)?[bB]?)$");

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_written_as_a_person_would() {
        for text in [
            "100GiB", "50GB", "1.8TB", "2TB", "1.5GiB", "1GiB", "1KB", "1KiB", "0.5TB", "1000", "1001",
            "4096", "0",
        ] {
            let size = Size::parse(text).unwrap();
            let shown = match text {
                "0.5TB" => "500GB",
                "1000" => "1KB",
                "4096" => "4KiB",
                same => same,
            };
            assert_eq!(size.to_string(), shown, "{text}");
        }
        assert_eq!(Size(1536 << 20).quantity(), "1536Mi");
        assert_eq!(Size(1 << 10).quantity(), "1Ki");
        assert_eq!(Size(1000).quantity(), "1000");
    }

    #[test]
    fn the_most_is_bytes_a_part_or_all_but_something() {
        for (text, most, of_100_mib) in [
            ("10MiB", MaxSize::Bytes(Size(10 << 20)), 10 << 20),
            ("1GiB", MaxSize::Bytes(Size(1 << 30)), 100 << 20),
            ("50%", MaxSize::Percent(50.into()), 50 << 20),
            ("12.5%", MaxSize::Percent(Percent { whole: 12, thousandths: 500 }), (100 << 20) / 100 * 12),
            ("-10MiB", MaxSize::AllBut(Size(10 << 20)), 90 << 20),
            ("-1GiB", MaxSize::AllBut(Size(1 << 30)), 0),
            ("-10%", MaxSize::AllButPercent(10.into()), 90 << 20),
        ] {
            assert_eq!(MaxSize::parse(text), Ok(most), "{text}");
            assert_eq!((most.to_string(), most.of(100 << 20)), (text.to_owned(), of_100_mib), "{text}");
        }
        assert!(MaxSize::parse("0.9%").unwrap().is_nothing());
        assert!(!MaxSize::parse("1%").unwrap().is_nothing());
    }
}

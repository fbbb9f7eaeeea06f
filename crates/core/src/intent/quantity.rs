//! Kubernetes' quantities of bytes: `1Gi`, `500M`, `1.5Gi`, `1e9` (k8s.io/apimachinery, pkg/api/resource/quantity.go). Their
//! units are not those of Talos: there is no `GB` and no `GiB`, and `k` is a small letter where `Ki` has a large one.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serializer};

use super::Size;

/// Each unit with its base and power; `m`, `u` and `n` are parts of a byte.
const UNITS: [(&str, u64, i32); 16] = [
    ("Ki", 1024, 1),
    ("Mi", 1024, 2),
    ("Gi", 1024, 3),
    ("Ti", 1024, 4),
    ("Pi", 1024, 5),
    ("Ei", 1024, 6),
    ("n", 1000, -3),
    ("u", 1000, -2),
    ("m", 1000, -1),
    ("", 1000, 0),
    ("k", 1000, 1),
    ("M", 1000, 2),
    ("G", 1000, 3),
    ("T", 1000, 4),
    ("P", 1000, 5),
    ("E", 1000, 6),
];

/// The bytes that a quantity means; parts of a byte count as one.
///
/// # Errors
/// It is no quantity, or one below zero or beyond what Kubernetes holds.
pub fn parse(text: &str) -> Result<Size, String> {
    let bad = || format!("`{text}` is not a quantity: write one such as 1Gi or 500M");
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, unit) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || fraction.contains('.') || digits.len() > 30 {
        return Err(bad());
    }
    let digits: u128 = digits.parse().map_err(|_| bad())?;
    let tens = i32::try_from(fraction.len()).map_err(|_| bad())?;
    let bytes = match UNITS.iter().find(|(name, _, _)| *name == unit) {
        Some((_, base @ 1024, power)) => {
            scaled(digits, u128::from(*base).checked_pow(power.unsigned_abs()), -tens)
        }
        Some((_, _, power)) => scaled(digits, Some(1), power * 3 - tens),
        None => {
            let exponent = unit.strip_prefix(['e', 'E']).ok_or_else(bad)?;
            scaled(
                digits,
                Some(1),
                exponent.parse::<i32>().ok().and_then(|e| e.checked_sub(tens)).ok_or_else(bad)?,
            )
        }
    };
    let most = u64::try_from(i64::MAX).unwrap_or(u64::MAX);
    bytes.and_then(|bytes| u64::try_from(bytes).ok()).filter(|bytes| *bytes <= most).map(Size).ok_or_else(bad)
}

/// `digits * factor * 10^tens`, rounded up.
fn scaled(digits: u128, factor: Option<u128>, tens: i32) -> Option<u128> {
    let number = digits.checked_mul(factor?)?;
    if tens >= 0 {
        return number.checked_mul(10u128.checked_pow(tens.unsigned_abs())?);
    }
    Some(10u128.checked_pow(tens.unsigned_abs()).map_or_else(|| number.min(1), |part| number.div_ceil(part)))
}

/// A `Size` that the file writes as a quantity (for serde).
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Size, D::Error> {
    parse(&Cow::<'de, str>::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

pub(super) fn serialize<S: Serializer>(size: &Size, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&size.quantity())
}

/// For the schema.
pub(super) struct Quantity;

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^\\+?([0-9]+(\\.[0-9]*)?|\\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, bytes) in [
            ("1Gi", 1 << 30),
            ("1.5Gi", 3 << 29),
            ("500M", 500_000_000),
            ("1k", 1000),
            ("1Ki", 1024),
            ("1e3", 1000),
            ("1E3", 1000),
            ("12e-1", 2),
            ("100m", 1),
            ("1024", 1024),
            (".5Gi", 1 << 29),
            ("5.", 5),
            ("+1Gi", 1 << 30),
            ("1E", 1_000_000_000_000_000_000),
            ("1n", 1),
            ("0", 0),
        ] {
            assert_eq!(parse(text), Ok(Size(bytes)), "{text}");
        }
        for text in [
            "", "1GiB", "1GB", "1K", "1gi", "1ki", "-1Gi", "1 Gi", "1,000", "Gi", ".", "1.2.3", "1e", "8Ei",
            "1e99",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}

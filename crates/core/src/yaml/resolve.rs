//! What a scalar means, as go-yaml v3 resolves it (`resolve.go`, v3.0.4): YAML 1.2 core plus legacy octals,
//! underscores in numbers, binary numbers and timestamps.

/// A node's meaning.
#[derive(Debug, Clone)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    /// An integer above `i64::MAX`.
    Uint(u64),
    Float(f64),
    /// A timestamp as RFC 3339 with the fraction's trailing zeros cut.
    Time(String),
    Str(String),
    /// A scalar with a tag that is not of the core schema, `!binary` included.
    Tagged(String, String),
    Seq(Vec<Self>),
    /// In source order; two maps are equal whatever their order.
    Map(Vec<(Self, Self)>),
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Uint(a), Self::Uint(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a == b || (a.is_nan() && b.is_nan()),
            (Self::Time(a), Self::Time(b)) | (Self::Str(a), Self::Str(b)) => a == b,
            (Self::Tagged(t, a), Self::Tagged(u, b)) => t == u && a == b,
            (Self::Seq(a), Self::Seq(b)) => a == b,
            (Self::Map(a), Self::Map(b)) => {
                a.len() == b.len() && a.iter().all(|(k, v)| b.iter().any(|(l, w)| k == l && v == w))
            }
            _ => false,
        }
    }
}

impl Value {
    /// The value of a string key.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => {
                entries.iter().find(|(k, _)| matches!(k, Self::Str(text) if text == key)).map(|(_, v)| v)
            }
            _ => None,
        }
    }
}

/// Resolves a scalar; `plain` says it was written without quotes or block style.
pub fn resolve(text: &str, plain: bool, tag: Option<&str>) -> Value {
    match tag {
        None if plain => implicit(text),
        None | Some("!" | "tag:yaml.org,2002:str") => Value::Str(text.to_owned()),
        Some(tag) => tagged(text, tag),
    }
}

fn tagged(text: &str, tag: &str) -> Value {
    let value = implicit(text);
    match (tag.strip_prefix("tag:yaml.org,2002:"), value) {
        (Some("float"), Value::Int(number)) => Value::Float(number as f64),
        (Some("null"), Value::Null) => Value::Null,
        // A merge key's name is a text, written out or not.
        (Some("merge"), Value::Str(text)) if text == "<<" => Value::Str(text),
        (Some("bool"), value @ Value::Bool(_))
        | (Some("int"), value @ (Value::Int(_) | Value::Uint(_)))
        | (Some("float"), value @ Value::Float(_))
        | (Some("timestamp"), value @ Value::Time(_)) => value,
        _ => Value::Tagged(tag.to_owned(), text.to_owned()),
    }
}

fn implicit(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        _ => {}
    }
    match text.as_bytes().first() {
        Some(b'.') => dotted_float(text).map(Value::Float),
        Some(b'0'..=b'9' | b'+' | b'-') => timestamp(text).map(Value::Time).or_else(|| number(text)),
        _ => None,
    }
    .unwrap_or_else(|| Value::Str(text.to_owned()))
}

fn number(text: &str) -> Option<Value> {
    let plain = text.replace('_', "");
    integer(&plain).or_else(|| if is_float(&plain) { finite(&plain) } else { None })
}

fn integer(plain: &str) -> Option<Value> {
    let (negative, signed, digits) = match plain.as_bytes().first()? {
        b'-' => (true, true, plain.get(1..)?),
        b'+' => (false, true, plain.get(1..)?),
        _ => (false, false, plain),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, digits.get(2..)?),
        [b'0', b'b' | b'B', ..] => (2, digits.get(2..)?),
        [b'0', b'o' | b'O', ..] => (8, digits.get(2..)?),
        [b'0', _, ..] => (8, digits.get(1..)?),
        _ => (10, digits),
    };
    if !digits.bytes().all(|digit| digit.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    if negative {
        return 0i64.checked_sub_unsigned(magnitude).map(Value::Int);
    }
    match i64::try_from(magnitude) {
        Ok(number) => Some(Value::Int(number)),
        Err(_) if signed => None,
        Err(_) => Some(Value::Uint(magnitude)),
    }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let mantissa_fits = match mantissa.split_once('.') {
        Some(("", fraction)) => !fraction.is_empty() && digits(fraction),
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => !mantissa.is_empty() && digits(mantissa),
    };
    mantissa_fits && exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent))
}

/// Go's `strconv.ParseFloat` fails on a number out of range, where Rust gives infinity.
fn finite(text: &str) -> Option<Value> {
    text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::Float)
}

/// A number that starts with a dot goes to `strconv.ParseFloat` unfiltered: `.5`, `.5e3`.
fn dotted_float(text: &str) -> Option<f64> {
    if !is_float(text) {
        return None;
    }
    text.parse::<f64>().ok().filter(|number| number.is_finite())
}

/// go-yaml's four formats: `2006-1-2[Tt]15:4:5.9Z07:00`, `2006-1-2 15:4:5.9`, `2006-1-2`.
fn timestamp(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let year_len = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if year_len != 4 || bytes.get(4) != Some(&b'-') {
        return None;
    }
    let (date, time) = match text.find(['T', 't', ' ']) {
        Some(at) => (text.get(..at)?, Some((*bytes.get(at)?, text.get(at + 1..)?))),
        None => (text, None),
    };
    let (year, rest) = date.split_once('-')?;
    let (month, day) = rest.split_once('-')?;
    let (month, day) = (small(month)?, small(day)?);
    jiff::civil::Date::new(year.parse().ok()?, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()?;
    let (clock, zone) = match time {
        None => ("00:00:00".to_owned(), "Z"),
        Some((b' ', clock)) => (clock_text(clock)?, "Z"),
        Some((_, clock)) => {
            let at = clock.find(['Z', '+', '-'])?;
            (clock_text(clock.get(..at)?)?, zone_text(clock.get(at..)?)?)
        }
    };
    Some(format!("{year}-{month:02}-{day:02}T{clock}{zone}"))
}

/// One or two digits.
fn small(text: &str) -> Option<u8> {
    let fits = matches!(text.len(), 1 | 2) && text.bytes().all(|byte| byte.is_ascii_digit());
    if fits { text.parse().ok() } else { None }
}

fn clock_text(text: &str) -> Option<String> {
    let (whole, fraction) = match text.split_once(['.', ',']) {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    let mut parts = whole.split(':');
    let (hour, minute, second) = (small(parts.next()?)?, small(parts.next()?)?, small(parts.next()?)?);
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let fraction = match fraction {
        Some(digits) if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            return None;
        }
        Some(digits) => digits.get(..9).unwrap_or(digits).trim_end_matches('0'),
        None => "",
    };
    let dot = if fraction.is_empty() { "" } else { "." };
    Some(format!("{hour:02}:{minute:02}:{second:02}{dot}{fraction}"))
}

fn zone_text(text: &str) -> Option<&str> {
    if text == "Z" {
        return Some(text);
    }
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    let fits = hours.len() == 2 && minutes.len() == 2 && small(hours)? <= 24 && small(minutes)? < 60;
    match (fits, text) {
        (true, "+00:00" | "-00:00") => Some("Z"),
        (true, _) => Some(text),
        _ => None,
    }
}

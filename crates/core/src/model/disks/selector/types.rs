//! The types of values, and the closed table of what can be done with them: the part of CEL's standard library that
//! the `cel` crate answers as Talos' own evaluator does (google/cel-go, common/stdlib), and Talos' `glob`.

use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Type {
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    /// The message `disk`.
    Disk,
    List(Box<Self>),
    Map(Box<Self>, Box<Self>),
    /// What the elements of an empty list are: whatever is needed.
    Open,
}

impl Type {
    pub(super) fn list(element: Self) -> Self {
        Self::List(Box::new(element))
    }

    /// Whether a part of it is still [`Type::Open`].
    pub(super) fn is_open(&self) -> bool {
        match self {
            Self::Open => true,
            Self::List(element) => element.is_open(),
            Self::Map(key, value) => key.is_open() || value.is_open(),
            _ => false,
        }
    }

    /// The one type that both are, if there is one; nothing is converted.
    pub(super) fn join(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Open, known) | (known, Self::Open) => Some(known.clone()),
            (Self::List(a), Self::List(b)) => a.join(b).map(Self::list),
            (Self::Map(k, v), Self::Map(l, w)) => Some(Self::Map(Box::new(k.join(l)?), Box::new(v.join(w)?))),
            _ => (self == other).then(|| self.clone()),
        }
    }

    /// With its article, as errors call it: `an int`.
    pub(super) fn named(&self) -> String {
        match self {
            Self::Int => "an int".to_owned(),
            Self::Open => "something of no type".to_owned(),
            other => format!("a {other}"),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Disk => f.write_str("disk"),
            Self::List(element) => write!(f, "list({element})"),
            Self::Map(key, value) => write!(f, "map({key}, {value})"),
            Self::Open => f.write_str("?"),
        }
    }
}

/// What an argument may be. `A` and `B` stand for any type, the same one throughout a row.
enum Of {
    Just(Type),
    A,
    B,
    ListOfA,
    MapOfAToB,
    /// The type of the first argument; as a result only.
    First,
}

use Of::{A, B, First, ListOfA, MapOfAToB};

const BOOL: Of = Of::Just(Type::Bool);
const INT: Of = Of::Just(Type::Int);
const UINT: Of = Of::Just(Type::Uint);
const DOUBLE: Of = Of::Just(Type::Double);
const STRING: Of = Of::Just(Type::String);
const BYTES: Of = Of::Just(Type::Bytes);

/// Names, the arguments that each of them takes, and the result. A name with a dot is called on its first argument.
type Row = (&'static [&'static str], &'static [&'static [Of]], Of);

const TABLE: &[Row] = &[
    (&["_&&_", "_||_"], &[&[BOOL, BOOL]], BOOL),
    (&["!_", "@not_strictly_false"], &[&[BOOL]], BOOL),
    (&["_?_:_"], &[&[BOOL, A, A]], A),
    (&["_==_", "_!=_"], &[&[A, A]], BOOL),
    (
        &["_<_", "_<=_", "_>_", "_>=_"],
        &[&[BOOL, BOOL], &[INT, INT], &[UINT, UINT], &[DOUBLE, DOUBLE], &[STRING, STRING], &[BYTES, BYTES]],
        BOOL,
    ),
    (&["_+_"], &[&[INT, INT], &[UINT, UINT], &[DOUBLE, DOUBLE], &[STRING, STRING], &[BYTES, BYTES]], First),
    (&["_+_"], &[&[ListOfA, ListOfA]], ListOfA),
    (&["_-_", "_*_", "_/_"], &[&[INT, INT], &[UINT, UINT], &[DOUBLE, DOUBLE]], First),
    (&["_%_"], &[&[INT, INT], &[UINT, UINT]], First),
    (&["-_"], &[&[INT], &[DOUBLE]], First),
    (&["@in"], &[&[A, ListOfA], &[A, MapOfAToB]], BOOL),
    (&["_[_]"], &[&[ListOfA, INT]], A),
    (&["_[_]"], &[&[MapOfAToB, A]], B),
    (&["size", ".size"], &[&[STRING], &[BYTES], &[ListOfA], &[MapOfAToB]], INT),
    (&[".contains", ".startsWith", ".endsWith", ".matches", "matches", "glob"], &[&[STRING, STRING]], BOOL),
    (&["bool"], &[&[BOOL]], BOOL),
    (&["bytes"], &[&[BYTES], &[STRING]], BYTES),
    (&["double"], &[&[DOUBLE], &[INT], &[UINT]], DOUBLE),
    (&["int"], &[&[INT], &[UINT], &[DOUBLE], &[STRING]], INT),
    (&["string"], &[&[STRING], &[BOOL], &[INT], &[UINT], &[BYTES]], STRING),
    (&["uint"], &[&[UINT], &[INT], &[DOUBLE]], UINT),
];

/// What Talos knows and this table leaves out: things no disk has, and conversions that read or write text in another
/// way here than there.
const LEFT_OUT: &[&str] = &[
    "dyn",
    "type",
    "timestamp",
    "duration",
    ".getDate",
    ".getDayOfMonth",
    ".getDayOfWeek",
    ".getDayOfYear",
    ".getFullYear",
    ".getHours",
    ".getMilliseconds",
    ".getMinutes",
    ".getMonth",
    ".getSeconds",
];
const LEFT_OUT_CONVERSIONS: &[(&str, Type)] =
    &[("bool", Type::String), ("double", Type::String), ("uint", Type::String), ("string", Type::Double)];

/// What the table says of a call.
pub(super) enum Signature {
    Result(Type),
    /// There is a function of that name, for the arguments listed.
    OtherArguments(Vec<String>),
    /// Talos knows it; it is left out here.
    LeftOut,
    Nothing,
}

/// Looks a call up; `name` has a dot in front when it is called on its first argument.
pub(super) fn look_up(name: &str, arguments: &[Type]) -> Signature {
    let rows: Vec<_> = TABLE.iter().filter(|(names, _, _)| names.contains(&name)).collect();
    for (_, overloads, result) in &rows {
        for overload in *overloads {
            let mut bound = Bound::default();
            if overload.len() == arguments.len()
                && overload.iter().zip(arguments).all(|(of, argument)| bound.take(of, argument))
            {
                return Signature::Result(bound.give(result, arguments));
            }
        }
    }
    let conversion =
        |(function, from): &(&str, Type)| *function == name && arguments == std::slice::from_ref(from);
    if LEFT_OUT.contains(&name) || LEFT_OUT_CONVERSIONS.iter().any(conversion) {
        return Signature::LeftOut;
    }
    if rows.is_empty() {
        return Signature::Nothing;
    }
    let lists = rows.iter().flat_map(|(_, overloads, _)| overloads.iter());
    Signature::OtherArguments(lists.map(|list| signature(list)).collect())
}

/// The functions that people write by name, with a dot in front when called on something.
pub(super) fn functions() -> impl Iterator<Item = &'static str> {
    TABLE
        .iter()
        .flat_map(|(names, _, _)| names.iter().copied())
        .filter(|name| name.chars().all(|c| c.is_ascii_alphabetic() || c == '.'))
}

fn signature(arguments: &[Of]) -> String {
    let name = |of: &Of| match of {
        Of::Just(found) => found.to_string(),
        ListOfA => "list".to_owned(),
        MapOfAToB => "map".to_owned(),
        A | B | First => "any".to_owned(),
    };
    arguments.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// What `A` and `B` stand for in one call.
#[derive(Default)]
struct Bound {
    a: Option<Type>,
    b: Option<Type>,
}

impl Bound {
    fn take(&mut self, of: &Of, argument: &Type) -> bool {
        match (of, argument) {
            (Of::Just(wanted), argument) => wanted == argument,
            (A, argument) => bind(&mut self.a, argument),
            (B, argument) => bind(&mut self.b, argument),
            (ListOfA, Type::List(element)) => bind(&mut self.a, element),
            (MapOfAToB, Type::Map(key, value)) => bind(&mut self.a, key) && bind(&mut self.b, value),
            _ => false,
        }
    }

    fn give(self, of: &Of, arguments: &[Type]) -> Type {
        match of {
            Of::Just(found) => found.clone(),
            A => self.a.unwrap_or(Type::Open),
            B => self.b.unwrap_or(Type::Open),
            ListOfA => Type::list(self.a.unwrap_or(Type::Open)),
            MapOfAToB => {
                Type::Map(Box::new(self.a.unwrap_or(Type::Open)), Box::new(self.b.unwrap_or(Type::Open)))
            }
            First => arguments.first().cloned().unwrap_or(Type::Open),
        }
    }
}

fn bind(slot: &mut Option<Type>, argument: &Type) -> bool {
    let joined = match slot {
        None => Some(argument.clone()),
        Some(known) => known.join(argument),
    };
    let fits = joined.is_some();
    if fits {
        *slot = joined;
    }
    fits
}

//! The one error type: what went wrong, where, and what to do next.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What an error means for the caller; each kind has one exit code (README, "Exit codes").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Something we did failed: exit 1.
    Failed,
    /// Bad input, a missing or expired credential, a wrong key, a tampered file: exit 2.
    Invalid,
    /// A check failed, or could not be passed: exit 3.
    CheckFailed,
    /// Changes are pending (`plan --exit-code`): exit 4.
    Pending,
    /// Going on would destroy data or break quorum: exit 5.
    Refused,
    /// Locked, or nodes unreachable, so trying again later may help: exit 75.
    Unavailable,
    /// Interrupted by the user: exit 130.
    Interrupted,
}

impl Kind {
    /// The process exit code of this kind.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Invalid => 2,
            Self::CheckFailed => 3,
            Self::Pending => 4,
            Self::Refused => 5,
            Self::Unavailable => 75,
            Self::Interrupted => 130,
        }
    }
}

/// What code decides by where the kind of an error is not enough: its text is for a person alone. It is set where the answer of
/// another program is read, by what its API tells or, where that is words alone, by the table of them (`model::said`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The server spoken to shows a certificate that is not from the CA of the talosconfig.
    WrongCa,
    /// An endpoint that passes calls on says so of the machine behind it.
    StrangerBehind,
    /// A worker passes no calls on.
    NoForwarding,
    /// Somebody else is applying a machine config at this moment.
    AnotherApply,
    /// The config would need a reboot; only Talos before 1.14 says so.
    NeedsReboot,
    /// The kernel does not let go of a device, which something looks at for a moment after it was wiped.
    DeviceBusy,
    /// The table of a disk does not know the partition any more.
    OutOfTable,
    NoSuchFile,
    /// Pod Security refuses a pod.
    PodSecurity,
    /// The caller has no right to do it; else what is forbidden was refused by admission.
    LacksRights,
    /// A volume had no files when it was backed up.
    EmptyVolume,
    /// A backup repository was made with another password.
    WrongPassword,
    ReadOnly,
    /// The disk or the quota is full.
    NoSpace,
    NotPermitted,
    /// Something is wrong with a certificate.
    Certificate,
}

/// An error as a person reads it: `what` says what happened and where, `hint` what to do next.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Error {
    pub kind: Kind,
    /// Most errors have none.
    pub code: Option<Code>,
    pub what: String,
    pub hint: Option<String>,
}

impl Error {
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, code: None, what: what.into(), hint: None }
    }

    pub fn failed(what: impl Into<String>) -> Self {
        Self::new(Kind::Failed, what)
    }

    pub fn invalid(what: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, what)
    }

    pub fn refused(what: impl Into<String>) -> Self {
        Self::new(Kind::Refused, what)
    }

    pub fn unavailable(what: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, what)
    }

    /// Adds what code decides by.
    #[must_use]
    pub const fn code(mut self, code: Code) -> Self {
        self.code = Some(code);
        self
    }

    /// Adds what to do next; the last hint wins.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Puts "where" before what happened: `where: what`.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.what = format!("{place}: {}", self.what);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Error {}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// All results, or all errors in one: with one refusal mended, the next one would only show at the next run.
pub fn all<T>(results: impl IntoIterator<Item = Result<T>>) -> Result<Vec<T>> {
    let (mut good, mut errors) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(value) => good.push(value),
            Err(error) => errors.push(error),
        }
    }
    together(errors).map_or(Ok(good), Err)
}

/// One error of several, each with its own hint; a refusal among them makes it one. Its code is the first that an error of its
/// kind has. None of none.
pub fn together(mut errors: Vec<Error>) -> Option<Error> {
    let mut seen = std::collections::BTreeSet::new();
    errors.retain(|error| seen.insert((error.what.clone(), error.hint.clone())));
    if errors.len() < 2 {
        return errors.pop();
    }
    let kind = [Kind::Refused, Kind::Invalid].into_iter().find(|kind| errors.iter().any(|e| e.kind == *kind));
    let kind = kind.or_else(|| errors.first().map(|error| error.kind)).unwrap_or(Kind::Failed);
    let line = |error: &Error| match &error.hint {
        Some(hint) => format!("\n- {}\n  hint: {hint}", error.what),
        None => format!("\n- {}", error.what),
    };
    let lines: String = errors.iter().map(line).collect();
    let code = errors.iter().filter(|error| error.kind == kind).find_map(|error| error.code);
    Some(Error { code, ..Error::new(kind, format!("{} things stand in the way:{lines}", errors.len())) })
}

/// Both, or what stands in the way of either.
pub fn both<A, B>(one: Result<A>, other: Result<B>) -> Result<(A, B)> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (one, other) => {
            let errors = one.err().into_iter().chain(other.err()).collect();
            Err(together(errors).unwrap_or_else(|| Error::failed("nothing was planned")))
        }
    }
}

/// The first so many of them, and how many more there are.
pub fn first(all: impl ExactSizeIterator<Item = String>, most: usize) -> String {
    let more = all.len().saturating_sub(most);
    let mut told: Vec<String> = all.take(most).collect();
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    told.join("; ")
}

/// Joins an error and its causes into one line, leaving out a cause that its parent already quotes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = plain(error);
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = plain(cause);
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// The error's own words, without the address of a page for programmers that some libraries end with.
fn plain(error: &dyn std::error::Error) -> String {
    let text = error.to_string();
    text.split_once(": https://docs.rs/").map_or_else(|| text.clone(), |(words, _)| words.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_outlives_what_is_said_around_it() {
        let busy = || Error::failed("busy").code(Code::DeviceBusy);
        let plain = || Error::failed("device or resource busy");
        for (error, code) in [
            (Some(busy().at("node a").hint("wait")), Some(Code::DeviceBusy)),
            (together(vec![busy()]), Some(Code::DeviceBusy)),
            (
                together(vec![plain(), busy().at("b"), Error::failed("c").code(Code::NoSpace)]),
                Some(Code::DeviceBusy),
            ),
            (both(Err::<(), _>(plain()), Err::<(), _>(busy())).err(), Some(Code::DeviceBusy)),
            (all([Err::<(), _>(busy()), Ok(())]).err(), Some(Code::DeviceBusy)),
            // What a refusal decides is not what is said beside it.
            (together(vec![busy(), Error::refused("no")]), None),
            (together(vec![plain(), plain().at("b")]), None),
        ] {
            assert_eq!(error.as_ref().and_then(|error| error.code), code, "{error:?}");
        }
    }
}

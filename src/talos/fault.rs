//! What a failed call means: the kind, where it happened, and what to look at.

use std::error::Error as StdError;

use rustls::OtherError;
use tonic::{Code, Status};

use super::connect::{Endpoint, Refusal};
use super::insecure::AnotherKey;
use crate::config_doc;
use crate::dial::TlsFault;
use crate::error::{self, Error, Kind, chain};
use crate::model::said::{self, By};

const WRONG_CA: &str = "this talosconfig is not of this cluster: name another with --talosconfig or --talos-context. A \
                        machine that has no configuration yet (maintenance mode) also shows a certificate of its own";
const NOT_OURS: &str =
    "the talosconfig belongs to another cluster, or the cluster's CA was replaced since it was made";
const ROLE: &str = "the talosconfig's role may not do this (changes and machine configs need os:admin); a Talos too old \
                    to know what was asked answers the same";

/// What the other side said, without the secrets that it repeats.
pub(super) fn said(text: &str) -> String {
    config_doc::words(text)
}

/// The status that answers a config: it may quote it.
pub(super) fn of_config(status: Status, config: &[u8]) -> Status {
    if status.source().is_some() {
        return status;
    }
    let config = String::from_utf8_lossy(config);
    Status::new(status.code(), config_doc::answer_to(&config, status.message()))
}

/// Whether it is the server spoken to, rather than a machine behind it, whose certificate is not from the CA of the
/// talosconfig: nothing that could be reached with it is of its cluster.
pub fn is_wrong_ca(error: &Error) -> bool {
    error.code == Some(error::Code::WrongCa)
}

/// Whether a call failed because the machine shows a certificate of nobody that is trusted, as one in maintenance mode
/// does.
pub fn is_stranger(error: &Error) -> bool {
    matches!(error.code, Some(error::Code::WrongCa | error::Code::StrangerBehind))
}

/// Judges a failed call. `place` names the node and how it was reached.
pub(super) fn from_status(status: &Status, place: &str) -> Error {
    // Only a status that was made on this side has a cause.
    let Some(cause) = status.source() else { return answered(status).at(place) };
    let error = match find::<Refusal>(cause) {
        Some(Refusal::Tls { endpoint, error }) => from_tls(error).at(endpoint),
        Some(Refusal::Network(text)) => unreachable(text),
        None => unreachable(format!("the connection broke: {}", chain(cause))),
    };
    error.at(place)
}

/// No answer within the deadline.
pub(super) fn too_late(place: &str, seconds: f64) -> Error {
    unreachable(format!("no answer within {seconds} s")).at(place)
}

/// What the machine, or the endpoint before it, answered.
fn answered(status: &Status) -> Error {
    meant(status.code(), &said(status.message()), said::code(By::Talos, status.message()))
}

/// What the envelope of an answer says instead of one.
pub(super) fn enclosed(text: &str) -> Error {
    Error { code: said::code(By::Talos, text), ..Error::failed(said(text)) }
}

/// The error that an answer of this code and text is, and what its text means.
fn meant(code: Code, text: &str, means: Option<error::Code>) -> Error {
    let error = match code {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => unreachable(text),
        Code::PermissionDenied if means == Some(error::Code::NoForwarding) => {
            Error::invalid(text).hint("a worker passes no calls on: use the control-plane nodes as endpoints")
        }
        Code::PermissionDenied => Error::invalid(format!("not permitted: {text}")).hint(ROLE),
        Code::Unauthenticated => Error::invalid(format!("not authenticated: {text}")).hint(NOT_OURS),
        Code::InvalidArgument => Error::invalid(format!("the node refuses: {text}")),
        Code::FailedPrecondition if means == Some(error::Code::AnotherApply) => Error::unavailable(text)
            .hint("someone else is applying a configuration; try again when it is done"),
        Code::Unimplemented => Error::failed(format!("not implemented there: {text}"))
            .hint("the node's Talos is too old or too new for this call, or the node is in maintenance mode"),
        code => Error::failed(format!("{code:?}: {text}")),
    };
    Error { code: means, ..error }
}

fn unreachable(text: impl Into<String>) -> Error {
    Error::unavailable(text)
        .hint("is the machine up, and is port 50000 of it (or of the endpoint) open from here?")
}

fn from_tls(error: &rustls::Error) -> Error {
    if let rustls::Error::Other(OtherError(other)) = error
        && let Some(another) = other.downcast_ref::<AnotherKey>()
    {
        return Error::refused(another.to_string()).hint(
            "it was started again, or another machine answers at its address; run this again, and compare the \
             fingerprint with the one on its console",
        );
    }
    let fault = TlsFault::of(error);
    let hint = match fault {
        TlsFault::Stranger | TlsFault::Unacceptable => WRONG_CA,
        TlsFault::NotNow => "check the clocks of this machine and of the node",
        TlsFault::NotForName => "add the address to machine.certSANs, or use one the certificate has",
        TlsFault::OursExpired => "check the clocks, or renew the talosconfig",
        TlsFault::WantsOurs => "the machine is configured: use its cluster's talosconfig",
        TlsFault::RefusesOurs => NOT_OURS,
        TlsFault::Other => "is this the Talos machine API, usually port 50000?",
    };
    let told = Error::new(Kind::Invalid, format!("{} ({error})", fault.what("talosconfig"))).hint(hint);
    if fault == TlsFault::Stranger { told.code(error::Code::WrongCa) } else { told }
}

/// Finds an error of one type in a chain of causes.
fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Names a node and, when that differs, the endpoints it is reached through.
pub(super) fn place(node: &str, endpoints: &[Endpoint]) -> String {
    if let [only] = endpoints
        && only.host == node
    {
        return format!("node {node}");
    }
    let endpoints: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
    format!("node {node} (through {})", endpoints.join(", "))
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use rustls::{AlertDescription as Alert, CertificateError as Bad};

    use super::*;
    use crate::error::Code::{StrangerBehind, WrongCa};

    /// How apid says that the machine behind it is in maintenance mode, or another cluster's.
    const OF_APID: &str = "connection error: desc = \"transport: authentication handshake failed: tls: failed to \
                           verify certificate: x509: certificate signed by unknown authority\"";
    /// How this program says it of the server that it spoke to.
    const OURS: &str = "its certificate is not from the CA of the talosconfig";

    /// The error of a call that could not be made.
    fn of(refusal: Refusal) -> Error {
        let mut status = Status::unknown("tls handshake eof");
        status.set_source(Arc::new(refusal));
        from_status(&status, "node 10.0.0.7 (through 10.0.0.2:50000)")
    }

    fn of_tls(error: rustls::Error) -> Error {
        of(Refusal::Tls { endpoint: Endpoint::parse("10.0.0.2").unwrap(), error })
    }

    /// An error that a library has no name for.
    fn other(text: &str) -> OtherError {
        OtherError(Arc::new(Error::invalid(text)))
    }

    fn assert_code(error: &Error, code: Option<error::Code>) {
        assert_eq!(error.code, code, "{error}");
        assert_eq!(is_wrong_ca(error), code == Some(WrongCa), "{error}");
        assert_eq!(is_stranger(error), code.is_some(), "{error}");
    }

    #[test]
    fn only_a_certificate_of_another_authority_is_a_wrong_ca() {
        let bad = rustls::Error::InvalidCertificate;
        let alert = rustls::Error::AlertReceived;
        let (invalid, refused) = (Kind::Invalid, Kind::Refused);
        for (error, kind, code) in [
            (bad(Bad::UnknownIssuer), invalid, Some(WrongCa)),
            (bad(Bad::BadSignature), invalid, Some(WrongCa)),
            (bad(Bad::Expired), invalid, None),
            (bad(Bad::NotValidYet), invalid, None),
            (bad(Bad::NotValidForName), invalid, None),
            (bad(Bad::BadEncoding), invalid, None),
            (bad(Bad::Revoked), invalid, None),
            (bad(Bad::Other(other(OURS))), invalid, None),
            (alert(Alert::CertificateExpired), invalid, None),
            (alert(Alert::CertificateRequired), invalid, None),
            (alert(Alert::UnknownCA), invalid, None),
            (alert(Alert::BadCertificate), invalid, None),
            (alert(Alert::HandshakeFailure), invalid, None),
            (rustls::Error::General(OURS.into()), invalid, None),
            (rustls::Error::General(OF_APID.into()), invalid, None),
            (rustls::Error::General(AnotherKey("abc".into()).to_string()), invalid, None),
            (rustls::Error::Other(other(OURS)), invalid, None),
            (rustls::Error::Other(OtherError(Arc::new(AnotherKey("abc".into())))), refused, None),
        ] {
            let told = of_tls(error);
            assert_code(&told, code);
            assert_eq!(told.kind, kind, "{told}");
            assert_eq!(code.is_some(), told.what.contains(&format!("10.0.0.2:50000: {OURS} (")), "{told}");
        }
    }

    #[test]
    fn another_key_is_refused_in_its_own_words() {
        let error = of_tls(rustls::Error::Other(OtherError(Arc::new(AnotherKey("abc".into())))));
        let what = "node 10.0.0.7 (through 10.0.0.2:50000): 10.0.0.2:50000: the machine has another key than before, of \
                    fingerprint abc";
        assert_eq!(error.what, what);
        assert!(error.hint.unwrap().starts_with("it was started again"));
    }

    #[test]
    fn what_an_endpoint_says_of_the_machine_behind_it_is_a_code() {
        let all = [
            (Code::Unavailable, Kind::Unavailable),
            (Code::DeadlineExceeded, Kind::Unavailable),
            (Code::PermissionDenied, Kind::Invalid),
            (Code::Unauthenticated, Kind::Invalid),
            (Code::InvalidArgument, Kind::Invalid),
            (Code::FailedPrecondition, Kind::Failed),
            (Code::Unimplemented, Kind::Failed),
            (Code::Unknown, Kind::Failed),
        ];
        let texts = [
            (OF_APID, Some(StrangerBehind)),
            (OURS, None),
            ("x509: certificate has expired or is not yet valid", None),
            ("connection refused", None),
            ("", None),
        ];
        for ((status, kind), (text, code)) in all.into_iter().flat_map(|one| texts.map(|text| (one, text))) {
            let error = from_status(&Status::new(status, text), "node 10.0.0.7");
            assert_code(&error, code);
            assert_eq!(error.kind, kind, "{error}");
            assert!(error.what.contains(text), "{error}");
            let error = enclosed(text);
            assert_code(&error, code);
            assert_eq!((error.kind, error.what.as_str()), (Kind::Failed, text));
        }
    }

    #[test]
    fn words_alone_are_no_code() {
        for text in [OF_APID, OURS] {
            assert_code(&of(Refusal::Network(text.into())), None);
            assert_code(&Error::invalid(text), None);
            assert_code(&Error::failed("connection refused").at(text).hint(text), None);
            assert_code(&from_status(&Status::unavailable("connection refused"), text), None);
        }
        assert_code(&too_late(OF_APID, 30.0), None);
    }

    #[test]
    fn a_code_stays_with_its_error() {
        for code in [WrongCa, StrangerBehind] {
            let error = Error::unavailable("away").code(code).at("node 10.0.0.7").hint("look at it");
            assert_code(&error, Some(code));
            assert_code(&Error { what: "something else".into(), ..error }, Some(code));
        }
    }
}

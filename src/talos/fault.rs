//! What a failed call means: the kind, where it happened, and what to look at.

use std::error::Error as StdError;

use tonic::{Code, Status};

use super::connect::{Endpoint, Refusal};
use super::insecure::ANOTHER;
use crate::config_doc;
use crate::dial::TlsFault;
use crate::error::{Error, Kind, chain};

const WRONG_CA: &str = "this talosconfig is not of this cluster: name another with --talosconfig or --talos-context. A \
                        machine that has no configuration yet (maintenance mode) also shows a certificate of its own";
const NOT_OURS: &str =
    "the talosconfig belongs to another cluster, or the cluster's CA was replaced since it was made";
const ROLE: &str = "the talosconfig's role may not do this (changes and machine configs need os:admin); a Talos too old \
                    to know what was asked answers the same";

/// The machine shows a certificate of another authority than the talosconfig's.
const STRANGER: &str = "its certificate is not from the CA of the talosconfig";
/// The same, as an endpoint says it that passes calls on (Go, crypto/x509).
const STRANGER_BEHIND: &str = "certificate signed by unknown authority";

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
    error.kind == Kind::Invalid && error.what.contains(STRANGER)
}

/// Whether a call failed because the machine shows a certificate of nobody that is trusted, as one in maintenance mode
/// does.
pub fn is_stranger(error: &Error) -> bool {
    [STRANGER, STRANGER_BEHIND].iter().any(|said| error.what.contains(said))
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
    let text = said(status.message());
    let text = text.as_str();
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => unreachable(text),
        Code::PermissionDenied if text.contains("no request forwarding") => {
            Error::invalid(text).hint("a worker passes no calls on: use the control-plane nodes as endpoints")
        }
        Code::PermissionDenied => Error::invalid(format!("not permitted: {text}")).hint(ROLE),
        Code::Unauthenticated => Error::invalid(format!("not authenticated: {text}")).hint(NOT_OURS),
        Code::InvalidArgument => Error::invalid(format!("the node refuses: {text}")),
        Code::FailedPrecondition if text.contains("another apply configuration is already in progress") => {
            Error::unavailable(text)
                .hint("someone else is applying a configuration; try again when it is done")
        }
        Code::Unimplemented => Error::failed(format!("not implemented there: {text}"))
            .hint("the node's Talos is too old or too new for this call, or the node is in maintenance mode"),
        code => Error::failed(format!("{code:?}: {text}")),
    }
}

fn unreachable(text: impl Into<String>) -> Error {
    Error::unavailable(text)
        .hint("is the machine up, and is port 50000 of it (or of the endpoint) open from here?")
}

fn from_tls(error: &rustls::Error) -> Error {
    if let rustls::Error::General(text) = error
        && text.starts_with(ANOTHER)
    {
        return Error::refused(text.clone()).hint(
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
    Error::new(Kind::Invalid, format!("{} ({error})", fault.what("talosconfig"))).hint(hint)
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

//! Certificates as Talos makes them: Ed25519, with the key labelled its own way.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use nodeprep::error::Result;
use nodeprep::talos::Context;
use nodeprep_sandbox::serve::pki::Authority;

/// The moment the tests take for now.
pub(super) const NOW: &str = "2030-06-01T00:00:00Z";

pub(super) fn now() -> Timestamp {
    NOW.parse().unwrap()
}

pub(super) struct Ca {
    pub authority: Authority,
    pub pem: String,
}

impl Ca {
    pub(super) fn new() -> Self {
        let authority = Authority::new("talos").unwrap();
        Self { pem: authority.pem().to_owned(), authority }
    }

    /// A client certificate that expires on the given day, and its key, both in PEM.
    pub(super) fn client(&self, (year, month, day): (i16, i8, i8)) -> (String, String) {
        let client = self.authority.client_until("os:admin", jiff::civil::date(year, month, day)).unwrap();
        (client.certificate, client.key.replace("PRIVATE KEY", "ED25519 PRIVATE KEY"))
    }
}

/// The text of a talosconfig with one context, `lab`.
pub(super) fn talosconfig(ca: &str, (crt, key): &(String, String)) -> String {
    let [ca, crt, key] = [ca, crt, key].map(|pem| STANDARD.encode(pem));
    format!(
        "context: lab\ncontexts:\n    lab:\n        endpoints:\n            - 127.0.0.1\n        \
         ca: {ca}\n        crt: {crt}\n        key: {key}\n"
    )
}

/// A context that trusts `ca` and shows a certificate of `clients`.
pub(super) fn context(ca: &Ca, clients: &Ca) -> Context {
    parse(&talosconfig(&ca.pem, &clients.client((2040, 1, 1))), now()).unwrap()
}

pub(super) fn parse(text: &str, now: Timestamp) -> Result<Context> {
    Context::parse(text, "talosconfig".as_ref(), None, now)
}

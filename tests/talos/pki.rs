//! Certificates as Talos makes them: Ed25519, with the key labelled its own way.

use std::net::{IpAddr, Ipv4Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use nodeprep::error::Result;
use nodeprep::talos::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ED25519, SanType, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The moment the tests take for now.
pub const NOW: &str = "2030-06-01T00:00:00Z";

pub fn now() -> Timestamp {
    NOW.parse().unwrap()
}

pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
    pub der: CertificateDer<'static>,
}

impl Ca {
    pub fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = params("talos", (2045, 1, 1));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap();
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Self { issuer: Issuer::new(params, key), pem, der }
    }

    /// A certificate for 127.0.0.1.
    pub fn server(&self) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = params("node", (2045, 1, 1));
        params.subject_alt_names = vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    /// A client certificate that expires on the given day, and its key, both in PEM.
    pub fn client(&self, until: (i32, u8, u8)) -> (String, String) {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = params("os:admin", until);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem().replace("PRIVATE KEY", "ED25519 PRIVATE KEY"))
    }
}

fn params(organization: &str, (year, month, day): (i32, u8, u8)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(year, month, day);
    params
}

/// The text of a talosconfig with one context, `lab`.
pub fn talosconfig(ca: &str, (crt, key): &(String, String)) -> String {
    let [ca, crt, key] = [ca, crt, key].map(|pem| STANDARD.encode(pem));
    format!(
        "context: lab\ncontexts:\n    lab:\n        endpoints:\n            - 127.0.0.1\n        \
         ca: {ca}\n        crt: {crt}\n        key: {key}\n"
    )
}

/// A context that trusts `ca` and shows a certificate of `clients`.
pub fn context(ca: &Ca, clients: &Ca) -> Context {
    parse(&talosconfig(&ca.pem, &clients.client((2040, 1, 1))), now()).unwrap()
}

pub fn parse(text: &str, now: Timestamp) -> Result<Context> {
    Context::parse(text, "talosconfig".as_ref(), None, now)
}

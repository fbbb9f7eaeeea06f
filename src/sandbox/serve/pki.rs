//! The sandbox's certificates: an authority of its own, good for one run.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use jiff::civil::Date;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ED25519, SanType, date_time_ymd,
};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

use crate::error::{Error, Result};

/// An authority and the certificates it gave out.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

impl std::fmt::Debug for Authority {
    /// Without its key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// A client's certificate and key, in PEM.
#[derive(Clone)]
pub struct Client {
    pub certificate: String,
    pub key: String,
}

impl std::fmt::Debug for Client {
    /// Without its key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::failed(format!("the sandbox can't make its certificates: {error}"))
}

impl Authority {
    pub fn new(name: &str) -> Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(failed)?;
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).map_err(failed)?;
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Ok(Self { issuer: Issuer::new(params, key), pem, der })
    }

    /// Its own certificate, in PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for a client of this organization, good for a year as those that Talos gives out.
    pub fn client(&self, organization: &str) -> Result<Client> {
        let until = jiff::Zoned::now().date().saturating_add(jiff::Span::new().years(1));
        self.client_until(organization, until)
    }

    /// The same, good until this day.
    pub fn client_until(&self, organization: &str, until: Date) -> Result<Client> {
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(failed)?;
        let mut params = params(organization);
        params.not_after =
            date_time_ymd(until.year().into(), until.month().unsigned_abs(), until.day().unsigned_abs());
        params.distinguished_name.push(DnType::CommonName, organization);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(Client { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// What a server on this machine shows, and whom it lets in: clients of that authority.
    pub fn server(&self, clients: &Self, protocols: &[&str]) -> Result<Arc<rustls::ServerConfig>> {
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(failed)?;
        let mut params = params("sandbox");
        params.subject_alt_names = vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(failed)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(clients.der.clone()).map_err(failed)?;
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .with_client_cert_verifier(clients.build().map_err(failed)?)
            .with_single_cert(vec![certificate.der().clone()], key)
            .map_err(failed)?;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Ok(Arc::new(config))
    }
}

fn params(organization: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2100, 1, 1);
    params
}

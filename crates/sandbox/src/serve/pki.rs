//! The sandbox's certificates: an authority of its own, good for one run.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::civil::Date;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519, SanType, date_time_ymd,
};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivateSec1KeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

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

    /// One that somebody else made, by its certificate and its key in PEM; nothing when these can't be used or do not belong
    /// together.
    pub fn given(certificate: &str, key: &str) -> Option<Self> {
        let key = match PrivateSec1KeyDer::from_pem_slice(key.as_bytes()) {
            Ok(plain) => KeyPair::try_from(pkcs8(plain.secret_sec1_der()).as_slice()).ok()?,
            // Talos writes Ed25519 keys under a label of its own.
            Err(_) => KeyPair::from_pem(key).ok()?,
        };
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).ok()?.into_owned();
        let (_, read) = x509_parser::parse_x509_certificate(&der).ok()?;
        if *read.public_key().subject_public_key.data != *key.public_key_raw() {
            return None;
        }
        Some(Self { issuer: Issuer::from_ca_cert_der(&der, key).ok()?, pem: certificate.to_owned(), der })
    }

    /// Its own certificate, in PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for a client of this organization, good for so many days.
    pub fn client(&self, organization: &str, days: i32) -> Result<Client> {
        let until = jiff::Zoned::now().date().saturating_add(jiff::Span::new().days(days));
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
    pub fn server(&self, clients: &Self, protocols: &[&str]) -> Result<Arc<ServerConfig>> {
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(failed)?;
        let certificate = server_params("sandbox").signed_by(&key, &self.issuer).map_err(failed)?;
        let shown = SingleCertAndKey::from(certified(&certificate, &key)?);
        server_config(Arc::new(shown), clients.verifier()?, protocols).map(Arc::new)
    }

    /// What a machine shows that has no configuration: a certificate that nobody signed and that is new at every boot, to
    /// everybody. `standing` tells whether it is configured by now, and of which boot it is; once it is configured, it
    /// wants a certificate of this authority.
    pub fn maintenance(
        &self,
        standing: impl Fn() -> (bool, u64) + Send + Sync + 'static,
        protocols: &[&str],
    ) -> Result<Arc<ServerConfig>> {
        let standing: Arc<Standing> = Arc::new(standing);
        let shown = PerBoot { standing: Arc::clone(&standing), made: Mutex::default() };
        let gate = Gate { standing, clients: self.verifier()? };
        let mut config = server_config(Arc::new(shown), Arc::new(gate), protocols)?;
        // Nobody goes on later with what was agreed on without a certificate.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Arc::new(config))
    }

    fn verifier(&self) -> Result<Arc<dyn ClientCertVerifier>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).map_err(failed)?;
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().map_err(failed)
    }
}

/// A P-256 key as RFC 5958 wants it, from how RFC 5915 has it, which is how Talos writes those of Kubernetes.
fn pkcs8(sec1: &[u8]) -> Vec<u8> {
    const VERSION: &[u8] = &[2, 1, 0];
    const P256: &[u8] =
        &[0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
    let wrapped = |tag: u8, content: &[u8]| {
        let length = content.len().to_be_bytes();
        let length = length.get(length.iter().take_while(|byte| **byte == 0).count()..).unwrap_or_default();
        let long = u8::try_from(length.len()).unwrap_or_default() | 0x80;
        let short = content.len() < 0x80;
        let mut head = vec![tag];
        head.extend((!short).then_some(long));
        [head.as_slice(), length, content].concat()
    };
    wrapped(0x30, &[VERSION, P256, wrapped(4, sec1).as_slice()].concat())
}

/// Whether a machine is configured, and of which boot it is.
type Standing = dyn Fn() -> (bool, u64) + Send + Sync;

/// The certificate that a machine made at this boot.
struct PerBoot {
    standing: Arc<Standing>,
    made: Mutex<Option<(u64, Arc<CertifiedKey>)>>,
}

impl std::fmt::Debug for PerBoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PerBoot").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for PerBoot {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let (_, boot) = (self.standing)();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, kept)) = made.as_ref().filter(|(of, _)| *of == boot) {
            return Some(Arc::clone(kept));
        }
        let new = Arc::new(unsigned().ok()?);
        *made = Some((boot, Arc::clone(&new)));
        Some(new)
    }
}

/// A certificate of a machine's own making.
fn unsigned() -> Result<CertifiedKey> {
    let key = KeyPair::generate_for(&PKCS_ED25519).map_err(failed)?;
    let mut params = server_params("talos");
    params.distinguished_name.push(DnType::CommonName, "maintenance-service.talos.dev");
    certified(&params.self_signed(&key).map_err(failed)?, &key)
}

fn certified(certificate: &Certificate, key: &KeyPair) -> Result<CertifiedKey> {
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(failed)?;
    let key = provider().key_provider.load_private_key(key).map_err(failed)?;
    Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
}

/// Asks clients for a certificate only when the machine is configured.
struct Gate {
    standing: Arc<Standing>,
    clients: Arc<dyn ClientCertVerifier>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

type Signature = std::result::Result<HandshakeSignatureValid, rustls::Error>;

impl ClientCertVerifier for Gate {
    fn offer_client_auth(&self) -> bool {
        (self.standing)().0
    }

    fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
        self.clients.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        client: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> std::result::Result<ClientCertVerified, rustls::Error> {
        self.clients.verify_client_cert(client, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        client: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Signature {
        self.clients.verify_tls12_signature(message, client, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        client: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Signature {
        self.clients.verify_tls13_signature(message, client, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.clients.supported_verify_schemes()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn server_params(organization: &str) -> CertificateParams {
    let mut params = params(organization);
    params.subject_alt_names = vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

fn server_config(
    shown: Arc<dyn ResolvesServerCert>,
    clients: Arc<dyn ClientCertVerifier>,
    protocols: &[&str],
) -> Result<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(shown);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Ok(config)
}

fn params(organization: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2100, 1, 1);
    params
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;

    use super::*;

    #[test]
    fn the_authorities_of_a_generated_config_are_taken_and_others_are_not() {
        let config = include_str!("../../../../tests/golden/generated/1.14/controlplane.yaml");
        let documents: Vec<serde_json::Value> = serde_yaml::from_multiple(config).unwrap();
        let main = &documents[0]["machine"]["ca"];
        let decoded = |key: &str| {
            String::from_utf8(BASE64_STANDARD.decode(main[key].as_str().unwrap()).unwrap()).unwrap()
        };
        let (talos, talos_key) = (decoded("crt"), decoded("key"));
        let kubernetes = documents.iter().find(|one| one["kind"] == "KubeAPIServerCAConfig").unwrap();
        let said = |key: &str| kubernetes["issuingCA"][key].as_str().unwrap().to_owned();
        for (certificate, key, taken) in [
            (talos.clone(), talos_key.clone(), true),
            (said("cert"), said("key"), true),
            (talos.clone(), said("key"), false),
            (talos.clone(), "simulated".to_owned(), false),
            ("---".to_owned(), talos_key.clone(), false),
        ] {
            let given = Authority::given(&certificate, &key);
            assert_eq!(given.is_some(), taken);
            if let Some(authority) = given {
                assert_eq!(authority.pem(), certificate);
                authority.server(&authority, &["h2"]).unwrap();
                authority.client("os:admin", 1).unwrap();
            }
        }
    }
}

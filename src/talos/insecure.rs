//! TLS to a machine in maintenance mode: it has a certificate of its own making, new at every boot, and takes clients
//! without one. Nothing is proven by it but that it is the same machine as before, and the same boot of it, when it has
//! the same key; so nothing may be sent that a stranger must not have, unless somebody compared the key's fingerprint with
//! the one that the machine's console shows.

use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, OtherError, SignatureScheme};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::error::{Error, Result};

/// The fingerprint of the key that the machine showed last, as its console prints it: SHA-256 of the certificate's
/// SubjectPublicKeyInfo in base64 (siderolabs/crypto, `SPKIFingerprint`).
pub(super) type Shown = Arc<Mutex<Option<String>>>;

/// Takes every certificate whose key the server has; or, with a pin, only those with that key.
#[derive(Debug)]
struct Any {
    provider: Arc<CryptoProvider>,
    pin: Option<String>,
    shown: Shown,
}

fn fingerprint(certificate: &CertificateDer<'_>) -> Result<String, rustls::Error> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|_| rustls::Error::InvalidCertificate(rustls::CertificateError::BadEncoding))?;
    Ok(BASE64_STANDARD.encode(Sha256::digest(parsed.public_key().raw)))
}

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = fingerprint(certificate)?;
        if self.pin.as_ref().is_some_and(|pin| *pin != found) {
            return Err(rustls::Error::Other(OtherError(Arc::new(AnotherKey(found)))));
        }
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The fingerprint of a key that is not the pinned one.
#[derive(Debug, thiserror::Error)]
#[error("the machine has another key than before, of fingerprint {0}")]
pub(super) struct AnotherKey(pub(super) String);

/// TLS without a client certificate, to a server of which nothing is known but perhaps its key, speaking HTTP/2. What it
/// showed is noted.
pub(super) fn tls(pin: Option<String>, shown: Shown) -> Result<TlsConnector> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::failed(format!("TLS can't be set up: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Any { provider, pin, shown }))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

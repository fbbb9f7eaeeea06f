//! Signatures of the S3 API, version 4. Source: Amazon S3 API Reference, "Authenticating Requests: Using the Authorization
//! Header".

use hmac::{Hmac, KeyInit, Mac};
use http::header::{AUTHORIZATION, HOST, HeaderValue};
use http::request::Parts;
use jiff::Timestamp;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};

use super::Key;

const DATE: &str = "x-amz-date";
const CONTENT: &str = "x-amz-content-sha256";
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Signs a request with its body: the host and every `x-amz-` header that it has. The query is in the order of its names.
pub(super) fn sign(parts: &mut Parts, body: &[u8], key: &Key, region: &str, now: Timestamp) {
    let date = now.strftime("%Y%m%dT%H%M%SZ").to_string();
    let content = hex(&Sha256::digest(body));
    for (name, value) in [(DATE, &date), (CONTENT, &content)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            parts.headers.insert(name, value);
        }
    }
    let (signed, canonical) = canonical(parts, &content);
    let scope = format!("{}/{region}/s3/aws4_request", &date[..8]);
    let text = format!("{ALGORITHM}\n{date}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
    let mut chain = mac(format!("AWS4{}", key.secret.expose_secret()).as_bytes(), &date[..8]);
    for part in [region, "s3", "aws4_request", &text] {
        chain = mac(&chain, part);
    }
    let value =
        format!("{ALGORITHM} Credential={}/{scope},SignedHeaders={signed},Signature={}", key.id, hex(&chain));
    if let Ok(mut value) = HeaderValue::from_str(&value) {
        value.set_sensitive(true);
        parts.headers.insert(AUTHORIZATION, value);
    }
}

/// The names of the headers that are signed, and the request in the form that is.
fn canonical(parts: &Parts, content: &str) -> (String, String) {
    let is_signed = |name: &&str| *name == HOST.as_str() || name.starts_with("x-amz-");
    let mut names: Vec<&str> = parts.headers.keys().map(http::HeaderName::as_str).filter(is_signed).collect();
    names.sort_unstable();
    let value =
        |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().trim();
    let lines: String = names.iter().map(|name| format!("{name}:{}\n", value(name))).collect();
    let signed = names.join(";");
    let (method, path, query) = (&parts.method, parts.uri.path(), parts.uri.query().unwrap_or_default());
    (signed.clone(), format!("{method}\n{path}\n{query}\n{lines}\n{signed}\n{content}"))
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    // Any length of key is taken.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A text as it stands in an address; slashes stay where they part a path.
pub(super) fn encode(text: &str, slashes: bool) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || slashes && byte == b'/';
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_signed_as_in_amazons_own_example() {
        let host = "examplebucket.s3.amazonaws.com";
        let request = http::Request::get(format!("https://{host}/?max-keys=2&prefix=J")).header(HOST, host);
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned().into();
        let key = Key { id: "AKIAIOSFODNN7EXAMPLE".into(), secret };
        sign(&mut parts, b"", &key, "us-east-1", "2013-05-24T00:00:00Z".parse().unwrap());
        let signature = parts.headers[AUTHORIZATION].to_str().unwrap();
        assert_eq!(
            signature,
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
             SignedHeaders=host;x-amz-content-sha256;x-amz-date,\
             Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
        );
    }

    #[test]
    fn what_is_special_in_an_address_is_encoded() {
        assert_eq!(encode("a b/c+d~é", true), "a%20b/c%2Bd~%C3%A9");
        assert_eq!(encode("a/b", false), "a%2Fb");
    }
}

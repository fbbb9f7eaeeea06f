//! The client of the store against one that answers as a real one does.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::*;
use crate::dial;

const SECRET: &str = "secret";

/// A store with one bucket, `velero`, in one region.
#[derive(Default)]
struct Stub {
    region: &'static str,
    refuses_checksums: bool,
    forgets: bool,
    objects: Mutex<BTreeMap<String, Bytes>>,
    calls: Mutex<Vec<String>>,
}

fn error(status: u16, code: &str, message: &str) -> Response<Full<Bytes>> {
    let body =
        format!("<?xml version=\"1.0\"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>");
    Response::builder().status(status).body(Full::new(body.into())).unwrap()
}

impl Stub {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        self.calls.lock().unwrap().push(parts.method.to_string());
        let given = parts.headers["authorization"].to_str().unwrap().to_owned();
        let scope: Vec<&str> = given.split(['/', '=', ',']).collect();
        if scope[3] != self.region {
            let message = format!(
                "The authorization header is malformed; the region is wrong; expecting '{}'.",
                self.region
            );
            return Ok(error(400, "AuthorizationHeaderMalformed", &message));
        }
        if scope[1] != "id" {
            return Ok(error(
                403,
                "InvalidAccessKeyId",
                "The Access Key Id you provided does not exist in our records.",
            ));
        }
        // Signed anew, from what came over the wire.
        let mut again = Request::builder().method(parts.method.clone()).uri(parts.uri.clone());
        for (name, value) in &parts.headers {
            if name != "authorization" {
                again = again.header(name, value);
            }
        }
        let (mut again, ()) = again.body(()).unwrap().into_parts();
        let key = Key { id: "id".into(), secret: SECRET.to_owned().into() };
        let at = jiff::fmt::strtime::parse("%Y%m%dT%H%M%SZ", parts.headers["x-amz-date"].to_str().unwrap())
            .unwrap();
        let at = at.to_datetime().unwrap().to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp();
        sign::sign(&mut again, &body, &key, self.region, at);
        if again.headers["authorization"] != given.as_str() {
            return Ok(error(
                403,
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match",
            ));
        }
        let Some(key) = parts.uri.path().strip_prefix("/velero/") else {
            return Ok(error(404, "NoSuchBucket", "The specified bucket does not exist"));
        };
        if self.refuses_checksums && parts.headers.contains_key("x-amz-checksum-crc32") {
            return Ok(error(
                400,
                "InvalidArgument",
                "Unsupported header 'x-amz-checksum-crc32' received for this API call.",
            ));
        }
        let mut objects = self.objects.lock().unwrap();
        Ok(match parts.method.as_str() {
            "PUT" => {
                objects.insert(key.to_owned(), body);
                Response::new(Full::default())
            }
            "DELETE" => {
                objects.remove(key);
                Response::builder().status(204).body(Full::default()).unwrap()
            }
            _ if key.is_empty() => Response::new(Full::new("<ListBucketResult></ListBucketResult>".into())),
            _ => match objects.get(key).filter(|_| !self.forgets) {
                Some(object) => Response::new(Full::new(object.clone())),
                None => error(404, "NoSuchKey", "The specified key does not exist."),
            },
        })
    }
}

async fn serve(stub: Stub) -> (Arc<Stub>, u16) {
    serve_over(stub, None).await
}

/// With a certificate, over TLS.
async fn serve_over(stub: Stub, tls: Option<tokio_rustls::TlsAcceptor>) -> (Arc<Stub>, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let stub = Arc::new(stub);
    let served = Arc::clone(&stub);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let stub = Arc::clone(&served);
            let service = service_fn(move |request| {
                let stub = Arc::clone(&stub);
                async move { stub.answer(request).await }
            });
            let tls = tls.clone();
            tokio::spawn(async move {
                let stream: Box<dyn dial::Io> = match &tls {
                    None => Box::new(stream),
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => Box::new(stream),
                        Err(_) => return,
                    },
                };
                let serving = hyper::server::conn::http1::Builder::new();
                let _ = serving.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (stub, port)
}

fn store(port: u16) -> Store {
    Store {
        url: Some(format!("http://127.0.0.1:{port}")),
        bucket: "velero".into(),
        prefix: Some("lab 1".into()),
        region: "us-east-1".into(),
        path_style: true,
        checksums: true,
        ca_cert: None,
        key: Key { id: "id".into(), secret: SECRET.to_owned().into() },
    }
}

async fn asked(store: &Store, depth: Depth) -> Answer {
    ask(store, depth, &dial::tcp(), "2026-11-21T10:00:00Z".parse().unwrap()).await
}

fn good() -> Stub {
    Stub { region: "us-east-1", ..Stub::default() }
}

#[tokio::test]
async fn a_store_that_works_is_left_as_it_was() {
    let (stub, port) = serve(good()).await;
    assert_eq!(asked(&store(port), Depth::List).await, Answer::Works);
    assert_eq!(*stub.calls.lock().unwrap(), ["GET"], "a plan changes nothing");
    assert_eq!(asked(&store(port), Depth::Write).await, Answer::Works);
    assert_eq!(*stub.calls.lock().unwrap(), ["GET", "GET", "PUT", "GET", "DELETE"]);
    assert!(stub.objects.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_a_store_refuses_is_told_in_its_words() {
    let (_, port) = serve(good()).await;
    let key = |id: &str, secret: &str| Key { id: id.into(), secret: secret.to_owned().into() };
    for (store, word) in [
        (
            Store { key: key("id", "wrong"), ..store(port) },
            "StatusCode: 403, api error SignatureDoesNotMatch",
        ),
        (Store { key: key("other", SECRET), ..store(port) }, "api error InvalidAccessKeyId"),
        (
            Store { region: "eu-central-1".into(), ..store(port) },
            "AuthorizationHeaderMalformed: The authorization header is malformed; the region is wrong; expecting 'us-east-1'",
        ),
        (Store { bucket: "other".into(), ..store(port) }, "StatusCode: 404, api error NoSuchBucket"),
        (Store { url: Some(format!("https://127.0.0.1:{port}")), ..store(port) }, "InvalidContentType"),
        (
            Store {
                url: Some(format!("http://localhost:{port}")),
                bucket: "no-such-name.invalid".into(),
                path_style: false,
                ..store(port)
            },
            "lookup no-such-name.invalid.localhost",
        ),
    ] {
        match asked(&store, Depth::List).await {
            Answer::Refused(why) => assert!(why.contains(word), "{word}: {why}"),
            other => panic!("{word}: {other:?}"),
        }
    }
    let (_, port) = serve(Stub { refuses_checksums: true, ..good() }).await;
    assert!(
        matches!(asked(&store(port), Depth::Write).await, Answer::Refused(why) if why.contains("PutObject: StatusCode: 400, api error InvalidArgument: Unsupported header"))
    );
    assert_eq!(asked(&Store { checksums: false, ..store(port) }, Depth::Write).await, Answer::Works);
}

#[tokio::test]
async fn a_store_of_an_own_authority_is_trusted_by_its_certificate_alone() {
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key).unwrap();
    let (_, port) = serve_over(good(), Some(tokio_rustls::TlsAcceptor::from(Arc::new(config)))).await;
    let over_tls = Store { url: Some(format!("https://localhost:{port}")), ..store(port) };
    assert!(
        matches!(asked(&over_tls, Depth::List).await, Answer::Refused(why) if why.contains("UnknownIssuer"))
    );
    let trusting = Store { ca_cert: Some(own.cert.pem()), ..over_tls.clone() };
    assert_eq!(asked(&trusting, Depth::Write).await, Answer::Works);
    let elsewhere = Store { url: Some(format!("https://127.0.0.1:{port}")), ..trusting };
    assert!(
        matches!(asked(&elsewhere, Depth::List).await, Answer::Refused(why) if why.contains("certificate not valid for name"))
    );
    let in_the_clear = Store { url: Some(format!("http://localhost:{port}")), ..over_tls };
    assert!(
        matches!(asked(&in_the_clear, Depth::List).await, Answer::Refused(why) if why.contains("HTTP request to an HTTPS server"))
    );
}

#[tokio::test]
async fn a_test_object_that_can_not_be_read_is_removed_all_the_same() {
    let (stub, port) = serve(Stub { forgets: true, ..good() }).await;
    assert!(
        matches!(asked(&store(port), Depth::Write).await, Answer::Refused(why) if why.contains("GetObject: StatusCode: 404, api error NoSuchKey"))
    );
    assert!(stub.objects.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_store_that_is_not_reached_from_here_is_not_judged() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = gone.local_addr().unwrap().port();
    drop(gone);
    assert!(matches!(asked(&store(port), Depth::List).await, Answer::Unreached(_)));
    let elsewhere = Store { url: Some("http://minio.minio.svc.invalid:9000".into()), ..store(port) };
    assert!(matches!(asked(&elsewhere, Depth::List).await, Answer::Unreached(_)));
}

#[test]
fn a_key_is_that_of_the_default_profile() {
    let file = "[other]\naws_access_key_id=x\naws_secret_access_key=y\n[default]\naws_access_key_id = lab\naws_secret_access_key=a=b\n";
    assert_eq!(Key::read(file).map(|key| key.id).as_deref(), Some("lab"));
    assert!(Key::read("aws_access_key_id=x\naws_secret_access_key=y\n").is_none());
    assert!(Key::read("[default]\naws_access_key_id=x\n").is_none());
}

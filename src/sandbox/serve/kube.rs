//! The simulated API server over HTTPS.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, USER_AGENT};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::pki::{Authority, Client};
use crate::error::{Error, Result};
use crate::sandbox::kube::api::{self, Api, Reply, Watch};
use crate::sandbox::kube::route::query;

/// A watch says that it lives at least this often.
const BOOKMARK_EVERY: Duration = Duration::from_secs(10);
/// A watch that does not say how long it wants to be ends after this time, as a real server ends it at some time.
const LONGEST_WATCH: Duration = Duration::from_secs(1800);
/// Larger bodies are refused; a real server's limit is 3 MiB.
const LARGEST_BODY: usize = 3 << 20;

/// The API server and those who wait for its changes.
#[derive(Debug)]
pub struct Cluster {
    api: Mutex<Api>,
    version: watch::Sender<u64>,
}

impl Cluster {
    pub fn new(api: Api) -> Arc<Self> {
        Arc::new(Self { version: watch::Sender::new(api.store.version()), api: Mutex::new(api) })
    }

    /// Does something to the cluster at this time, lets its controllers do what follows, and wakes who watches.
    pub fn act<T>(&self, what: impl FnOnce(&mut Api, &str) -> T) -> T {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let mut api = self.api.lock().unwrap_or_else(PoisonError::into_inner);
        let done = what(&mut api, &now);
        while api.settle_all(&now) {}
        self.version.send_replace(api.store.version());
        done
    }

    /// Serves HTTPS on a port of this machine, to clients of this authority, until the program ends.
    pub async fn serve(self: &Arc<Self>, authority: &Authority) -> Result<SocketAddr> {
        let tls = TlsAcceptor::from(authority.server(&["h2", "http/1.1"])?);
        let failed = |error: std::io::Error| Error::failed(format!("the sandbox can't listen: {error}"));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let cluster = Arc::clone(self);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (cluster, tls) = (Arc::clone(&cluster), tls.clone());
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let service = service_fn(move |request| answer(Arc::clone(&cluster), request));
                    let connection = auto::Builder::new(TokioExecutor::new());
                    let _ = connection.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Ok(address)
    }
}

/// A kubeconfig for this address and client.
pub fn kubeconfig(address: SocketAddr, authority: &Authority, client: &Client) -> Value {
    let data = |pem: &str| BASE64_STANDARD.encode(pem);
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "sandbox",
        "clusters": [{"name": "sandbox", "cluster": {
            "server": format!("https://{address}"), "certificate-authority-data": data(authority.pem()),
        }}],
        "users": [{"name": "sandbox", "user": {
            "client-certificate-data": data(&client.certificate), "client-key-data": data(&client.key),
        }}],
        "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": "sandbox"}}],
    })
}

type Body = BoxBody<Bytes, Infallible>;

async fn answer(cluster: Arc<Cluster>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut asked = api::Request {
        method: request.method().as_str().to_owned(),
        path: request.uri().path_and_query().map_or_else(String::new, |path| path.as_str().to_owned()),
        content_type: header(CONTENT_TYPE).to_owned(),
        body: Vec::new(),
        user_agent: header(USER_AGENT).to_owned(),
    };
    match http_body_util::Limited::new(request.into_body(), LARGEST_BODY).collect().await {
        Ok(body) => asked.body = body.to_bytes().to_vec(),
        Err(_) => return Ok(text(413, "text/plain", "the body is too large".into())),
    }
    Ok(match cluster.act(|api, now| api.handle(&asked, now)) {
        Reply::Json(code, body) => text(code, "application/json", body.to_string()),
        Reply::Text(code, body) => text(code, "text/plain; charset=utf-8", body),
        Reply::Watch(watch) => {
            let limit = query(asked.path.split_once('?').map_or("", |(_, query)| query));
            let limit = limit.get("timeoutSeconds").and_then(|seconds| seconds.parse().ok());
            stream_of(cluster, watch, limit.map_or(LONGEST_WATCH, Duration::from_secs))
        }
    })
}

fn text(code: u16, kind: &str, body: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body)).boxed());
    *response.status_mut() = hyper::StatusCode::from_u16(code).unwrap_or_default();
    if let Ok(kind) = kind.parse() {
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    response
}

/// The changes as they come, a line each, until the limit.
fn stream_of(cluster: Arc<Cluster>, watch: Watch, limit: Duration) -> Response<Body> {
    let seen = cluster.version.subscribe();
    let end = Instant::now() + limit;
    let state = Some((cluster, watch, seen));
    let frames = stream::unfold(state, move |state| async move {
        let (cluster, mut watch, mut seen) = state?;
        loop {
            seen.mark_unchanged();
            let (events, over) =
                cluster.api.lock().unwrap_or_else(PoisonError::into_inner).changes(&mut watch);
            if !events.is_empty() {
                let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
                let frame = Ok(Frame::data(Bytes::from(lines)));
                return Some((frame, (!over).then_some((cluster, watch, seen))));
            }
            tokio::select! {
                changed = seen.changed() => changed.ok()?,
                () = tokio::time::sleep_until(end) => return None,
                () = tokio::time::sleep(BOOKMARK_EVERY), if watch.bookmarks => {
                    let frame = Ok(Frame::data(Bytes::from(format!("{}\n", watch.bookmark()))));
                    return Some((frame, Some((cluster, watch, seen))));
                }
            }
        }
    });
    let mut response = Response::new(StreamBody::new(frames).boxed());
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    response
}

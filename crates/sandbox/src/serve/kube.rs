//! The simulated API server over HTTPS.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{ACCEPT, CONTENT_TYPE, DATE, RETRY_AFTER, USER_AGENT};
use hyper::service::service_fn;
use hyper::{Request, Response};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::network::any;
use super::pki::{Authority, Client};
use super::{Peer, Upset, listen};
use crate::error::Result;
use crate::fleet::{Change, Fleet};
use crate::intent;
use crate::kube::api::{self, Reply, Watch};
use crate::kube::object::time;
use crate::kube::route::query;
use crate::kube::status;

/// A watch says that it lives at least this often.
const BOOKMARK_EVERY: Duration = Duration::from_secs(10);
/// A watch that does not say how long it wants to be ends after this time, as a real server ends it at some time.
const LONGEST_WATCH: Duration = Duration::from_secs(1800);
/// Larger bodies are refused; a real server's limit is 3 MiB.
const LARGEST_BODY: usize = 3 << 20;
/// What scenarios call this place.
const PLACE: &str = "kubernetes";

/// Serves the fleet's cluster on a port of its network, to clients of this authority, until the program ends.
pub async fn serve(fleet: &Arc<Fleet>, authority: &Authority, port: u16) -> Result<SocketAddr> {
    let (network, fleet) = (fleet.network().clone(), Arc::clone(fleet));
    let service = service_fn(move |request| answer(Arc::clone(&fleet), request));
    listen(&network, any(port), authority.server(authority, &["h2", "http/1.1"])?, service).await
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
        "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "namespace": "default", "user": "sandbox"}}],
    })
}

type Body = BoxBody<Bytes, Infallible>;

/// An answer says what time it is in the world.
async fn answer(fleet: Arc<Fleet>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let mut response = undated(Arc::clone(&fleet), request).await?;
    if let Ok(date) = fleet.now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string().parse() {
        response.headers_mut().insert(DATE, date);
    }
    Ok(response)
}

async fn undated(fleet: Arc<Fleet>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
    let mut asked = api::Request {
        method: request.method().as_str().to_owned(),
        path: request.uri().path_and_query().map_or_else(String::new, |path| path.as_str().to_owned()),
        content_type: header(CONTENT_TYPE).to_owned(),
        body: Vec::new(),
        user_agent: header(USER_AGENT).to_owned(),
        accept: header(ACCEPT).to_owned(),
    };
    match http_body_util::Limited::new(request.into_body(), LARGEST_BODY).collect().await {
        Ok(body) => asked.body = body.to_bytes().to_vec(),
        Err(_) => return Ok(text(413, "text/plain", "the body is too large".into())),
    }
    Ok(match carried_out(&fleet, &peer, &asked).await {
        Ok(Reply::Json(code, body)) => text(code, "application/json", body.to_string()),
        Ok(Reply::Text(code, body)) => text(code, "text/plain; charset=utf-8", body),
        Ok(Reply::Watch(watch)) => {
            let limit = query(asked.path.split_once('?').map_or("", |(_, query)| query));
            let limit = limit.get("timeoutSeconds").and_then(|seconds| seconds.parse().ok());
            stream_of(fleet, watch, limit.map_or(LONGEST_WATCH, Duration::from_secs))
        }
        Err(Upset::Error { text: message, code, retry_after }) => upset(message, code, retry_after),
        // The connection is gone before this answer is.
        Err(Upset::Cut) => std::future::pending().await,
    })
}

async fn carried_out(fleet: &Fleet, peer: &Peer, asked: &api::Request) -> Result<Reply, Upset> {
    // A server that does not exist takes no calls.
    if !fleet.look().has_api() {
        return Err(peer.cut());
    }
    let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
    let change = (asked.method != "GET").then(|| Change {
        dry: asked.path.contains("dryRun=All"),
        mode: None,
        body: String::from_utf8_lossy(&asked.body).into_owned(),
    });
    let (call, fault) = fleet.admit(PLACE, (&format!("{} {path}", asked.method), query), change).await;
    peer.before(fault.as_ref()).await?;
    let reply = fleet.act(|world, now| {
        if fault.as_ref().is_some_and(|fault| fault.compact) {
            world.api.store.compact();
        }
        world.api.answer(asked, &time(now))
    });
    fleet.acted(&call).await;
    peer.after(fault.as_ref())?;
    Ok(reply)
}

/// A refusal of the server itself; without a code it is a proxy's, which knows no objects.
fn upset(message: String, code: Option<u16>, retry_after: Option<intent::Duration>) -> Response<Body> {
    let mut response = match code {
        None => text(503, "text/plain; charset=utf-8", message),
        Some(code) => text(code, "application/json", status::staged(code, &message).body.to_string()),
    };
    if let Some(after) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, after.0.into());
    }
    response
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
fn stream_of(fleet: Arc<Fleet>, watch: Watch, limit: Duration) -> Response<Body> {
    let seen = fleet.changes();
    let end = Instant::now() + limit;
    let state = Some((fleet, watch, seen));
    let frames = stream::unfold(state, move |state| async move {
        let (fleet, mut watch, mut seen) = state?;
        loop {
            seen.mark_unchanged();
            let (events, over) = fleet.look().api.changes(&mut watch, fleet.now());
            if !events.is_empty() {
                let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
                let frame = Ok(Frame::data(Bytes::from(lines)));
                return Some((frame, (!over).then_some((fleet, watch, seen))));
            }
            tokio::select! {
                biased;
                changed = seen.changed() => changed?,
                () = tokio::time::sleep_until(end) => return None,
                () = tokio::time::sleep(BOOKMARK_EVERY), if watch.bookmarks => {
                    let frame = Ok(Frame::data(Bytes::from(format!("{}\n", watch.bookmark()))));
                    return Some((frame, Some((fleet, watch, seen))));
                }
            }
        }
    });
    let mut response = Response::new(StreamBody::new(frames).boxed());
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    response
}

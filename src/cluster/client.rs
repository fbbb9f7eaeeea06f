//! The HTTP client of the Kubernetes API: any dialler, TLS and credentials as the kubeconfig says, and what is sent again.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{Method, Request, Response, StatusCode, Uri};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::client::{Body, ConfigExt};
use kube::{Client, Config};
use tokio::time::{Instant, Sleep};
use tower::retry::{Policy, RetryLayer};
use tower::{BoxError, ServiceBuilder};

use crate::dial::{AGAIN, AT_ONCE, Dial};

/// How often a call is sent again.
const RETRIES: u32 = 8;
/// Before the first of them; twice as long before each that follows.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// A server that wants to be left alone for longer is not waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A client whose connections are made by `dial`.
///
/// # Errors
/// Credentials that do not fit together.
pub(super) fn client(config: Config, dial: Dial) -> Result<Client, kube::Error> {
    let connector = tower::service_fn(move |uri: Uri| {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
        let dialling = dial(host, port);
        Box::pin(async move { dialling.await.map(TokioIo::new) })
    });
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(connector)?);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .layer(RetryLayer::new(Again::default()))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(legacy::Client::builder(TokioExecutor::new()).build(connector));
    Ok(Client::new(service, config.default_namespace))
}

/// A call that the server did not take is sent again, and one that it may have carried out only where twice is as good
/// as once. Server-side apply is; a create is not.
#[derive(Clone, Default)]
struct Again {
    sent: u32,
    broken: usize,
    /// When it was sent last.
    since: Option<Instant>,
}

impl Again {
    fn wait(&mut self, method: &Method, status: StatusCode, retry_after: Option<u64>) -> Option<Duration> {
        let may = match status {
            StatusCode::TOO_MANY_REQUESTS => true,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => *method != Method::POST,
            _ => false,
        };
        let asked = Duration::from_secs(retry_after.unwrap_or(0));
        if !may || self.sent == RETRIES || asked > LONGEST_WAIT {
            return None;
        }
        let wait = FIRST_WAIT * 2_u32.pow(self.sent);
        self.sent += 1;
        Some(wait.max(asked))
    }

    /// The connection broke, and nobody knows whether the server took the call.
    fn wait_broken(&mut self, method: &Method) -> Option<Duration> {
        let at_once = self.since.is_some_and(|since| since.elapsed() < AT_ONCE);
        let wait =
            AGAIN.get(self.broken).filter(|_| at_once && [Method::GET, Method::PATCH].contains(method));
        self.broken += 1;
        wait.copied()
    }
}

impl<T> Policy<Request<Body>, Response<T>, BoxError> for Again {
    type Future = Sleep;

    fn retry(
        &mut self,
        request: &mut Request<Body>,
        result: &mut Result<Response<T>, BoxError>,
    ) -> Option<Sleep> {
        let Ok(response) = result else {
            return self.wait_broken(request.method()).map(tokio::time::sleep);
        };
        // An eviction is refused for a disruption budget's sake, which whoever drains waits for.
        if request.uri().path().ends_with("/eviction") {
            return None;
        }
        let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        self.wait(request.method(), response.status(), after).map(tokio::time::sleep)
    }

    /// Called each time right before it is sent. None for a body that is streamed.
    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        self.since = Some(Instant::now());
        let mut copy = Request::new(request.body().try_clone()?);
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.version_mut() = request.version();
        copy.headers_mut().clone_from(request.headers());
        copy.extensions_mut().clone_from(request.extensions());
        Some(copy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_may_have_done_is_sent_again_only_where_twice_is_as_good_as_once() {
        let (post, patch, get) = (Method::POST, Method::PATCH, Method::GET);
        for (method, status, again) in [
            (&get, 503, true),
            (&patch, 504, true),
            (&post, 504, false),
            (&post, 503, false),
            (&post, 429, true),
            (&get, 500, false),
            (&get, 200, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap_or_default();
            assert_eq!(Again::default().wait(method, status, None).is_some(), again, "{method} {status}");
        }
    }

    #[test]
    fn it_waits_longer_each_time_as_long_as_the_server_wants_and_not_for_ever() {
        let busy = StatusCode::TOO_MANY_REQUESTS;
        let mut again = Again::default();
        let mut wait = |after| again.wait(&Method::GET, busy, after);
        assert_eq!(wait(None), Some(FIRST_WAIT));
        assert_eq!(wait(None), Some(FIRST_WAIT * 2));
        assert_eq!(wait(Some(7)), Some(Duration::from_secs(7)));
        assert_eq!(wait(Some(3600)), None);
        assert_eq!((0..20).filter_map(|_| wait(None)).count(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_broken_call_that_may_be_made_twice_is_made_again_twice_when_it_broke_at_once() {
        let waits = |method, since: Instant| {
            let mut again = Again { since: Some(since), ..Again::default() };
            (0..3).filter_map(|_| again.wait_broken(&method)).count()
        };
        let now = Instant::now();
        assert_eq!((waits(Method::GET, now), waits(Method::PATCH, now), waits(Method::POST, now)), (2, 2, 0));
        tokio::time::advance(AT_ONCE).await;
        assert_eq!(waits(Method::GET, now), 0);
    }
}

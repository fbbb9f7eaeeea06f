//! The gRPC services of one endpoint, found by the name that a call begins with.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::service::Service;
use hyper::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service as GrpcService;
use tonic::server::NamedService;

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;
type Answers = Arc<dyn Fn(Request<Incoming>) -> Answer + Send + Sync>;

/// Services by their names.
#[derive(Clone, Default)]
pub struct Services(Vec<(&'static str, Answers)>);

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Services {
    /// These and one more.
    pub fn with<S>(mut self, service: S) -> Self
    where
        S: GrpcService<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
        S: NamedService + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        self.0.push((S::NAME, Arc::new(move |call| Box::pin(service.clone().call(call)))));
        self
    }
}

impl Service<Request<Incoming>> for Services {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, call: Request<Incoming>) -> Answer {
        let named = call.uri().path().split('/').nth(1).unwrap_or_default();
        if let Some((_, answers)) = self.0.iter().find(|(name, _)| *name == named) {
            return answers(call);
        }
        let unknown = Status::unimplemented(format!("unknown service {named}"));
        Box::pin(async { Ok(unknown.into_http()) })
    }
}

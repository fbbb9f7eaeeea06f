//! The connection to the machine API, and the calls that read resources and apply configurations; one node per call.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use secrecy::SecretString;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{self, Channel, Uri};
use tonic::{Code, Request, Response, Status};

use super::config::Context;
use super::connect::{self, Connector, Endpoint};
use super::resources::{Item, Resource, Spec};
use super::{MAX_MESSAGE, fault, insecure};
use crate::config_doc;
use crate::dial::{self, AGAIN, AT_ONCE, Dial};
use crate::error::{Error, Kind, Result};
use crate::talos::proto::common::Metadata;
use crate::talos::proto::cosi::resource as cosi;
use crate::talos::proto::cosi::resource::state_client::StateClient;
use crate::talos::proto::machine;
use crate::talos::proto::machine::machine_service_client::MachineServiceClient;

/// The mode a configuration was really applied in.
pub use crate::talos::proto::machine::apply_configuration_request::Mode as AppliedMode;

/// How calls are made.
#[derive(Clone)]
pub struct Options {
    /// For each endpoint, TLS handshake included.
    pub connect_timeout: Duration,
    /// For each call, connecting included; the API has no deadline of its own. A watch only has to begin in time.
    pub deadline: Duration,
    pub dial: Dial,
}

impl Default for Options {
    /// Over TCP, 10 s to connect, 30 s for a call.
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            deadline: Duration::from_secs(30),
            dial: dial::tcp(),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("connect_timeout", &self.connect_timeout)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// A connection to a cluster's machine API; cheap to clone.
#[derive(Clone)]
pub struct Client {
    pub(super) channel: Channel,
    endpoints: Arc<[Endpoint]>,
    options: Options,
    expires: Option<Timestamp>,
    shown: insecure::Shown,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

impl Client {
    /// Prepares a connection to the first of `endpoints` that answers; it is made by the first call and made again
    /// when lost. Must be called inside a Tokio runtime.
    ///
    /// # Errors
    /// `Kind::Invalid`: no or malformed endpoints, or credentials that do not fit together.
    pub fn connect(context: &Context, endpoints: &[String], options: &Options) -> Result<Self> {
        let endpoints: Arc<[Endpoint]> =
            endpoints.iter().map(|text| Endpoint::parse(text)).collect::<Result<_>>()?;
        let first = endpoints.first().ok_or_else(|| {
            Error::invalid(format!("{}: context {:?} has no endpoints", context.file.display(), context.name))
                .hint("add them with `talosctl config endpoint ADDRESS...`")
        })?;
        let first = first.clone();
        let shown = insecure::Shown::default();
        Self::over(endpoints, &first, connect::tls(context)?, options, Some(context.expires), shown)
    }

    /// A connection to one machine that shows no credentials and does not ask for the machine's: what a machine in
    /// maintenance mode answers. Whoever is between may have made up what it says; with `pin`, only a machine with the
    /// key of this fingerprint is spoken to.
    pub fn insecure(&self, address: &str, pin: Option<&str>) -> Result<Self> {
        let endpoint = Endpoint { host: address.into(), port: super::PORT };
        let shown = insecure::Shown::default();
        let tls = insecure::tls(pin.map(str::to_owned), Arc::clone(&shown))?;
        Self::over(Arc::from([endpoint.clone()]), &endpoint, tls, &self.options, None, shown)
    }

    /// The fingerprint of the key that the machine showed, as its console prints it, once it was spoken to without
    /// credentials.
    pub fn fingerprint(&self) -> Option<String> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn over(
        endpoints: Arc<[Endpoint]>,
        first: &Endpoint,
        tls: TlsConnector,
        options: &Options,
        expires: Option<Timestamp>,
        shown: insecure::Shown,
    ) -> Result<Self> {
        let connector = Connector {
            endpoints: endpoints.clone(),
            tls,
            dial: options.dial.clone(),
            timeout: options.connect_timeout,
        };
        let connector = tower::service_fn(move |_: Uri| {
            let connecting = connector.clone().connect();
            async move { connecting.await.map(TokioIo::new) }
        });
        // The windows talosctl uses (siderolabs/talos, pkg/machinery/client/connection.go).
        let channel = transport::Endpoint::from_shared(format!("https://{first}"))
            .map_err(|error| Error::invalid(format!("endpoint {first}: {error}")))?
            .initial_stream_window_size(65_535 * 16)
            .initial_connection_window_size(65_535 * 32)
            .connect_with_connector_lazy(connector);
        Ok(Self { channel, endpoints, options: options.clone(), expires, shown })
    }

    /// How its machines are reached.
    pub fn dial(&self) -> &Dial {
        &self.options.dial
    }

    /// When the client certificate of the connection expires, if it has one.
    pub fn expires(&self) -> Option<Timestamp> {
        self.expires
    }

    /// The node whose calls these are: its bare address or hostname, without a port.
    pub fn node(&self, address: &str) -> Result<Node> {
        let wrong =
            || Error::invalid(format!("{address:?} is not a node: a bare address or hostname is needed"));
        let key = MetadataValue::try_from(address).map_err(|_| wrong())?;
        if address.is_empty() {
            return Err(wrong());
        }
        Ok(Node {
            client: self.clone(),
            address: address.into(),
            place: fault::place(address, &self.endpoints),
            key,
        })
    }
}

/// One machine. Every call names it in the metadata, and the endpoint passes the call on; a machine in maintenance
/// mode is its own endpoint, and is not named.
#[derive(Debug, Clone)]
pub struct Node {
    pub(super) client: Client,
    address: String,
    place: String,
    key: MetadataValue<Ascii>,
}

/// How a configuration is applied. The API's default, which reboots, cannot be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// At once; Talos before 1.14 reboots when it must.
    Auto,
    /// At once, refused (before 1.14) when that would need a reboot.
    NoReboot,
    /// At the next boot.
    Staged,
    /// At once, taken back after the timeout.
    Try,
}

/// What became of a configuration that was applied.
pub struct Applied {
    pub mode: AppliedMode,
    /// Text for people; after a dry run the difference, which holds secrets.
    pub details: SecretString,
    pub warnings: Vec<String>,
}

impl fmt::Debug for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Applied")
            .field("mode", &self.mode)
            .field("warnings", &self.warnings)
            .finish_non_exhaustive()
    }
}

/// What a watch tells. The contents at its start come as `Created`, then `Bootstrapped` once.
#[derive(Debug, Clone)]
pub enum Event {
    Created(Resource),
    Updated(Resource),
    Destroyed(Resource),
    Bootstrapped,
}

impl Node {
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Applies a whole configuration (never a patch). `try_timeout` is for [`Mode::Try`]; without it Talos takes one
    /// minute.
    ///
    /// # Errors
    /// `Kind::Invalid` with the node's own words when it refuses the configuration, `Kind::Unavailable` while another
    /// apply is going on.
    pub async fn apply(
        &self,
        config: &[u8],
        mode: Mode,
        dry_run: bool,
        try_timeout: Option<Duration>,
    ) -> Result<Applied> {
        let mode = match mode {
            Mode::Auto => AppliedMode::Auto,
            Mode::NoReboot => AppliedMode::NoReboot,
            Mode::Staged => AppliedMode::Staged,
            Mode::Try => AppliedMode::Try,
        };
        let try_mode_timeout = try_timeout.map(prost_types::Duration::try_from).transpose();
        let try_mode_timeout = try_mode_timeout.map_err(|_| Error::invalid("the try timeout is too long"))?;
        let message = machine::ApplyConfigurationRequest {
            data: config.to_vec(),
            mode: mode.into(),
            dry_run,
            try_mode_timeout,
        };
        let mut client = self.machine();
        let call = async move {
            let reply = client.apply_configuration(self.request(message)).await;
            reply.map_err(|status| fault::of_config(status, config))
        };
        let reply = self.unary(call).await?;
        let quoted = |text: String| config_doc::answer_to(&String::from_utf8_lossy(config), &text);
        let applied = self.only(reply.messages, |message| message.metadata.as_ref());
        let applied = applied.map_err(|error| Error { what: quoted(error.what), ..error })?;
        let mode = applied.mode();
        let warnings = applied.warnings.into_iter().map(quoted).collect();
        Ok(Applied { mode, details: applied.mode_details.into(), warnings })
    }

    /// One resource, or none when there is none of this id.
    pub async fn get(&self, namespace: &str, kind: &str, id: &str) -> Result<Option<Resource>> {
        let message = cosi::GetRequest {
            namespace: namespace.into(),
            r#type: kind.into(),
            id: id.into(),
            options: Some(cosi::GetOptions {}),
        };
        let reply = self.reading(|| {
            let (mut client, request) = (self.state(), self.request(message.clone()));
            async move {
                match client.get(request).await {
                    Err(status) if status.code() == Code::NotFound && status_is_theirs(&status) => Ok(None),
                    other => other.map(|reply| Some(reply.into_inner())),
                }
                .map(Response::new)
            }
        });
        Ok(reply.await?.and_then(|reply| reply.resource).map(Resource::from))
    }

    /// All resources of a type, in no particular order. An unknown type answers as if the role were too low.
    pub async fn list(&self, namespace: &str, kind: &str) -> Result<Vec<Resource>> {
        let message = cosi::ListRequest {
            namespace: namespace.into(),
            r#type: kind.into(),
            options: Some(cosi::ListOptions::default()),
        };
        let listed = self.reading(|| {
            let (mut client, request) = (self.state(), self.request(message.clone()));
            async move {
                let mut replies = client.list(request).await?.into_inner();
                let mut resources = Vec::new();
                while let Some(reply) = replies.message().await? {
                    resources.extend(reply.resource.map(Resource::from));
                }
                Ok(Response::new(resources))
            }
        });
        listed.await
    }

    /// The one resource of a typed kind, decoded.
    pub async fn spec<T: Spec>(&self, id: &str) -> Result<Option<Item<T>>> {
        let found = self.get(T::NAMESPACE, T::TYPE, id).await?;
        found.map(|resource| resource.decode()).transpose().map_err(|error| error.at(&self.place))
    }

    /// All resources of a typed kind, decoded, ordered by id.
    pub async fn specs<T: Spec>(&self) -> Result<Vec<Item<T>>> {
        let found = self.list(T::NAMESPACE, T::TYPE).await?;
        let items: Result<Vec<Item<T>>> = found.iter().map(Resource::decode).collect();
        let mut items = items.map_err(|error| error.at(&self.place))?;
        items.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(items)
    }

    /// Watches one resource, or all of a type: first what exists, then every change. The stream ends when the node
    /// ends it, and an error is its last item.
    pub async fn watch(
        &self,
        namespace: &str,
        kind: &str,
        id: Option<&str>,
    ) -> Result<impl Stream<Item = Result<Event>> + Send + use<>> {
        let options = cosi::WatchOptions { bootstrap_contents: id.is_none(), ..Default::default() };
        let message = cosi::WatchRequest {
            namespace: namespace.into(),
            r#type: kind.into(),
            id: id.map(str::to_owned),
            options: Some(options),
            api_version: 1,
        };
        let mut client = self.state();
        let request = self.request(message);
        let replies = self.unary(async move { client.watch(request).await }).await?;
        let node = self.clone();
        let replies = stream::unfold(Some(replies), move |replies| {
            let node = node.clone();
            async move {
                let mut replies = replies?;
                match replies.message().await {
                    Ok(Some(reply)) => Some((node.events(reply), Some(replies))),
                    Ok(None) => None,
                    Err(status) => Some((vec![Err(node.fault(&status))], None)),
                }
            }
        });
        Ok(replies.flat_map(stream::iter))
    }

    fn events(&self, reply: cosi::WatchResponse) -> Vec<Result<Event>> {
        let read = |event: cosi::Event| {
            let kind = event.event_type();
            let resource = event.resource.map(Resource::from);
            match (kind, resource) {
                (cosi::EventType::Created, Some(resource)) => Some(Ok(Event::Created(resource))),
                (cosi::EventType::Updated, Some(resource)) => Some(Ok(Event::Updated(resource))),
                (cosi::EventType::Destroyed, Some(resource)) => Some(Ok(Event::Destroyed(resource))),
                (cosi::EventType::Bootstrapped, _) => Some(Ok(Event::Bootstrapped)),
                (cosi::EventType::Errored, _) => {
                    let said = fault::said(&event.error);
                    Some(Err(Error::failed(format!("the watch failed: {said}")).at(&self.place)))
                }
                _ => None,
            }
        };
        reply.event.into_iter().filter_map(read).collect()
    }

    pub(super) fn machine(&self) -> MachineServiceClient<Channel> {
        MachineServiceClient::new(self.client.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    fn state(&self) -> StateClient<Channel> {
        StateClient::new(self.client.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if self.client.expires.is_some() {
            request.metadata_mut().insert("node", self.key.clone());
        }
        request
    }

    /// A call that only reads: one that fails at once, as those of an API that flaps do, is made again.
    pub(super) async fn reading<T, F>(&self, call: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        for wait in AGAIN {
            let began = Instant::now();
            match self.unary(call()).await {
                Err(error) if error.kind == Kind::Unavailable && began.elapsed() < AT_ONCE => {
                    tokio::time::sleep(wait).await;
                }
                other => return other,
            }
        }
        self.unary(call()).await
    }

    /// Awaits a call within the deadline and judges its failure.
    pub(super) async fn unary<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T> {
        self.within(self.client.options.deadline, call).await
    }

    pub(super) async fn within<T>(
        &self,
        deadline: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T> {
        match tokio::time::timeout(deadline, call).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) => Err(self.fault(&status)),
            Err(_) => Err(fault::too_late(&self.place, deadline.as_secs_f64())),
        }
    }

    pub(super) fn fault(&self, status: &Status) -> Error {
        fault::from_status(status, &self.place)
    }

    /// The one message of an envelope, unless it only says why there is none.
    pub(super) fn only<T>(&self, messages: Vec<T>, metadata: impl Fn(&T) -> Option<&Metadata>) -> Result<T> {
        let message = messages.into_iter().next();
        let message = message.ok_or_else(|| Error::failed("an empty answer").at(&self.place))?;
        match metadata(&message).filter(|metadata| !metadata.error.is_empty()) {
            Some(metadata) => Err(fault::enclosed(&metadata.error).at(&self.place)),
            None => Ok(message),
        }
    }
}

/// Whether the other side sent the status, rather than this side making it out of a broken connection.
pub(super) fn status_is_theirs(status: &Status) -> bool {
    std::error::Error::source(status).is_none()
}

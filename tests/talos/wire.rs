use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use nodeprep::dial::Io;
use nodeprep::error::{Error, Kind};
use nodeprep::talos::client::{AppliedMode, Event, Mode, Options};
use nodeprep::talos::{Client, Node};
use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tonic::Code;

use super::pki::{self, Ca, context, talosconfig};
use super::server::{Machine, Server};

/// Short enough for a test, long enough for a busy machine.
fn options() -> Options {
    Options {
        connect_timeout: Duration::from_secs(20),
        deadline: Duration::from_secs(60),
        ..Options::default()
    }
}

fn connect(context: &nodeprep::talos::Context, address: SocketAddr) -> Node {
    Client::connect(context, &[address.to_string()], &options()).unwrap().node("10.0.0.7").unwrap()
}

/// A machine and a node handle to it, with everything as it should be.
async fn healthy(machine: Machine) -> Node {
    let ca = Ca::new();
    let address = Server::new(machine, &ca, &ca).listen().await;
    connect(&context(&ca, &ca), address)
}

fn assert_error(error: &Error, kind: Kind, what: &[&str], hint: &str) {
    assert_eq!(error.kind, kind, "{error}");
    for part in what {
        assert!(error.what.contains(part), "{part:?} is not in: {error}");
    }
    let found = error.hint.as_deref().unwrap_or_default();
    assert!(found.contains(hint), "{hint:?} is not in the hint: {found}");
}

#[tokio::test]
async fn calls_work_over_mutual_tls_with_talos_own_key_label_and_name_the_node() {
    let machine = Machine::talos("v1.11.5").with("Disks.block.talos.dev", &[("sda", "size: 1")]);
    let asked = machine.asked.clone();
    let node = healthy(machine).await;
    assert_eq!(node.version().await.unwrap().version.unwrap().tag, "v1.11.5");
    assert_eq!(node.list("runtime", "Disks.block.talos.dev").await.unwrap().len(), 1);
    let found = node.get("runtime", "Disks.block.talos.dev", "sda").await.unwrap().unwrap();
    assert_eq!((found.id.as_str(), found.version.as_str(), found.yaml.as_str()), ("sda", "7", "size: 1"));
    assert_eq!(node.get("runtime", "Disks.block.talos.dev", "sdb").await.unwrap(), None);
    assert_eq!(*asked.lock().unwrap(), ["10.0.0.7"; 4]);
}

#[tokio::test]
async fn messages_of_five_mebibytes_are_read() {
    let yaml = format!("pretty_size: {}", "x".repeat(5 << 20));
    let node = healthy(Machine::default().with("Disks.block.talos.dev", &[("sda", &yaml)])).await;
    let found = node.list("runtime", "Disks.block.talos.dev").await.unwrap();
    assert_eq!(found[0].yaml.len(), yaml.len());
}

#[tokio::test]
async fn applying_passes_on_every_argument_and_never_asks_for_a_reboot() {
    let node = healthy(Machine::default()).await;
    let table = [
        (Mode::Auto, AppliedMode::Auto, None, "3 bytes, dry run true, 0 s"),
        (Mode::NoReboot, AppliedMode::NoReboot, None, "3 bytes, dry run true, 0 s"),
        (Mode::Staged, AppliedMode::Staged, None, "3 bytes, dry run true, 0 s"),
        (Mode::Try, AppliedMode::Try, Some(Duration::from_secs(90)), "3 bytes, dry run true, 90 s"),
    ];
    for (mode, expected, timeout, details) in table {
        let applied = node.apply(b"abc", mode, true, timeout).await.unwrap();
        assert_eq!((applied.mode, applied.details.expose_secret()), (expected, details));
        assert_eq!(applied.warnings, ["something is old"]);
        assert!(!format!("{applied:?}").contains("bytes"), "the difference can hold secrets");
    }
}

#[tokio::test]
async fn each_refusal_has_its_kind_and_hint() {
    let table = [
        (
            Code::InvalidArgument,
            "unknown keys found",
            Kind::Invalid,
            "the node refuses: unknown keys found",
            "",
        ),
        (Code::PermissionDenied, "not authorized", Kind::Invalid, "not permitted", "os:admin"),
        (
            Code::PermissionDenied,
            "no request forwarding",
            Kind::Invalid,
            "no request forwarding",
            "control-plane",
        ),
        (Code::Unauthenticated, "who", Kind::Invalid, "not authenticated", "another cluster"),
        (
            Code::FailedPrecondition,
            "another apply configuration is already in progress",
            Kind::Unavailable,
            "already in progress",
            "someone else",
        ),
        (
            Code::FailedPrecondition,
            "not in a container",
            Kind::Failed,
            "FailedPrecondition: not in a container",
            "",
        ),
        (Code::Unavailable, "error dialing", Kind::Unavailable, "error dialing", "50000"),
        (Code::Unimplemented, "mode", Kind::Failed, "not implemented", "too old or too new"),
        (Code::Internal, "oops", Kind::Failed, "Internal: oops", ""),
    ];
    for (code, text, kind, what, hint) in table {
        let node = healthy(Machine { refuses: Some((code, text.into())), ..Machine::default() }).await;
        let error = node.apply(b"", Mode::Auto, false, None).await.unwrap_err();
        assert_error(&error, kind, &["node 10.0.0.7 (through 127.0.0.1:", what], hint);
    }
}

#[tokio::test]
async fn an_unknown_type_and_an_error_in_the_envelope_are_errors() {
    let mut machine = Machine::talos("v1.11.5");
    machine.version.2 = "the node is on fire".into();
    let node = healthy(machine).await;
    let error = node.list("runtime", "Unicorns.talos.dev").await.unwrap_err();
    assert_error(&error, Kind::Invalid, &["not permitted"], "too old to know");
    assert_error(&node.version().await.unwrap_err(), Kind::Failed, &["10.0.0.7", "on fire"], "");
}

#[tokio::test]
async fn a_watch_tells_the_contents_the_changes_and_why_it_ends() {
    let node = healthy(Machine::default()).await;
    let watch = node.watch("runtime", "Disks.block.talos.dev", None).await.unwrap();
    let seen: Vec<String> = watch
        .map(|event| match event {
            Ok(Event::Created(resource)) => format!("created {}", resource.id),
            Ok(Event::Updated(resource)) => format!("updated {}", resource.id),
            Ok(Event::Destroyed(resource)) => format!("destroyed {}", resource.id),
            Ok(Event::Bootstrapped) => "bootstrapped".into(),
            Err(error) => format!("{:?}", error.kind),
        })
        .collect()
        .await;
    assert_eq!(seen, ["created a", "bootstrapped", "updated a", "destroyed a", "Failed", "Unavailable"]);
    let one = node.watch("runtime", "Disks.block.talos.dev", Some("a")).await.unwrap();
    assert_eq!(one.count().await, 6);
}

#[tokio::test]
async fn a_server_of_another_ca_is_told_apart() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let address = Server::new(Machine::default(), &theirs, &ours).listen().await;
    let error = connect(&context(&ours, &ours), address).version().await.unwrap_err();
    assert_error(&error, Kind::Invalid, &["node 10.0.0.7", "not from the CA"], "maintenance mode");
}

#[tokio::test]
async fn a_client_certificate_of_another_ca_is_told_apart() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let address = Server::new(Machine::default(), &ours, &theirs).listen().await;
    let error = connect(&context(&ours, &ours), address).version().await.unwrap_err();
    assert_error(
        &error,
        Kind::Invalid,
        &["node 10.0.0.7", "refuses the client certificate"],
        "another cluster",
    );
}

#[tokio::test]
async fn a_client_certificate_that_expired_meanwhile_is_told_apart() {
    let ca = Ca::new();
    let address = Server::new(Machine::default(), &ca, &ca).listen().await;
    let then = "2021-01-01T00:00:00Z".parse().unwrap();
    let context = pki::parse(&talosconfig(&ca.pem, &ca.client((2022, 1, 1))), then).unwrap();
    let error = connect(&context, address).version().await.unwrap_err();
    assert_error(&error, Kind::Invalid, &["refuses the client certificate as expired"], "renew");
}

#[tokio::test]
async fn nobody_there_and_somebody_silent_are_unavailable() {
    let ca = Ca::new();
    let context = context(&ca, &ca);
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = connect(&context, closed).version().await.unwrap_err();
    assert_error(&error, Kind::Unavailable, &["node 10.0.0.7", &closed.to_string(), "refused"], "50000");

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let options = Options { connect_timeout: Duration::from_millis(50), ..options() };
    let node = Client::connect(&context, &[address], &options).unwrap().node("10.0.0.7").unwrap();
    assert_error(
        &node.version().await.unwrap_err(),
        Kind::Unavailable,
        &["no connection within 50ms"],
        "50000",
    );
}

#[tokio::test]
async fn something_else_on_the_port_is_not_taken_for_a_dead_machine() {
    let ca = Ca::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"SSH-2.0-OpenSSH_9.9\r\n").await;
        }
    });
    let error = connect(&context(&ca, &ca), address).version().await.unwrap_err();
    assert_error(&error, Kind::Invalid, &["the TLS handshake failed"], "usually port 50000");
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_unavailable() {
    let ca = Ca::new();
    let machine = Machine { delay: Duration::from_secs(3600), ..Machine::default() };
    let address = Server::new(machine, &ca, &ca).listen().await.to_string();
    let options = Options { deadline: Duration::from_millis(300), ..options() };
    let node = Client::connect(&context(&ca, &ca), &[address], &options).unwrap().node("10.0.0.7").unwrap();
    assert_error(&node.version().await.unwrap_err(), Kind::Unavailable, &["no answer within 0.3 s"], "50000");
}

#[tokio::test]
async fn the_second_endpoint_is_taken_when_the_first_is_dead() {
    let ca = Ca::new();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let alive = Server::new(Machine::talos("v1.11.5"), &ca, &ca).listen().await;
    let endpoints = [closed.to_string(), alive.to_string()];
    let node = Client::connect(&context(&ca, &ca), &endpoints, &options()).unwrap().node("10.0.0.7").unwrap();
    assert!(node.version().await.is_ok());
}

#[tokio::test]
async fn the_same_tls_runs_over_an_in_memory_duplex() {
    let ca = Ca::new();
    let server = Arc::new(Server::new(Machine::talos("v1.11.5"), &ca, &ca));
    let dial = move |_: String, _: u16| -> BoxFuture<'static, std::io::Result<Box<dyn Io>>> {
        let (near, far) = tokio::io::duplex(1 << 16);
        server.accept(far);
        Box::pin(async move { Ok(Box::new(near) as Box<dyn Io>) })
    };
    let options = Options { dial: Arc::new(dial), ..options() };
    let client = Client::connect(&context(&ca, &ca), &["127.0.0.1".into()], &options).unwrap();
    assert!(client.node("127.0.0.1").unwrap().version().await.is_ok());
}

#[tokio::test]
async fn addresses_that_cannot_be_are_refused_before_any_call() {
    let ca = Ca::new();
    let context = context(&ca, &ca);
    for endpoint in ["", "a b", "host:port", "[::1", "host:70000", "a:1:b"] {
        let error = Client::connect(&context, &[endpoint.into()], &options()).unwrap_err();
        assert_error(&error, Kind::Invalid, &["is not an endpoint"], "");
    }
    assert_error(
        &Client::connect(&context, &[], &options()).unwrap_err(),
        Kind::Invalid,
        &["no endpoints"],
        "endpoint",
    );
    let client =
        Client::connect(&context, &["[::1]:50000".into(), "::1".into(), "cp.lab".into()], &options())
            .unwrap();
    for node in ["", "a\nb"] {
        assert_error(&client.node(node).unwrap_err(), Kind::Invalid, &["is not a node"], "");
    }
}

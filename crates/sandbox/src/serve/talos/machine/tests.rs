#![expect(clippy::unwrap_used)]

use futures::StreamExt;
use tonic::Code;

use super::*;
use crate::fleet::Fleet;
use crate::scenario::Scenario;
use crate::serve::Peer;
use crate::serve::network::Network;
use crate::serve::talos::ADMIN;

const CONFIG: &str = "version: v1alpha1\nmachine:\n  type: KIND\n  ca: {crt: c2lt}\n  install: {disk: /dev/sda}\n\
                      cluster: {}\n";

/// Two control planes and a worker that were given their first configurations.
async fn bare() -> Api {
    let text = "machines: [{role: controlplane, maintenance: true}, {role: controlplane, maintenance: true}, \
                {maintenance: true}]";
    let world = World::new(&Scenario::parse("scenario", text).unwrap(), Timestamp::UNIX_EPOCH);
    let fleet = Fleet::new(world, Timestamp::UNIX_EPOCH, Network::memory());
    for (address, kind) in
        [("10.5.0.2", "controlplane"), ("10.5.0.3", "controlplane"), ("10.5.0.4", "worker")]
    {
        let data = CONFIG.replace("KIND", kind).into_bytes();
        let asked = wire::ApplyConfigurationRequest { data, mode: 1, ..Default::default() };
        fleet.act(|world, now| apply(world, now, address, &asked)).unwrap();
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    Api { fleet, maintained: None }
}

fn asked<T>(node: &str, role: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("node", node.parse().unwrap());
    request.extensions_mut().insert(Peer { organization: role.into(), ..Peer::default() });
    request
}

async fn bootstrap(api: &Api, node: &str) -> Result<(), (Code, String)> {
    let reply = api.bootstrap(asked(node, ADMIN, wire::BootstrapRequest::default())).await;
    reply.map(|_| ()).map_err(|status| (status.code(), status.message().to_owned()))
}

/// The hostnames of etcd's members as this machine tells of them.
async fn members(api: &Api, node: &str) -> Result<Vec<String>, Code> {
    let request = asked(node, "os:reader", wire::EtcdMemberListRequest::default());
    let reply = api.etcd_member_list(request).await.map_err(|status| status.code())?;
    let members = reply.into_inner().messages.remove(0).members;
    Ok(members.into_iter().map(|member| member.hostname).collect())
}

/// How the machine's etcd is, by its list of services.
async fn etcd(api: &Api, node: &str) -> String {
    let reply = api.service_list(asked(node, "os:reader", ())).await.unwrap();
    let services = reply.into_inner().messages.remove(0).services;
    services.into_iter().find(|service| service.id == "etcd").unwrap().state
}

/// The names of what is in etcd's folder, counted from it.
async fn data(api: &Api, node: &str) -> Result<Vec<String>, Code> {
    let request = wire::ListRequest { root: "/var/lib/etcd".into(), ..Default::default() };
    let listed = api.list(asked(node, "os:reader", request)).await.map_err(|status| status.code())?;
    let infos: Vec<_> = listed.into_inner().collect().await;
    Ok(infos.into_iter().map(|info| info.unwrap().relative_name).collect())
}

#[tokio::test(start_paused = true)]
async fn etcd_waits_for_the_one_bootstrap_and_then_the_others_join() {
    let api = bare().await;
    for node in ["10.5.0.2", "10.5.0.3"] {
        assert_eq!(members(&api, node).await, Err(Code::Unavailable));
        assert_eq!(
            (etcd(&api, node).await, data(&api, node).await),
            ("Preparing".into(), Ok(vec![".".into()]))
        );
    }
    api.fleet.calls();
    bootstrap(&api, "10.5.0.2").await.unwrap();
    let call = api.fleet.calls().remove(0);
    assert_eq!((call.call.as_str(), call.change.map(|change| change.dry)), ("Bootstrap", Some(false)));
    let not_yet = (Code::FailedPrecondition, "bootstrap is not available yet".into());
    assert_eq!(bootstrap(&api, "10.5.0.2").await, Err(not_yet));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(members(&api, "10.5.0.2").await.unwrap(), ["talos-1"]);
    assert_eq!(etcd(&api, "10.5.0.2").await, "Running");
    assert_eq!(data(&api, "10.5.0.2").await.unwrap(), [".", "member"]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    for node in ["10.5.0.2", "10.5.0.3"] {
        assert_eq!(members(&api, node).await.unwrap(), ["talos-1", "talos-2"]);
        let exists = (Code::AlreadyExists, "etcd data directory is not empty".into());
        assert_eq!(bootstrap(&api, node).await, Err(exists));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_keeps_two_control_planes_from_each_beginning_an_etcd() {
    let api = bare().await;
    bootstrap(&api, "10.5.0.2").await.unwrap();
    bootstrap(&api, "10.5.0.3").await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(["10.5.0.2", "10.5.0.3"].iter().all(|node| api.fleet.look().machines[*node].etcd_data));
}

#[tokio::test(start_paused = true)]
async fn only_an_administrator_bootstraps_and_only_a_control_plane_without_a_snapshot() {
    let api = bare().await;
    let worker = "bootstrap can only be performed on a control plane node".to_owned();
    assert_eq!(bootstrap(&api, "10.5.0.4").await, Err((Code::FailedPrecondition, worker)));
    let recover = wire::BootstrapRequest { recover_etcd: true, ..Default::default() };
    for (request, code) in [
        (asked("10.5.0.2", "os:operator", wire::BootstrapRequest::default()), Code::PermissionDenied),
        (asked("10.5.0.2", ADMIN, recover), Code::Unimplemented),
    ] {
        assert_eq!(api.bootstrap(request).await.unwrap_err().code(), code);
    }
    assert!(api.fleet.look().machines.values().all(|machine| !machine.bootstrapping));
    assert_eq!(data(&api, "10.5.0.4").await, Err(Code::Unknown), "a worker has no such folder");
}

#[tokio::test(start_paused = true)]
async fn an_administrator_gets_the_kubeconfig_of_a_control_plane_before_there_is_an_api_server() {
    let api = bare().await;
    let kubeconfig = |node: &'static str, role: &'static str| {
        let api = api.clone();
        async move {
            let reply = api.kubeconfig(asked(node, role, ())).await.map_err(|status| status.code())?;
            let chunks: Vec<_> = reply.into_inner().collect().await;
            Ok(chunks.into_iter().flat_map(|chunk| chunk.unwrap().bytes).collect::<Vec<u8>>())
        }
    };
    assert_eq!(kubeconfig("10.5.0.2", ADMIN).await, Err(Code::Unavailable), "nothing is served");
    api.fleet.set_kubeconfig("apiVersion: v1\n".into());
    assert_eq!(kubeconfig("10.5.0.2", "os:reader").await, Err(Code::PermissionDenied));
    assert_eq!(kubeconfig("10.5.0.4", ADMIN).await, Err(Code::Unimplemented));
    let expected = files::archive("kubeconfig", "apiVersion: v1\n").unwrap();
    assert_eq!(kubeconfig("10.5.0.2", ADMIN).await, Ok(expected));
    assert!(!api.fleet.look().has_api());
}

//! What the checks need to be allowed to do, asked for before anything is made: what is missing is named all at once.

use futures::stream::{self, StreamExt};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;

use super::Stop;
use crate::cluster::Cluster;
use crate::error::Error;

/// A resource, with its group where it has one, and what is done with it.
struct Right {
    resource: &'static str,
    group: &'static str,
    /// In the run's namespace; else in the whole cluster.
    namespaced: bool,
    verbs: &'static [&'static str],
}

const fn right(
    resource: &'static str,
    group: &'static str,
    namespaced: bool,
    verbs: &'static [&'static str],
) -> Right {
    Right { resource, group, namespaced, verbs }
}

const RIGHTS: &[Right] = &[
    right("namespaces", "", false, &["create", "get", "delete"]),
    right("nodes", "", false, &["get", "list"]),
    right("persistentvolumes", "", false, &["get", "list", "patch"]),
    right("serviceaccounts", "", true, &["get"]),
    right("persistentvolumeclaims", "", true, &["create", "get", "list", "delete"]),
    right("pods", "", true, &["create", "get", "list", "delete"]),
    right("pods/log", "", true, &["get"]),
    right("events", "", true, &["list"]),
    right("jobs", "batch", true, &["create", "list", "delete"]),
];

/// How many questions are asked at the same time.
const AT_ONCE: usize = 8;

/// # Errors
/// `Kind::Invalid` with everything that is not allowed. An API server that does not tell refuses later.
pub(super) async fn ask(cluster: &Cluster, namespace: &str) -> Result<(), Stop> {
    let all = RIGHTS.iter().flat_map(|right| right.verbs.iter().map(move |verb| (right, *verb)));
    let asked = stream::iter(all).map(|(right, verb)| async move {
        let allowed = is_allowed(cluster, right, verb, namespace).await;
        (!allowed).then_some((right, verb))
    });
    let missing: Vec<(&Right, &str)> = asked.buffered(AT_ONCE).filter_map(std::future::ready).collect().await;
    if missing.is_empty() {
        return Ok(());
    }
    let what: Vec<String> = missing.iter().map(|(right, verb)| said(right, verb)).collect();
    Err(Error::invalid(format!("{}: not allowed to {}", cluster.name(), what.join(", ")))
        .hint("nothing was made. The rules that the checks need are those of a ClusterRole: bind one to this user, or name another --context")
        .into())
}

fn said(right: &Right, verb: &str) -> String {
    let dot = if right.group.is_empty() { "" } else { "." };
    let place =
        if right.namespaced { "in the namespace of the test objects" } else { "in the whole cluster" };
    format!("{verb} {}{dot}{} {place}", right.resource, right.group)
}

async fn is_allowed(cluster: &Cluster, right: &Right, verb: &str, namespace: &str) -> bool {
    let (resource, subresource) = match right.resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (right.resource, None),
    };
    let attributes = ResourceAttributes {
        group: Some(right.group.to_owned()),
        resource: Some(resource.to_owned()),
        subresource,
        verb: Some(verb.to_owned()),
        namespace: right.namespaced.then(|| namespace.to_owned()),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let answer = Api::all(cluster.client()).create(&PostParams::default(), &review).await;
    answer.ok().and_then(|answer| answer.status).is_none_or(|status| status.allowed)
}

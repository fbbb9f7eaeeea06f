//! What a request's path and query ask for.

use std::collections::BTreeMap;

/// A path of the API, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    Version,
    /// `/readyz` and the like.
    Health,
    /// `/api`: the versions of the core group.
    Core,
    Groups,
    Group(String),
    /// The resources of a version, such as `v1` or `apps/v1`.
    Resources(String),
    Resource(Target),
    /// Below `/openapi/v3`.
    OpenApi(String),
    Other,
}

/// A collection, an object or a part of one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    pub api_version: String,
    pub plural: String,
    /// Empty for what belongs to the whole cluster, and for all namespaces.
    pub namespace: String,
    pub name: Option<String>,
    /// Such as `status` or `log`; empty for the object itself.
    pub subresource: String,
}

impl Target {
    pub fn group(&self) -> &str {
        group_of(&self.api_version)
    }

    /// As rules of access name it, such as `pods/log`.
    pub fn resource(&self) -> String {
        let slash = if self.subresource.is_empty() { "" } else { "/" };
        format!("{}{slash}{}", self.plural, self.subresource)
    }

    /// Without its group, such as `v1`.
    pub fn version(&self) -> &str {
        self.api_version.rsplit('/').next().unwrap_or_default()
    }
}

/// The group of an apiVersion; empty for the core group.
pub fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// The path of a collection; the namespace is empty for what belongs to the whole cluster.
pub fn collection(api_version: &str, namespace: &str, plural: &str) -> String {
    let root = if api_version.contains('/') { "apis" } else { "api" };
    let within = if namespace.is_empty() { String::new() } else { format!("namespaces/{namespace}/") };
    format!("/{root}/{api_version}/{within}{plural}")
}

pub fn route(path: &str) -> Route {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        ["version"] => Route::Version,
        ["readyz" | "livez" | "healthz"] => Route::Health,
        ["openapi", "v3", rest @ ..] => Route::OpenApi(rest.join("/")),
        ["api"] => Route::Core,
        ["apis"] => Route::Groups,
        ["apis", group] => Route::Group((*group).to_owned()),
        ["api", version] => Route::Resources((*version).to_owned()),
        ["apis", group, version] => Route::Resources(format!("{group}/{version}")),
        ["api", version, rest @ ..] => target((*version).to_owned(), rest),
        ["apis", group, version, rest @ ..] => target(format!("{group}/{version}"), rest),
        _ => Route::Other,
    }
}

fn target(api_version: String, rest: &[&str]) -> Route {
    let text = |part: &&str| (*part).to_owned();
    let target = Target { api_version, ..Target::default() };
    let target = match rest {
        // A namespace itself, and its parts.
        ["namespaces", name] => Target { plural: "namespaces".into(), name: Some(text(name)), ..target },
        ["namespaces", name, part @ ("status" | "finalize")] => {
            Target { plural: "namespaces".into(), name: Some(text(name)), subresource: text(part), ..target }
        }
        ["namespaces", namespace, plural] => {
            Target { plural: text(plural), namespace: text(namespace), ..target }
        }
        ["namespaces", namespace, plural, name] => {
            Target { plural: text(plural), namespace: text(namespace), name: Some(text(name)), ..target }
        }
        ["namespaces", namespace, plural, name, part] => Target {
            plural: text(plural),
            namespace: text(namespace),
            name: Some(text(name)),
            subresource: text(part),
            ..target
        },
        [plural] => Target { plural: text(plural), ..target },
        [plural, name] => Target { plural: text(plural), name: Some(text(name)), ..target },
        [plural, name, part] => {
            Target { plural: text(plural), name: Some(text(name)), subresource: text(part), ..target }
        }
        _ => return Route::Other,
    };
    Route::Resource(target)
}

/// The parameters of a query, decoded.
pub fn query(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
        .collect()
}

/// `%2F` and `+` as the bytes they stand for; anything else as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(byte) = bytes.get(at) {
        let hex = bytes.get(at + 1..at + 3).and_then(|two| std::str::from_utf8(two).ok());
        match (byte, hex.and_then(|two| u8::from_str_radix(two, 16).ok())) {
            (b'%', Some(decoded)) => {
                out.push(decoded);
                at += 3;
                continue;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(*byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_taken_apart() {
        let at = |path: &str| match route(path) {
            Route::Resource(t) => {
                [t.api_version, t.plural, t.namespace, t.name.unwrap_or_default(), t.subresource].join(" ")
            }
            other => format!("{other:?}"),
        };
        for (path, parts) in [
            ("/api/v1/namespaces", "v1 namespaces   "),
            ("/api/v1/namespaces/a", "v1 namespaces  a "),
            ("/api/v1/namespaces/a/finalize", "v1 namespaces  a finalize"),
            ("/api/v1/namespaces/a/pods", "v1 pods a  "),
            ("/api/v1/namespaces/a/pods/p/log", "v1 pods a p log"),
            ("/apis/apps/v1/deployments", "apps/v1 deployments   "),
            ("/apis/storage.k8s.io/v1/storageclasses/s", "storage.k8s.io/v1 storageclasses  s "),
            ("/apis/apps/v1", "Resources(\"apps/v1\")"),
            ("/apis/apps", "Group(\"apps\")"),
            ("/version", "Version"),
            ("/healthz/x", "Other"),
        ] {
            assert_eq!(at(path), parts, "{path}");
        }
    }

    #[test]
    fn queries_are_decoded() {
        let found = query("labelSelector=a%3Db%2Cc&watch=true&x=1+2&y=100%");
        let pairs: Vec<_> = found.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("labelSelector", "a=b,c"), ("watch", "true"), ("x", "1 2"), ("y", "100%")]);
    }

    proptest! {
        #[test]
        fn no_path_and_no_query_makes_it_panic(text in "\\PC{0,60}") {
            let _ = (route(&text), query(&text));
        }
    }
}

//! Pod Security admission: what a pod must not be at a namespace's level, in the API server's words.
//! Source: k8s.io/pod-security-admission, policy; recorded in tests/conformance.

use serde_json::Value;

/// The label that sets a namespace's level, and the levels.
pub const ENFORCE: &str = "pod-security.kubernetes.io/enforce";
pub const LEVELS: [&str; 3] = ["privileged", "baseline", "restricted"];
/// What Talos sets for namespaces that do not say.
pub const DEFAULT: &str = "baseline";

/// Why a pod is refused at a level; None when it is not.
pub fn refused(spec: &Value, level: &str) -> Option<String> {
    let found = match level {
        "privileged" => return None,
        "restricted" => restricted(spec),
        _ => baseline(spec),
    };
    (!found.is_empty()).then(|| format!("violates PodSecurity \"{level}:latest\": {}", found.join(", ")))
}

fn baseline(spec: &Value) -> Vec<String> {
    let paths = named(spec, "volumes", |volume| !volume["hostPath"].is_null());
    let mut found: Vec<String> = shared(spec);
    if !paths.is_empty() {
        found.push(format!("hostPath volumes ({} {})", noun("volume", &paths), quoted(&paths)));
    }
    found.extend(privileged(spec));
    found
}

fn restricted(spec: &Value) -> Vec<String> {
    const ALLOWED: [&str; 8] = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    let mut found = shared(spec);
    found.extend(privileged(spec));
    let must = |title: &str, names: &[String], what: &str, pod: &str| {
        let who = format!("{pod}{} {}", noun("container", names), quoted(names));
        (!names.is_empty()).then(|| format!("{title} ({who} must set securityContext.{what})"))
    };
    let of =
        |wrong: &dyn Fn(&Value) -> bool| containers(spec, |container| wrong(&container["securityContext"]));
    found.extend(must(
        "allowPrivilegeEscalation != false",
        &of(&|context| context["allowPrivilegeEscalation"] != false),
        "allowPrivilegeEscalation=false",
        "",
    ));
    let drops = |context: &Value| {
        context["capabilities"]["drop"].as_array().is_some_and(|all| all.iter().any(|one| one == "ALL"))
    };
    found.extend(must("unrestricted capabilities", &of(&|c| !drops(c)), "capabilities.drop=[\"ALL\"]", ""));
    for volume in items(spec, "volumes") {
        let kinds = volume.as_object().into_iter().flatten().map(|(kind, _)| kind.as_str());
        if let Some(kind) = kinds.filter(|kind| *kind != "name").find(|kind| !ALLOWED.contains(kind)) {
            let name = volume["name"].as_str().unwrap_or_default();
            found.push(format!(
                "restricted volume types (volume {name:?} uses restricted volume type {kind:?})"
            ));
        }
    }
    let pod = &spec["securityContext"];
    let non_root = |context: &Value| match &context["runAsNonRoot"] {
        Value::Null => pod["runAsNonRoot"] == true,
        own => own == true,
    };
    found.extend(must("runAsNonRoot != true", &of(&|c| !non_root(c)), "runAsNonRoot=true", "pod or "));
    let seccomp = |context: &Value| {
        let own = &context["seccompProfile"]["type"];
        let profile = if own.is_null() { &pod["seccompProfile"]["type"] } else { own };
        profile == "RuntimeDefault" || profile == "Localhost"
    };
    let profiles = "seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"";
    found.extend(must("seccompProfile", &of(&|c| !seccomp(c)), profiles, "pod or "));
    found
}

fn shared(spec: &Value) -> Vec<String> {
    let on: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .iter()
        .filter(|name| spec[**name] == true)
        .map(|name| format!("{name}=true"))
        .collect();
    if on.is_empty() { Vec::new() } else { vec![format!("host namespaces ({})", on.join(", "))] }
}

fn privileged(spec: &Value) -> Option<String> {
    let names = containers(spec, |container| container["securityContext"]["privileged"] == true);
    let who = format!("{} {}", noun("container", &names), quoted(&names));
    (!names.is_empty()).then(|| format!("privileged ({who} must not set securityContext.privileged=true)"))
}

fn containers(spec: &Value, wrong: impl Fn(&Value) -> bool) -> Vec<String> {
    let mut names = named(spec, "initContainers", &wrong);
    names.extend(named(spec, "containers", &wrong));
    names
}

fn items<'a>(spec: &'a Value, key: &str) -> &'a [Value] {
    spec[key].as_array().map_or(&[], Vec::as_slice)
}

fn named(spec: &Value, key: &str, wrong: impl Fn(&Value) -> bool) -> Vec<String> {
    let wrong = items(spec, key).iter().filter(|item| wrong(item));
    wrong.map(|item| item["name"].as_str().unwrap_or_default().to_owned()).collect()
}

fn noun(word: &str, names: &[String]) -> String {
    if names.len() == 1 { word.to_owned() } else { format!("{word}s") }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_provisioners_helper_pod_needs_the_privileged_level() {
        let helper = json!({
            "containers": [{"name": "local-path-init", "securityContext": {"privileged": true}}],
            "volumes": [{"name": "data", "hostPath": {"path": "/x"}}, {"name": "dev", "hostPath": {"path": "/dev"}}],
        });
        assert_eq!(refused(&helper, "privileged"), None);
        assert_eq!(
            refused(&helper, "baseline").unwrap(),
            "violates PodSecurity \"baseline:latest\": hostPath volumes (volumes \"data\", \"dev\"), privileged \
             (container \"local-path-init\" must not set securityContext.privileged=true)"
        );
    }

    #[test]
    fn a_pod_that_keeps_the_restricted_level_passes() {
        let context = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
        let pod = json!({
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "a", "securityContext": context}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}],
        });
        assert_eq!(refused(&pod, "restricted"), None);
        assert!(refused(&json!({"containers": [{"name": "a"}]}), "restricted").is_some());
        assert_eq!(refused(&json!({"containers": [{"name": "a"}]}), "baseline"), None);
    }
}

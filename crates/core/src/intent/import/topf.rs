//! `topf.yaml`, and the folders of patches that belong to it.

use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::documents::apply;
use super::tree::Source;
use super::volume::UserVolume;
use super::{Around, Machine, checked, name};
use crate::error::Result;
use crate::yaml::Node;

pub(super) fn machines(
    source: &Source,
    around: &dyn Around,
    notes: &mut Vec<String>,
) -> Result<Vec<Machine>> {
    let root = source.only()?;
    if let Some(old) = root.get(&["configDir"]).filter(|old| !old.is_null()) {
        return Err(source.wrong(old, "`configDir` is not taken by topf any more", "call it patchesDir"));
    }
    let base = source.text(root.get(&["patchesDir"]))?.map_or_else(String::new, |dir| format!("{dir}/"));
    let mut machines = Vec::new();
    for node in source.list(root.get(&["nodes"]))? {
        let host = name(source, node, "host")?;
        // topf finds a node without an address by its name.
        let address = source.text(node.get(&["ip"]))?.unwrap_or(host).to_owned();
        checked(source, node.get(&["ip"]).unwrap_or(node), std::slice::from_ref(&address), &machines)?;
        let role = match source.text(node.get(&["role"]))? {
            Some(role @ ("control-plane" | "worker")) => role,
            _ => {
                let at = node.get(&["role"]).unwrap_or(node);
                return Err(source.wrong(
                    at,
                    "a node's `role` is control-plane or worker",
                    "write one of them",
                ));
            }
        };
        let mut volumes = Vec::new();
        for folder in ["all".to_owned(), role.to_owned(), format!("node/{host}")] {
            for path in around.list(&format!("{base}{folder}")) {
                patch(&path, around, &values(root, node), &mut volumes, notes)?;
            }
        }
        let control_plane = role == "control-plane";
        machines.push(Machine { name: host.to_owned(), addresses: vec![address], control_plane, volumes });
    }
    Ok(machines)
}

/// A file of a patch folder, if topf takes it for one.
fn patch(
    path: &str,
    around: &dyn Around,
    values: &dyn Fn(&str) -> Option<String>,
    volumes: &mut Vec<UserVolume>,
    notes: &mut Vec<String>,
) -> Result<()> {
    let file = path.rsplit('/').next().unwrap_or(path);
    if !file.contains(".yaml") && !file.contains(".yml") {
        return Ok(());
    }
    let text = match around.read(path) {
        Ok(text) => text.unwrap_or_default(),
        Err(e) => {
            notes.push(format!("{path} was not looked at: {}.", e.what));
            return Ok(());
        }
    };
    let text = if file.ends_with(".tpl") { filled(&text, values) } else { Some(text) };
    match text {
        Some(text) => apply(&Source::parse(path, text)?, volumes, notes),
        None => {
            notes.push(format!(
                "{path} was not looked at: only topf can fill in what this template asks for."
            ));
            Ok(())
        }
    }
}

/// What a template can ask for of a node, by its path.
fn values<'n>(root: &'n Node, node: &'n Node) -> impl Fn(&str) -> Option<String> + 'n {
    move |path| {
        let parts: Vec<&str> = path.split('.').collect();
        let value = match &parts[..] {
            ["ClusterName"] => root.get(&["clusterName"]),
            ["ClusterEndpoint"] => root.get(&["clusterEndpoint"]),
            ["KubernetesVersion"] => root.get(&["kubernetesVersion"]),
            ["TalosVersion"] => root.get(&["talosVersion"]),
            ["Data", keys @ ..] => root.get(&["data"])?.get(keys),
            ["Node", "Host"] => node.get(&["host"]),
            ["Node", "IP"] => node.get(&["ip"]),
            ["Node", "Role"] => node.get(&["role"]),
            ["Node", "Data", keys @ ..] => node.get(&["data"])?.get(keys),
            _ => None,
        };
        value.filter(|value| !value.is_null())?.text().map(str::to_owned)
    }
}

/// A template that only names values, with them in it; nothing for one that does more.
fn filled(text: &str, values: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    static NAMED: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"(?:\{\{|\s*\{\{-\s)\s*\.([A-Za-z0-9_.]+)\s*(?:\}\}|\s-\}\}\s*)").ok());
    let mut whole = true;
    let named = NAMED.as_ref()?.replace_all(text, |found: &Captures<'_>| {
        let value = found.get(1).and_then(|path| values(path.as_str()));
        whole &= value.is_some();
        value.unwrap_or_default()
    });
    (whole && !named.contains("{{")).then(|| named.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_that_names_values_is_filled_in() {
        let values = |path: &str| (path == "Node.Data.disk").then(|| "/dev/sdb".to_owned());
        for (text, out) in [
            ("a: {{ .Node.Data.disk }}\n", Some("a: /dev/sdb\n")),
            ("a: {{.Node.Data.disk}}", Some("a: /dev/sdb")),
            ("a:\n  {{- .Node.Data.disk -}}\n b", Some("a:/dev/sdbb")),
            ("a: {{ .Node.Data.other }}", None),
            ("{{ if .Node.Data.disk }}a{{ end }}", None),
            ("a: {{ .Node.Data.disk | quote }}", None),
            ("plain", Some("plain")),
        ] {
            assert_eq!(filled(text, &values).as_deref(), out, "{text}");
        }
    }
}

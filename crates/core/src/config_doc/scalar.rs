//! When a value counts as empty, and when two are the same: questions that Talos answers by a field's type.

use super::fields::Rule;
use crate::yaml::{Kind, Node, Style, Value};

/// No value, or an empty text.
pub(super) fn is_empty(node: &Node) -> bool {
    node.is_null() || node.text() == Some("")
}

/// The value that the field's type has when nothing is said.
pub(super) fn is_zero(rule: &Rule, node: &Node) -> bool {
    let text = node.text().unwrap_or_default();
    is_empty(node)
        || match rule {
            Rule::Text(zero) => text == zero,
            // Numbers, sizes and durations: 0, 0.0, 0s, 0h0m0s
            Rule::Number => text.contains('0') && text.chars().all(|char| "0.+-hmsuµn".contains(char)),
            _ => false,
        }
}

/// Whether two scalars of a field mean the same; no value is not an empty one.
pub(super) fn same(rule: &Rule, have: &Node, want: &Node) -> bool {
    if have.is_null() || want.is_null() {
        return have.is_null() && want.is_null();
    }
    match rule {
        Rule::Bool => bool(have).is_some() && bool(have) == bool(want),
        Rule::Number => have.text() == want.text() || have.means(want),
        _ => have.text() == want.text(),
    }
}

/// Where a field is a bool, the old words count too.
fn bool(node: &Node) -> Option<bool> {
    let Kind::Scalar { text, style: Style::Plain } = &node.kind else { return None };
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "y" => Some(true),
        "false" | "no" | "off" | "n" => Some(false),
        _ => None,
    }
}

/// Whether two items of a keyed list are merged. Of several keys the first that `want` has decides, and an item with none
/// of them is always new.
pub(super) fn same_key(keys: &[String], have: &Node, want: &Node) -> bool {
    if let [key] = keys {
        let value = |node: &Node| node.get(&[key]).and_then(Node::scalar);
        return key_text(have, key) == key_text(want, key)
            || value(want).is_some_and(|wanted| value(have) == Some(wanted));
    }
    for key in keys {
        match want.get(&[key]) {
            None => {}
            Some(value) if value.text().is_some() => {
                if let Some(wanted) = key_text(want, key) {
                    return key_text(have, key) == Some(wanted);
                }
            }
            Some(selector) => return have.get(&[key]).is_some_and(|have| same_selector(have, selector)),
        }
    }
    false
}

/// The text of an item's key that is not empty.
fn key_text<'n>(item: &'n Node, key: &str) -> Option<&'n str> {
    item.get(&[key]).filter(|value| !is_empty(value)).and_then(Node::text)
}

/// Two selectors are the same if all their texts are; Talos never finds two with a bool the same.
fn same_selector(have: &Node, want: &Node) -> bool {
    let has_bool =
        |node: &Node| node.entries().iter().any(|(_, value)| matches!(value.value(), Value::Bool(_)));
    !has_bool(have) && !has_bool(want) && have.text().is_none() && fields(have) == fields(want)
}

/// The fields of a selector that are not empty.
fn fields(selector: &Node) -> Vec<(Option<&str>, Option<&str>)> {
    let set = selector.entries().iter().filter(|(_, value)| !is_empty(value));
    let mut fields: Vec<_> = set.map(|(key, value)| (key.text(), value.text())).collect();
    fields.sort_unstable();
    fields
}

/// Whether merging two URLs part by part gives the wanted one.
pub(super) fn replaces_url(have: &str, want: &str) -> bool {
    let (Some(have), Some(want)) = (url_parts(have), url_parts(want)) else { return false };
    let (user, rest) = (have.0, have.1.iter().zip(&want.1));
    user.is_empty() && rest.into_iter().all(|(have, want)| have.is_empty() || !want.is_empty())
}

/// User, then scheme, host, path, query and fragment of a URL without escapes.
fn url_parts(text: &str) -> Option<(&str, [&str; 5])> {
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = rest.split_once("://")?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (user, host) = host.rsplit_once('@').unwrap_or(("", host));
    (!text.contains('%')).then_some((user, [scheme, host, path, query, fragment]))
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::yaml::Stream;

    fn node(text: &str) -> Node {
        Stream::parse(text).unwrap().documents().first().unwrap().root.clone()
    }

    #[test]
    fn zero_values_are_those_of_the_type() {
        let text = || Rule::Text(String::new());
        let accept = Rule::Text("accept".into());
        let table = [
            (text(), "''", true),
            (text(), "null", true),
            (text(), "0", false),
            (accept, "accept", true),
            (Rule::Number, "0", true),
            (Rule::Number, "0s", true),
            (Rule::Number, "10s", false),
            (Rule::Number, "s", false),
            (Rule::Number, "0xa", false),
        ];
        for (rule, text, zero) in table {
            assert_eq!(is_zero(&rule, &node(text)), zero, "{rule:?} {text}");
        }
    }

    #[test]
    fn items_meet_by_their_first_key() {
        let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        let device = keys(&["interface", "deviceSelector"]);
        let table = [
            (&device, "{interface: eth0}", "{interface: eth0, mtu: 1}", true),
            (&device, "{interface: eth0}", "{interface: eth1}", false),
            (&device, "{deviceSelector: {driver: a}}", "{deviceSelector: {driver: a, busPath: ''}}", true),
            (&device, "{deviceSelector: {driver: a}}", "{deviceSelector: {driver: b}}", false),
            (&device, "{deviceSelector: {physical: true}}", "{deviceSelector: {physical: true}}", false),
            (&device, "{interface: e, deviceSelector: {driver: a}}", "{deviceSelector: {driver: a}}", true),
            (&device, "{dhcp: true}", "{dhcp: true}", false),
            (&keys(&["vlanId"]), "{vlanId: 0x10}", "{vlanId: 16}", true),
            (&keys(&["name"]), "{name: a}", "{}", false),
            (&keys(&["name"]), "{}", "{name: ''}", true),
        ];
        for (keys, have, want, same) in table {
            assert_eq!(same_key(keys, &node(have), &node(want)), same, "{have} {want}");
        }
    }

    #[test]
    fn a_url_is_replaced_if_nothing_of_it_would_stay() {
        let table = [
            ("https://a:6443", "https://b:443", true),
            ("https://a", "https://b/x?y=z", true),
            ("https://a/x", "https://b", false),
            ("https://a?token=t", "https://b", false),
            ("https://u@a", "https://b", false),
            ("https://a/%20", "https://b/x", false),
            ("a", "b", false),
        ];
        for (have, want, replaces) in table {
            assert_eq!(replaces_url(have, want), replaces, "{have} {want}");
        }
    }
}

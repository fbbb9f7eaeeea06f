//! Rules of `backup.schedules`: what Velero would refuse, or worse, only log.

use std::collections::BTreeSet;

use super::{DNS_LABEL, Path, PathPart, Rules, dns_label};
use crate::intent::{Backup, Cron, Exec, Hook, LabelSelector, NOT_FOR_EVER, Preset, Schedule, fits};

/// Velero counts a time in nanoseconds: no longer one than so many hours.
const MOST_HOURS: u64 = 2_562_047;

impl Rules<'_> {
    pub(super) fn schedules(&self, backup: &Backup) {
        let mut seen = BTreeSet::new();
        for (i, schedule) in backup.schedules.iter().enumerate() {
            let of = ["backup".into(), "schedules".into(), i.into()];
            let at = |key: &'static str| [of[0], of[1], of[2], key.into()];
            self.named(&of, schedule);
            let name = schedule.name();
            let found = format!("schedule {name} is listed twice");
            self.check(name.is_empty() || seen.insert(name), &at("name"), &found, "name each schedule once");
            let known = backup.all_locations().any(|location| location.name == backup.location_of(schedule));
            let found = format!("the file has no location {}", backup.location_of(schedule));
            let names: Vec<&str> = backup.all_locations().map(|location| location.name.as_str()).collect();
            let allowed = format!("write one of {}, or list it below `backup.locations`", names.join(", "));
            self.check(known, &at("location"), &found, &allowed);
            let ttl = schedule.ttl();
            self.check(
                ttl.0 > 0,
                &at("ttl"),
                "a backup can't be kept for no time, nor for ever",
                NOT_FOR_EVER,
            );
            let found = format!("{ttl} is longer than Velero can count");
            self.check(ttl.0 <= MOST_HOURS * 3600, &at("ttl"), &found, "write 2562047h (292 years) at most");
            self.namespaces(&of, &schedule.namespaces(), &schedule.excluded_namespaces());
            self.label_selector(&of, schedule.label_selector.as_ref());
            self.check(
                schedule.preset != Some(Preset::Application) || schedule.label_selector.is_some(),
                &at("preset"),
                "the backup of an application needs to know what belongs to it",
                "add `labelSelector: {matchLabels: {app: …}}`",
            );
            let mut hooks = BTreeSet::new();
            for (j, hook) in schedule.hooks.iter().enumerate() {
                let of = [of[0], of[1], of[2], "hooks".into(), j.into()];
                self.hook(&of, hook);
                let name = [&of[..], &["name".into()]].concat();
                let found = format!("hook {} is listed twice", hook.name);
                self.check(hooks.insert(&hook.name), &name, &found, "name each hook of a schedule once");
            }
        }
    }

    /// It has a name and a cron line, its own or the preset's.
    fn named(&self, of: Path<'_>, schedule: &Schedule) {
        let at = |key: &'static str| [of, &[key.into()]].concat();
        let given = |key: &str, own: bool| {
            let allowed = "write it, or take a preset: daily, hourly, weekly, monthly, yearly or application";
            self.check(own || schedule.preset.is_some(), of, &format!("the schedule has no `{key}`"), allowed)
        };
        if given("name", schedule.name.is_some()) {
            let found = format!("`{}` is not allowed", schedule.name());
            self.check(dns_label(schedule.name()), &at("name"), &found, DNS_LABEL);
        }
        if given("cron", schedule.cron.is_some())
            && let Err(why) = Cron::parse(schedule.cron())
        {
            let what = format!("`{}` is not a cron line that Velero takes: {why}", schedule.cron());
            let allowed = "write minute, hour, day of the month, month and day of the week (0-6), such as `0 2 * * *`; \
                           or `@daily`, `@every 6h`; with `CRON_TZ=Europe/Berlin ` before it for a time zone";
            self.check(false, &at("cron"), &what, allowed);
        }
    }

    fn namespaces(&self, of: Path<'_>, included: &[String], excluded: &[String]) {
        for (key, names) in [("namespaces", included), ("excludedNamespaces", excluded)] {
            for (i, name) in names.iter().enumerate() {
                let fault = match (key, name.as_str()) {
                    ("namespaces", "*") if names.len() > 1 => Some("stands for all, and is not alone"),
                    ("namespaces", "*") => None,
                    (_, "*") => Some("leaves nothing to back up"),
                    ("namespaces", name) if excluded.iter().any(|one| one == name || fits(one, name)) => {
                        Some("is left out again by `excludedNamespaces`")
                    }
                    (_, name) => pattern_fault(name),
                };
                let path = [of, &[key.into(), i.into()]].concat();
                let found = format!("`{name}` {}", fault.unwrap_or_default());
                let allowed = "write namespaces, with `*`, `?` and `[abc]` in their names: `app-*`; all of them when none is \
                               named";
                self.check(fault.is_none(), &path, &found, allowed);
            }
        }
    }

    fn label_selector(&self, of: Path<'_>, selector: Option<&LabelSelector>) {
        let Some(selector) = selector else { return };
        let at = |parts: &[PathPart<'static>]| [of, &["labelSelector".into()], parts].concat();
        self.check(
            *selector != LabelSelector::default(),
            &at(&[]),
            "`labelSelector` names no label",
            "write `matchLabels: {app: …}` below it, or leave it out: everything is meant then",
        );
        for (key, value) in &selector.match_labels {
            let path = [at(&["matchLabels".into()]).as_slice(), &[key.as_str().into()]].concat();
            self.label(&path, key, value);
        }
        for (i, wanted) in selector.match_expressions.iter().enumerate() {
            let path = at(&["matchExpressions".into(), i.into()]);
            self.label(&path, &wanted.key, "");
            for value in &wanted.values {
                self.label(&path, "any", value);
            }
            let fault = wanted.fault();
            let allowed = "write {key, operator: In, values: [a, b]} or {key, operator: Exists}";
            self.check(fault.is_none(), &path, fault.unwrap_or_default(), allowed);
        }
    }

    fn hook(&self, of: Path<'_>, hook: &Hook) {
        let path = [of, &["name".into()]].concat();
        self.check(dns_label(&hook.name), &path, &format!("`{}` is not allowed", hook.name), DNS_LABEL);
        let found = format!("hook {} runs nothing", hook.name);
        let some = !hook.pre.is_empty() || !hook.post.is_empty();
        self.check(some, of, &found, "add `pre` or `post` with a command");
        self.namespaces(of, &hook.namespaces, &hook.excluded_namespaces);
        self.label_selector(of, hook.label_selector.as_ref());
        for (key, commands) in [("pre", &hook.pre), ("post", &hook.post)] {
            for (i, exec) in commands.iter().enumerate() {
                let of = [of, &[key.into(), i.into()]].concat();
                let at = |key: &'static str| [of.as_slice(), &[key.into()]].concat();
                let container = exec.container.as_deref();
                let found = format!("`{}` is not the name of a container", container.unwrap_or_default());
                self.check(container.is_none_or(dns_label), &at("container"), &found, DNS_LABEL);
                let some = exec.command.first().is_some_and(|program| !program.is_empty());
                let allowed = "write the program and its arguments: [sh, -c, \"pg_dump …\"]";
                self.check(some, &at("command"), "there is no command", allowed);
                let found = format!("{} is not a time for a command", exec.timeout);
                let good = exec.timeout.0 > 0 && exec.timeout <= Exec::MOST;
                self.check(good, &at("timeout"), &found, "write 1s to 30m: other backups wait for this one");
            }
        }
    }
}

/// What is wrong with a namespace, or a pattern of some.
/// Source: velero, pkg/util/wildcard/expand.go and pkg/util/collections/includes_excludes.go (v1.18).
fn pattern_fault(name: &str) -> Option<&'static str> {
    if name.contains("**") {
        return Some("has two stars in a row");
    }
    let mut inside = false;
    let mut before = ' ';
    for letter in name.chars() {
        match (letter, inside) {
            ('[', false) => inside = true,
            (']', true) if before == '[' => return Some("has empty brackets"),
            (']', true) => inside = false,
            (']', false) => return Some("has a `]` without a `[`"),
            _ => {}
        }
        before = letter;
    }
    let plain = name.replace(['*', '?', '[', ']'], "x");
    match (inside, dns_label(&plain)) {
        (true, _) => Some("has a `[` without a `]`"),
        (false, false) => Some("is not a namespace's name, nor a pattern of such"),
        (false, true) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_namespaces_are_those_that_velero_takes() {
        for good in ["shop", "kube-*", "*-test", "app-?", "app-[abc]", "a*b*c"] {
            assert_eq!(pattern_fault(good), None, "{good}");
        }
        for bad in [
            "", "**", "app-**", "App", "a,b", "!kube-*", "{a,b}", "a|b", "app-[", "app-]", "app-[]", "a b",
            "-a", "a/b",
        ] {
            assert!(pattern_fault(bad).is_some(), "{bad}");
        }
    }
}

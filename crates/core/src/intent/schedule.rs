//! The schedules of `backup`: when, what of the cluster, for how long, where to, and what runs in the pods before and after.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::Duration;

/// What is made on its own: a Schedule of Velero's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Schedule {
    /// Gives what is left out of `name`, `cron`, `ttl`, `namespaces` and `excludedNamespaces`.
    #[serde(default)]
    pub preset: Option<Preset>,
    /// The Schedule's name; a preset has one.
    #[serde(default)]
    pub name: Option<String>,
    /// When: five cron fields, `@daily` and the like, or `@every 6h`. In UTC, or in a time zone: `CRON_TZ=Europe/Berlin 0 2 * * *`.
    /// A preset has one.
    #[serde(default)]
    pub cron: Option<String>,
    /// How long a backup is kept: 720h unless said otherwise; there is no "for ever".
    #[serde(default, deserialize_with = "written")]
    #[schemars(with = "Option<Duration>")]
    pub ttl: Option<Duration>,
    /// The namespaces to back up, with `*`, `?` and `[abc]` in their names; all of them when empty.
    #[serde(default)]
    pub namespaces: Option<Vec<String>>,
    /// The namespaces to leave out, written alike.
    #[serde(default)]
    pub excluded_namespaces: Option<Vec<String>>,
    /// Only what has these labels, and the claims of its pods.
    #[serde(default)]
    pub label_selector: Option<LabelSelector>,
    /// The name of the location that it goes to; the default one unless said otherwise.
    #[serde(default)]
    pub location: Option<String>,
    /// It makes no backups until this is taken out again.
    #[serde(default)]
    pub paused: bool,
    /// The files of all volumes are in it; with `false` only those that the pods name in an annotation.
    #[serde(default = "yes")]
    pub default_volumes_to_fs_backup: bool,
    /// What runs in pods before and after their volumes are read.
    #[serde(default)]
    pub hooks: Vec<Hook>,
}

/// A schedule as many want it. Daily, weekly, monthly and yearly together are grandfather, father and son.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// `daily-backup`, at 02:00, kept for 720h: all namespaces but `kube-*`.
    Daily,
    /// `hourly-backup`, kept for 168h: the namespaces `production` and `staging`.
    Hourly,
    /// `weekly-backup`, on Sundays at 03:00, kept for 2160h: all namespaces but `kube-*`.
    Weekly,
    /// `monthly-backup`, on the first at 04:00, kept for 8760h: all namespaces but `kube-*`.
    Monthly,
    /// `yearly-backup`, on the first of January at 05:00, kept for 87600h: all namespaces but `kube-*`.
    Yearly,
    /// `app-backup`, daily at 01:00, kept for 2160h: what `labelSelector` says, which has to be there.
    Application,
}

/// What a preset gives.
struct Given {
    name: &'static str,
    cron: &'static str,
    hours: u64,
    namespaces: &'static [&'static str],
    excluded: &'static [&'static str],
}

impl Preset {
    const fn gives(self) -> Given {
        let (name, cron, hours) = match self {
            Self::Daily => ("daily-backup", "0 2 * * *", 720),
            Self::Hourly => ("hourly-backup", "0 * * * *", 168),
            Self::Weekly => ("weekly-backup", "0 3 * * 0", 2160),
            Self::Monthly => ("monthly-backup", "0 4 1 * *", 8760),
            Self::Yearly => ("yearly-backup", "0 5 1 1 *", 87600),
            Self::Application => ("app-backup", "0 1 * * *", 2160),
        };
        let (namespaces, excluded): (&[&str], &[&str]) = match self {
            Self::Hourly => (&["production", "staging"], &[]),
            Self::Application => (&[], &[]),
            Self::Daily | Self::Weekly | Self::Monthly | Self::Yearly => (&[], &["kube-*"]),
        };
        Given { name, cron, hours, namespaces, excluded }
    }
}

/// How long a backup is kept of which nothing is said, in hours: as long as Velero keeps one.
const HOURS: u64 = 720;

impl Schedule {
    fn given(&self) -> Option<Given> {
        self.preset.map(Preset::gives)
    }

    /// Empty where it has none, which the file's rules do not take.
    pub fn name(&self) -> &str {
        self.name.as_deref().or(self.given().map(|given| given.name)).unwrap_or_default()
    }

    /// As [`Self::name`].
    pub fn cron(&self) -> &str {
        self.cron.as_deref().or(self.given().map(|given| given.cron)).unwrap_or_default()
    }

    pub fn ttl(&self) -> Duration {
        self.ttl.unwrap_or_else(|| Duration(3600 * self.given().map_or(HOURS, |given| given.hours)))
    }

    /// None for all.
    pub fn namespaces(&self) -> Vec<String> {
        let given = || names(self.given().map_or(&[], |given| given.namespaces));
        self.namespaces.clone().unwrap_or_else(given)
    }

    /// What a preset leaves out of all namespaces is not left out of those that are named.
    pub fn excluded_namespaces(&self) -> Vec<String> {
        let given = || match self.namespaces {
            None => names(self.given().map_or(&[], |given| given.excluded)),
            Some(_) => Vec::new(),
        };
        self.excluded_namespaces.clone().unwrap_or_else(given)
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Whether a namespace is one of a pattern's, in which `*` stands for anything, `?` for a letter, and `[a-c]` for one of some.
pub fn fits(pattern: &str, name: &str) -> bool {
    fit(pattern.as_bytes(), name.as_bytes())
}

fn fit(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], name) => name.is_empty(),
        ([b'*', rest @ ..], name) => (0..=name.len()).any(|from| fit(rest, &name[from..])),
        ([b'?', rest @ ..], [_, more @ ..]) => fit(rest, more),
        ([b'[', rest @ ..], [letter, more @ ..]) => {
            let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
            let (set, rest) = (&rest[..end], &rest[end + 1..]);
            let in_range = |range: &[u8]| matches!(range, [from, b'-', to] if (from..=to).contains(&letter));
            let one_of = if set.contains(&b'-') { in_range(set) } else { set.contains(letter) };
            one_of && fit(rest, more)
        }
        ([wanted, rest @ ..], [letter, more @ ..]) => wanted == letter && fit(rest, more),
        (_, []) => false,
    }
}

const fn yes() -> bool {
    true
}

/// What to do where a backup was to be kept for ever.
pub const NOT_FOR_EVER: &str = "write how long, such as 720h. Velero keeps none for ever: it makes 30 days of 0. Write a long \
                                time, such as 87600h (ten years); what has to outlast that is copied out of the bucket, where \
                                Velero does not clean up";

/// How long a backup is kept; what is written for ever is 0, which the file's rules and plans do not take.
pub fn kept(text: &str) -> Result<Duration, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "0" | "forever" | "for ever" | "always" | "never" | "none" | "infinite" | "unlimited" => {
            Ok(Duration(0))
        }
        text => Duration::parse(text),
    }
}

fn written<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = Option::<Cow<'de, str>>::deserialize(deserializer)?;
    kept(text.as_deref().unwrap_or("none")).map(Some).map_err(serde::de::Error::custom)
}

/// Labels that an object has to have, as Kubernetes writes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LabelSelector {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    pub key: String,
    pub operator: LabelOperator,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LabelOperator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl Requirement {
    /// What is wrong with it, as Velero would only log.
    pub fn fault(&self) -> Option<&'static str> {
        let listed = matches!(self.operator, LabelOperator::In | LabelOperator::NotIn);
        match (listed, self.values.is_empty()) {
            (true, true) => Some("In and NotIn need `values`"),
            (false, false) => Some("Exists and DoesNotExist take no `values`"),
            _ => None,
        }
    }
}

/// What runs in the pods of a backup that it is for; an annotation of a pod takes its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Hook {
    /// By which Velero tells of it.
    pub name: String,
    /// Only pods of these namespaces; all of the backup's when empty.
    #[serde(default)]
    pub namespaces: Vec<String>,
    #[serde(default)]
    pub excluded_namespaces: Vec<String>,
    /// Only pods with these labels.
    #[serde(default)]
    pub label_selector: Option<LabelSelector>,
    /// Before the pod's volumes are read, one after the other: such as a database's dump into a volume.
    #[serde(default)]
    pub pre: Vec<Exec>,
    /// After they were read.
    #[serde(default)]
    pub post: Vec<Exec>,
}

/// A command in a container that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Exec {
    /// The pod's first container unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The program and its arguments; no shell but one that is named: `[sh, -c, "…"]`.
    pub command: Vec<String>,
    #[serde(default)]
    pub on_error: OnError,
    /// How long it may take: 30s unless said otherwise, 30m at most.
    #[serde(default = "Exec::usual")]
    pub timeout: Duration,
}

impl Exec {
    /// The longest that Velero may wait for one.
    pub const MOST: Duration = Duration(30 * 60);

    const fn usual() -> Duration {
        Duration(30)
    }
}

/// What becomes of a pod whose command fails. The backup is no good either way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnError {
    /// Neither the pod nor its volumes are in the backup.
    #[default]
    Fail,
    /// They are, as they are.
    Continue,
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(text: &str) -> Schedule {
        serde_yaml::from_str(text).unwrap()
    }

    #[test]
    fn a_preset_gives_what_is_left_out() {
        for (text, name, cron, hours, namespaces, excluded) in [
            ("{preset: daily}", "daily-backup", "0 2 * * *", 720, &[][..], &["kube-*"][..]),
            ("{preset: hourly}", "hourly-backup", "0 * * * *", 168, &["production", "staging"], &[]),
            ("{preset: weekly}", "weekly-backup", "0 3 * * 0", 2160, &[], &["kube-*"]),
            ("{preset: monthly}", "monthly-backup", "0 4 1 * *", 8760, &[], &["kube-*"]),
            ("{preset: yearly}", "yearly-backup", "0 5 1 1 *", 87600, &[], &["kube-*"]),
            ("{preset: application}", "app-backup", "0 1 * * *", 2160, &[], &[]),
            ("{preset: daily, name: n, cron: c, ttl: 1h}", "n", "c", 1, &[], &["kube-*"]),
            (
                "{preset: daily, namespaces: [kube-system]}",
                "daily-backup",
                "0 2 * * *",
                720,
                &["kube-system"],
                &[],
            ),
            ("{preset: daily, excludedNamespaces: []}", "daily-backup", "0 2 * * *", 720, &[], &[]),
            ("{preset: hourly, namespaces: []}", "hourly-backup", "0 * * * *", 168, &[], &[]),
            ("{name: n, cron: c}", "n", "c", 720, &[], &[]),
        ] {
            let schedule = read(text);
            assert_eq!((schedule.name(), schedule.cron()), (name, cron), "{text}");
            assert_eq!(schedule.ttl(), Duration(hours * 3600), "{text}");
            assert_eq!(schedule.namespaces(), namespaces, "{text}");
            assert_eq!(schedule.excluded_namespaces(), excluded, "{text}");
            assert!(schedule.default_volumes_to_fs_backup && !schedule.paused, "{text}");
        }
    }

    #[test]
    fn a_pattern_names_namespaces() {
        for (pattern, name, is_one) in [
            ("kube-*", "kube-system", true),
            ("kube-*", "kube-", true),
            ("kube-*", "shop", false),
            ("*-test-*", "a-test-b", true),
            ("app-?", "app-1", true),
            ("app-?", "app-", false),
            ("app-[ab]", "app-b", true),
            ("app-[a-c]", "app-b", true),
            ("app-[a-c]", "app-d", false),
            ("*", "", true),
            ("app", "apps", false),
        ] {
            assert_eq!(fits(pattern, name), is_one, "{pattern} {name}");
        }
    }

    #[test]
    fn whatever_means_for_ever_is_a_time_of_0() {
        for text in
            ["0", "0s", "0h", "forever", "Forever", "for ever", "none", "never", "null", "~", "", "unlimited"]
        {
            let schedule = read(&format!("{{name: a, cron: b, ttl: {text}}}"));
            assert_eq!(schedule.ttl, Some(Duration(0)), "{text}");
        }
        assert!(serde_yaml::from_str::<Schedule>("{name: a, cron: b, ttl: long}").is_err());
    }
}

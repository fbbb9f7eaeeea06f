//! Where pods of the installed components may run, and what they may take: as Kubernetes has it, typed.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Size;

/// The taint that Talos gives its control planes unless `cluster.allowSchedulingOnControlPlanes` is set.
pub const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// A taint that a pod puts up with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Toleration {
    /// Every taint when it is left out, with the operator Exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(default)]
    pub operator: Operator,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Every effect when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
    /// How long a pod stays on a node that gets the taint; only with the effect NoExecute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Operator {
    #[default]
    Equal,
    Exists,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Effect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

impl Toleration {
    /// What is wrong with it, as the API server would say too late.
    pub fn fault(&self) -> Option<&'static str> {
        match (self.operator, &self.key, &self.value) {
            (Operator::Equal, None, _) => Some("a toleration without `key` needs `operator: Exists`"),
            (Operator::Exists, _, Some(_)) => Some("`operator: Exists` takes no `value`"),
            _ if self.toleration_seconds.is_some() && self.effect != Some(Effect::NoExecute) => {
                Some("`tolerationSeconds` needs `effect: NoExecute`")
            }
            _ => None,
        }
    }

    /// The control planes of Talos.
    pub fn control_planes() -> Vec<Self> {
        let (key, operator) = (Some(CONTROL_PLANE.to_owned()), Operator::Exists);
        vec![Self { key, operator, effect: Some(Effect::NoSchedule), ..Self::default() }]
    }

    /// Every node, whatever its taints.
    pub fn all() -> Vec<Self> {
        vec![Self { operator: Operator::Exists, ..Self::default() }]
    }
}

/// What a container asks for, and the most that it gets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    #[serde(default, skip_serializing_if = "Amounts::is_empty")]
    pub requests: Amounts,
    #[serde(default, skip_serializing_if = "Amounts::is_empty")]
    pub limits: Amounts,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Amounts {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "quantity")]
    pub memory: Option<Size>,
}

/// As Kubernetes writes it, not as Talos does.
fn quantity<S: Serializer>(size: &Option<Size>, serializer: S) -> Result<S::Ok, S::Error> {
    size.map(Size::quantity).serialize(serializer)
}

impl Amounts {
    const fn is_empty(&self) -> bool {
        self.cpu.is_none() && self.memory.is_none()
    }
}

impl Resources {
    /// So many thousandths of a CPU, and so many MiB.
    pub const fn asked(cpu: u32, memory: u64) -> Self {
        Self { requests: amounts(cpu, memory), limits: Amounts { cpu: None, memory: None } }
    }

    pub const fn limited(self, cpu: u32, memory: u64) -> Self {
        Self { limits: amounts(cpu, memory), ..self }
    }

    /// The amount that is asked for beyond its limit.
    pub fn beyond(&self) -> Option<&'static str> {
        let (asked, most) = (&self.requests, &self.limits);
        let more = |asked: Option<u64>, most: Option<u64>| asked.zip(most).is_some_and(|(a, m)| a > m);
        let cpu = |amounts: &Amounts| amounts.cpu.map(|cpu| u64::from(cpu.0));
        let memory = |amounts: &Amounts| amounts.memory.map(|size| size.0);
        if more(cpu(asked), cpu(most)) {
            Some("cpu")
        } else {
            more(memory(asked), memory(most)).then_some("memory")
        }
    }
}

const fn amounts(cpu: u32, memory: u64) -> Amounts {
    Amounts { cpu: Some(Cpu(cpu)), memory: Some(Size(memory << 20)) }
}

/// Thousandths of a CPU: `50m`, `2`, `0.5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpu(pub u32);

impl Cpu {
    fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not an amount of CPU: write one such as 50m, 0.5 or 2");
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if let Some(thousandths) = text.strip_suffix('m') {
            let thousandths =
                Some(thousandths).filter(|part| digits(part)).and_then(|part| part.parse().ok());
            return thousandths.map(Self).ok_or_else(bad);
        }
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        if !digits(whole) || !digits(part) || part.len() > 3 {
            return Err(bad());
        }
        let part: u32 = format!("{part:0<3}").parse().map_err(|_| bad())?;
        let whole = whole.parse::<u32>().ok().and_then(|whole| whole.checked_mul(1000));
        whole.and_then(|whole| whole.checked_add(part)).map(Self).ok_or_else(bad)
    }
}

/// As the API server keeps it.
impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) { write!(f, "{}", self.0 / 1000) } else { write!(f, "{}m", self.0) }
    }
}

impl Serialize for Cpu {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cpu {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A bare 2 or 0.5 is read as the text that it is.
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Cpu {
    fn schema_name() -> Cow<'static, str> {
        "Cpu".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number"], "pattern": "^([0-9]+m|[0-9]+(\\.[0-9]{1,3})?)$" })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_read_as_kubernetes_reads_it_and_written_as_it_keeps_it() {
        for (text, kept) in
            [("50m", "50m"), ("1000m", "1"), ("2", "2"), ("0.5", "500m"), ("1.25", "1250m"), ("0", "0")]
        {
            assert_eq!(Cpu::parse(text).unwrap().to_string(), kept, "{text}");
        }
        for text in ["", "m", "-1", "+1", "1.", ".5", "0.0001", "1k", "50 m", "99999999999"] {
            assert!(Cpu::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_toleration_that_the_api_server_would_refuse_is_a_fault() {
        let read = |text: &str| serde_yaml::from_str::<Toleration>(text).unwrap().fault();
        for good in [
            "{operator: Exists}",
            "{key: a, operator: Exists, effect: NoSchedule}",
            "{key: a, value: b}",
            "{key: a, value: b, effect: NoExecute, tolerationSeconds: 60}",
        ] {
            assert_eq!(read(good), None, "{good}");
        }
        for bad in
            ["{}", "{value: b}", "{key: a, operator: Exists, value: b}", "{key: a, tolerationSeconds: 1}"]
        {
            assert!(read(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn resources_are_sent_as_kubernetes_writes_them() {
        let text = "{requests: {cpu: 0.05, memory: 64MiB}, limits: {memory: 1Gi}}";
        let read: Resources = serde_yaml::from_str(text).unwrap();
        let sent = serde_json::to_value(&read).unwrap();
        let wanted =
            serde_json::json!({"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}});
        assert_eq!((sent, read.beyond()), (wanted, None));
        let more: Resources = serde_yaml::from_str("{requests: {cpu: 2}, limits: {cpu: 1500m}}").unwrap();
        assert_eq!(more.beyond(), Some("cpu"));
    }

    #[test]
    fn where_pods_run_is_checked_at_its_line() {
        const HEAD: &str = "apiVersion: nodeprep.dev/v1alpha1\nkind: Cluster\nmetadata: {name: lab}\n";
        const BACKUP: &str = "backup:\n  location: {bucket: velero, region: r}\n  secrets: [s.yaml]\n";
        let parse = |text: &str| crate::intent::parse("nodeprep.yaml", format!("{HEAD}{text}").as_bytes());
        let openebs = |lines: &str| format!("provisioner:\n  openebs:\n    {lines}\n");
        let backup = |lines: &str| format!("{BACKUP}  {lines}\n");
        for (text, place, words) in [
            (openebs("replicas: 0"), ":6:", "nothing is provisioned"),
            (openebs("workload: DaemonSet\n    replicas: 2"), ":7:", "no replicas"),
            (openebs("replicas: -1"), ":6:", ""),
            (openebs("nodeSelector: {a b: c}"), ":6:", "not a label key"),
            (openebs("tolerations: [{}]"), ":6:", "operator: Exists"),
            (openebs("tolerations:\n    - {key: a, effect: Never}"), ":7:", "Never"),
            (
                openebs("tolerations:\n    - {operator: Exists}\n    - {key: a b, operator: Exists}"),
                ":8:",
                "not a label key",
            ),
            (openebs("tolerations:\n    - {key: a, operator: Exists, value: b}"), ":7:", "no `value`"),
            (openebs("resources: {requests: {cpu: lots}}"), ":6:", "amount of CPU"),
            (
                openebs("resources: {requests: {memory: 2Gi}, limits: {memory: 1Gi}}"),
                ":6:",
                "more is asked for",
            ),
            (openebs("resources: {requests: {disk: 1Gi}}"), ":6:", "disk"),
            (backup("server: {replicas: 2}"), ":7:", "replicas"),
            (backup("server: {resources: {requests: {cpu: 2}, limits: {cpu: 500m}}}"), ":7:", "cpu: more"),
            (backup("nodeAgent: {tolerations: [{value: x}]}"), ":7:", "operator: Exists"),
        ] {
            let error = parse(&text).unwrap_err();
            let place = format!("nodeprep.yaml{place}");
            assert!(error.what.contains(&place) && error.what.contains(words), "{text}: {}", error.what);
        }
        let all = openebs("replicas: 2\n    tolerations: []\n    resources: {}")
            + &backup("server: {}\n  nodeAgent: {}");
        let intent = parse(&all).unwrap();
        let Some(openebs) = intent.provisioner.openebs else { panic!("{all}") };
        assert_eq!((openebs.tolerations, openebs.resources), (Vec::new(), Resources::default()));
        let backup = intent.backup.unwrap();
        assert_eq!(backup.server.tolerations, Toleration::control_planes());
        assert_eq!(backup.node_agent.tolerations, Toleration::all());
    }
}

//! Rules of where the installed components' pods run.

use std::collections::BTreeMap;

use super::{Path, Rules};
use crate::intent::{Intent, Resources, Toleration, Workload};

impl Rules<'_> {
    pub(super) fn pods(&self, intent: &Intent) {
        if let Some(openebs) = &intent.provisioner.openebs {
            let at = ["provisioner".into(), "openebs".into()];
            self.selector(&at, &openebs.node_selector);
            self.tolerations(&at, &openebs.tolerations);
            self.resources(&at, &openebs.resources);
            let path = [at[0], at[1], "replicas".into()];
            let found = "a DaemonSet has one pod on every node that fits, and no replicas";
            let set = openebs.workload == Workload::DaemonSet && openebs.replicas.is_some();
            self.check(!set, &path, found, "leave `replicas` out, or write `workload: Deployment`");
            let found = "without a pod nothing is provisioned";
            self.check(openebs.replicas != Some(0), &path, found, "write 1 or more");
        }
        let Some(backup) = &intent.backup else { return };
        let at = ["backup".into(), "server".into()];
        self.selector(&at, &backup.server.node_selector);
        self.tolerations(&at, &backup.server.tolerations);
        self.resources(&at, &backup.server.resources);
        let at = ["backup".into(), "nodeAgent".into()];
        self.tolerations(&at, &backup.node_agent.tolerations);
        self.resources(&at, &backup.node_agent.resources);
    }

    fn selector(&self, at: Path<'_>, selector: &BTreeMap<String, String>) {
        for (key, value) in selector {
            let path = [at, &["nodeSelector".into(), key.as_str().into()]].concat();
            self.label(&path, key, value);
        }
    }

    fn tolerations(&self, at: Path<'_>, tolerations: &[Toleration]) {
        for (index, toleration) in tolerations.iter().enumerate() {
            let path = [at, &["tolerations".into(), index.into()]].concat();
            if let Some(key) = &toleration.key {
                self.label(&path, key, toleration.value.as_deref().unwrap_or_default());
            }
            let allowed =
                "write it as Kubernetes does: {key, operator: Exists, effect} or {key, value, effect}";
            let fault = toleration.fault();
            self.check(fault.is_none(), &path, fault.unwrap_or_default(), allowed);
        }
    }

    fn resources(&self, at: Path<'_>, resources: &Resources) {
        let beyond = resources.beyond();
        let what = beyond.unwrap_or_default();
        let path = [at, &["resources".into(), "requests".into(), what.into()]].concat();
        let found = format!("{what}: more is asked for than its limit allows");
        self.check(beyond.is_none(), &path, &found, "raise `limits`, or lower `requests`");
    }
}

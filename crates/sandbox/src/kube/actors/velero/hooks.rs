//! The hooks of a backup: which pods they are for, and whether their containers are there. Their commands are not run.

use serde_json::{Value, json};

use super::super::objects::list;
use super::super::{names, text};
use super::chosen::{Chosen, selects};
use super::results::Results;

/// How many hooks there were, and how many of them failed.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    attempted: usize,
    failed: usize,
}

impl Hooks {
    /// Runs those of a pod; false when one before it failed that the pod must not do without.
    pub(super) fn run(&mut self, backup: &Value, pod: &Value, results: &mut Results) -> bool {
        let good = self.run_all("pre", backup, pod, results);
        if good {
            self.run_all("post", backup, pod, results);
        }
        good
    }

    fn run_all(&mut self, when: &str, backup: &Value, pod: &Value, results: &mut Results) -> bool {
        let of_pod = list(backup, "/spec/hooks/resources").iter().filter(|hook| is_for(hook, pod));
        let mut good = true;
        for hook in of_pod.flat_map(|hook| list(hook, &format!("/{when}"))) {
            self.attempted += 1;
            let Some(why) = Some(&hook["exec"]).filter(|_| good).and_then(|exec| fault(exec, pod)) else {
                continue;
            };
            self.failed += 1;
            results.errors.of(names(pod).0, format!("Error executing hook: {why}"));
            if text(hook, "/exec/onError") != "Continue" {
                good = false;
                results.errors.of(names(pod).0, format!("Error running {when} hooks for pod: {why}"));
            }
        }
        good
    }

    /// As the API has it, which leaves zeros out.
    pub(super) fn status(&self) -> Value {
        let some = |count: usize| Some(count).filter(|count| *count > 0);
        json!({"hooksAttempted": some(self.attempted), "hooksFailed": some(self.failed)})
    }
}

fn is_for(hook: &Value, pod: &Value) -> bool {
    Chosen::of(hook, "Namespaces").takes(names(pod).0)
        && Chosen::of(hook, "Resources").takes_resource("pods")
        && selects(hook, pod)
}

fn fault(exec: &Value, pod: &Value) -> Option<String> {
    let name = text(exec, "/container");
    let there = list(pod, "/spec/containers").iter().any(|container| container["name"] == name);
    (!name.is_empty() && !there).then(|| format!("no such container: {name:?}"))
}

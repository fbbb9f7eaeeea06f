//! A plan as people read it, and as JSON; without secrets, as its diffs already are.

use serde_json::{Value, json};

use crate::plan::{Effect, Plan, Risk, Target};

/// The plan, a line per step; with the diff of everything that exists and would change, and of all steps when
/// `verbose`.
pub fn text(plan: &Plan, verbose: bool) -> String {
    let mut text = String::new();
    for step in plan.steps.iter().filter(|step| step.action.changes()) {
        let risk = match step.risk {
            Risk::Format => "  (formats an empty disk)",
            Risk::Partition => "  (adds a partition to a disk in use)",
            Risk::Destroy => "  (what is on it is lost)",
            Risk::None | Risk::Low => "",
        };
        let place = match &step.target {
            Target::Cluster => String::new(),
            Target::Node(address) => format!("{address}: "),
        };
        let sign = match step.effect {
            Effect::Delete => '-',
            Effect::Create => '+',
            Effect::Change | Effect::Wait => '~',
        };
        text.push_str(&format!("{sign} {place}{}{risk}\n", step.title));
        if step.effect == Effect::Create && !verbose {
            continue;
        }
        if !step.why.is_empty() {
            text.push_str(&format!("  {}\n", step.why));
        }
        if step.effect == Effect::Delete && !verbose {
            continue;
        }
        for line in step.diff.lines() {
            text.push_str(&format!("    {line}\n"));
        }
    }
    for skipped in &plan.skipped {
        text.push_str(&format!("- {}: skipped, {}\n", skipped.what, skipped.why));
    }
    for warning in &plan.warnings {
        text.push_str(&format!("! {warning}\n"));
    }
    let changes = plan.changes();
    match changes {
        0 => text.push_str("Nothing to change."),
        1 => text.push_str("1 change."),
        _ => text.push_str(&format!("{changes} changes.")),
    }
    match plan.reboots.as_deref() {
        None => {}
        Some([]) => text.push_str(" No node reboots."),
        Some(nodes) => text.push_str(&format!(" Reboots: {}.", nodes.join(", "))),
    }
    text.push('\n');
    text
}

pub fn json(cluster: &str, plan: &Plan) -> Value {
    let steps: Vec<Value> = plan
        .steps
        .iter()
        .map(|step| {
            json!({
                "id": step.id,
                "target": step.target,
                "title": step.title,
                "why": step.why,
                "risk": step.risk,
                "changes": step.action.changes(),
                "creates": step.effect == Effect::Create,
                "deletes": step.effect == Effect::Delete,
                "diff": step.diff,
            })
        })
        .collect();
    json!({
        "apiVersion": crate::intent::API_VERSION,
        "kind": "Plan",
        "cluster": cluster,
        "simulated": plan.simulated,
        "changes": plan.changes(),
        "steps": steps,
        "reboots": plan.reboots,
        "skipped": plan.skipped,
        "warnings": plan.warnings,
    })
}

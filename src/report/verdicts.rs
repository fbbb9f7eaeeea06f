//! Verdicts as a table for people and as JSON for programs.

use serde_json::{Value, json};

use super::table::render;
use crate::check::Outcome;
use crate::config_doc;
use crate::event::{CheckResult, Unit, Verdict};

/// The word of a verdict, as JSON has it.
fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Pass { .. } => "pass",
        Verdict::Warn { .. } => "warn",
        Verdict::Fail { .. } => "fail",
        Verdict::Skip { .. } => "skip",
    }
}

/// A sign for a word; colour only repeats what the sign says.
pub(super) fn mark(word: &str, colour: bool) -> String {
    let (sign, code) = match word {
        "pass" => ("✔", 32),
        "warn" => ("!", 33),
        "fail" => ("✘", 31),
        _ => ("-", 90),
    };
    if colour { format!("\u{1b}[{code}m{sign}\u{1b}[0m") } else { sign.to_owned() }
}

/// One check as one line, its hint below.
pub(super) fn describe(check: &CheckResult, colour: bool) -> String {
    let (text, hint) = detail(&check.verdict);
    let labels = labels(check);
    let hint = if hint.is_empty() { String::new() } else { format!("\n    hint: {hint}") };
    format!("{} {} {}{labels}: {text}{hint}", mark(word(&check.verdict), colour), check.id, check.subject)
}

fn labels(check: &CheckResult) -> String {
    if check.labels.is_empty() { String::new() } else { format!(" [{}]", check.labels.join(", ")) }
}

fn detail(verdict: &Verdict) -> (String, &str) {
    match verdict {
        Verdict::Pass { summary, measurements } => {
            let measured: Vec<String> = measurements
                .iter()
                .filter(|(_, m)| m.unit != Unit::YesNo)
                .map(|(name, m)| match m.unit {
                    Unit::BytesPerSecond => format!("{name} {:.1} MB/s", m.value / 1e6),
                    Unit::Seconds => format!("{name} {} s", number(m.value)),
                    Unit::Microseconds => format!("{name} {} µs", number(m.value)),
                    Unit::Iops => format!("{name} {} IOPS", number(m.value)),
                    Unit::YesNo => format!("{name} {}", m.value != 0.0),
                })
                .collect();
            let both = [summary.clone(), measured.join(", ")];
            (both.iter().filter(|s| !s.is_empty()).cloned().collect::<Vec<_>>().join("; "), "")
        }
        Verdict::Warn { why, hint } | Verdict::Fail { why, hint } => (why.clone(), hint),
        Verdict::Skip { why } => (why.clone(), ""),
    }
}

fn number(value: f64) -> String {
    if value.fract() == 0.0 || value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// The verdicts as a table; hints follow below it.
pub fn table(outcome: &Outcome) -> String {
    let checks = &outcome.results;
    let rows = checks.iter().map(|check| {
        let (text, _) = detail(&check.verdict);
        vec![
            check.id.clone(),
            check.subject.to_string(),
            format!("{}{}", word(&check.verdict), labels(check)),
            format!("{:.1}s", check.seconds),
            text,
        ]
    });
    let mut text = render(&["CHECK", "SUBJECT", "VERDICT", "TOOK", "DETAIL"], rows.collect());
    for check in checks {
        let (_, hint) = detail(&check.verdict);
        if !hint.is_empty() {
            text.push_str(&format!("hint for {} {}: {hint}\n", check.id, check.subject));
        }
    }
    for unrun in &outcome.errors {
        text.push_str(&format!("{} {} could not run: {}\n", unrun.id, unrun.subject, unrun.error));
        if let Some(hint) = &unrun.error.hint {
            text.push_str(&format!("hint for {} {}: {hint}\n", unrun.id, unrun.subject));
        }
    }
    config_doc::hide(&text)
}

/// The verdicts as one JSON document.
pub fn json(cluster: &str, outcome: &Outcome) -> Value {
    let errors: Vec<Value> = outcome
        .errors
        .iter()
        .map(|unrun| json!({ "id": unrun.id, "subject": unrun.subject, "error": unrun.error.what, "hint": unrun.error.hint }))
        .collect();
    let mut document = json!({
        "apiVersion": crate::intent::API_VERSION,
        "kind": "Verdicts",
        "cluster": cluster,
        "simulated": outcome.simulated,
        "passed": outcome.passed(&[], false).is_ok(),
        "checks": outcome.results,
        "errors": errors,
    });
    hide(&mut document);
    document
}

fn hide(value: &mut Value) {
    match value {
        Value::String(text) => *text = config_doc::hide(text),
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::Object(fields) => fields.iter_mut().for_each(|(_, value)| hide(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

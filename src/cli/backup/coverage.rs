//! `backup coverage`: how each claim of the cluster is protected.

use indicatif::BinaryBytes;
use jiff::Timestamp;

use super::span;
use crate::cli::Global;
use crate::cli::global::Output;
use crate::error::{Error, Kind, Result};
use crate::intent::Backup;
use crate::judge::protection::Protection;
use crate::observe::backups::protection;
use crate::report;

pub(super) async fn coverage(global: &Global, backup: &Backup, output: Output) -> Result<()> {
    let cluster = global.reach().cluster().await?;
    let mut claims = protection(&cluster, backup).await?;
    let now = cluster.time().await?;
    if output == Output::Json {
        let list = serde_json::json!({
            "apiVersion": crate::intent::API_VERSION, "kind": "CoverageList", "items": claims,
        });
        report::stdout(&format!("{list:#}\n"));
    } else {
        // The worst first.
        claims.sort_by_key(|claim| claim.standing);
        let header = ["CLAIM", "STATUS", "LAST GOOD BACKUP", "AGE", "SIZE", "SCHEDULES", "WHY"];
        report::stdout(&report::table(&header, claims.iter().map(|claim| claim_row(claim, now)).collect()));
    }
    let faults = claims.iter().filter(|claim| claim.standing.is_fault()).count();
    if faults == 0 {
        return Ok(());
    }
    Err(Error::new(
        Kind::CheckFailed,
        format!("{faults} of {} claims are not protected by a backup", claims.len()),
    )
    .hint("let a schedule of `backup.schedules` take them, or say in `backup.exceptions` why they need none"))
}

fn claim_row(claim: &Protection, now: Timestamp) -> Vec<String> {
    let last = claim.last.as_ref();
    let or_dash = |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".into());
    vec![
        claim.claim.to_string(),
        claim.standing.to_string(),
        or_dash(last.map(|last| last.backup.clone())),
        or_dash(last.map(|last| span(now.as_second() - last.at.as_second()))),
        or_dash(last.map(|last| BinaryBytes(last.bytes.unwrap_or_default()).to_string())),
        or_dash(Some(claim.schedules.join(", "))),
        claim.why.clone(),
    ]
}

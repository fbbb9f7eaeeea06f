//! Every claim of the cluster is in a good backup that is fresh, and goes on being backed up; or the file says why not.

use super::{Check, Per, Run, Stop, Subject};
use crate::error::first;
use crate::event::Verdict;
use crate::judge::protection::{Protection, Standing};
use crate::observe::backups::protection;

pub(super) const CHECK: Check = Check {
    id: "backup-coverage",
    title: "a good backup holds the files of every claim, or the file says why none does",
    per: Per::Backup,
    needs: &[],
    judge: |run, subject| Box::pin(judge(run, subject)),
};

/// So many claims are named; `nodeprep backup coverage` lists them all.
const NAMED: usize = 5;
const HINT: &str = "`nodeprep backup coverage` tells it of every claim; `backup.schedules` take what they cover, and \
                    `backup.exceptions` says of a claim why it needs no backup";

async fn judge(run: &Run<'_>, _: &Subject<'_>) -> Result<Verdict, Stop> {
    let Some(backup) = &run.ctx.intent.backup else {
        return Ok(Verdict::Skip { why: "the file has no `backup`".into() });
    };
    Ok(verdict(&protection(&run.ctx.cluster, backup).await?))
}

fn verdict(claims: &[Protection]) -> Verdict {
    let of = |wanted: fn(Standing) -> bool| -> Vec<&Protection> {
        claims.iter().filter(|claim| wanted(claim.standing)).collect()
    };
    let (faults, warnings) = (of(Standing::is_fault), of(Standing::is_warning));
    let count = |standing| claims.iter().filter(|claim| claim.standing == standing).count();
    let mut summary = format!("{} of {} claims covered", count(Standing::Covered), claims.len());
    for standing in [Standing::Elsewhere, Standing::Excepted, Standing::Unbound] {
        match count(standing) {
            0 => {}
            count => summary += &format!(", {count} {standing}"),
        }
    }
    match (faults.is_empty(), warnings.is_empty()) {
        (false, _) => Verdict::fail(format!("{}; {summary}", told(&faults)), HINT),
        (true, false) => Verdict::warn(format!("{}; {summary}", told(&warnings)), HINT),
        (true, true) if claims.is_empty() => Verdict::pass("there are no claims"),
        (true, true) => Verdict::pass(summary),
    }
}

fn told(claims: &[&Protection]) -> String {
    let one = |claim: &&Protection| format!("{} is {}: {}", claim.claim, claim.standing, claim.why);
    first(claims.iter().map(one), NAMED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::coverage::ClaimName;

    #[test]
    fn an_uncovered_claim_fails_one_that_waits_warns_and_the_rest_is_counted() {
        let claim = |name: &str, standing| Protection {
            claim: ClaimName { namespace: "a".into(), name: name.into() },
            standing,
            why: "why".into(),
            schedules: Vec::new(),
            last: None,
        };
        let good = || vec![claim("x", Standing::Covered), claim("y", Standing::Excepted)];
        assert_eq!(verdict(&[]), Verdict::pass("there are no claims"));
        assert_eq!(verdict(&good()), Verdict::pass("1 of 2 claims covered, 1 excepted"));
        for standing in [Standing::Due, Standing::Empty, Standing::Unscheduled] {
            let claims = [good(), vec![claim("z", standing)]].concat();
            assert!(matches!(verdict(&claims), Verdict::Warn { .. }), "{standing}");
        }
        for standing in [Standing::Uncovered, Standing::Stale, Standing::Unknown] {
            let claims = [good(), vec![claim("z", standing), claim("w", Standing::Due)]].concat();
            let Verdict::Fail { why, .. } = verdict(&claims) else { panic!("{standing}") };
            assert!(why.starts_with(&format!("a/z is {standing}: why; 1 of 4 claims covered")), "{why}");
        }
        let many: Vec<Protection> = (0..9).map(|i| claim(&i.to_string(), Standing::Uncovered)).collect();
        let Verdict::Fail { why, .. } = verdict(&many) else { panic!("all are uncovered") };
        assert!(why.contains("a/4 is") && !why.contains("a/5 is") && why.contains("and 4 more"), "{why}");
    }
}

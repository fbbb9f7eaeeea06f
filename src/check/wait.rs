//! Waiting with a deadline: every wait looks at least once a second and says what it last saw.

use std::future::Future;
use std::time::Duration;

use tokio::time::timeout;

use super::Stop;
use crate::error::{Error, Kind};
use crate::event::Events;
pub(super) use crate::wait::Look;
use crate::wait::{Late, Wait};

const EVERY: Duration = Duration::from_millis(500);
/// One look that takes longer than this counts as unanswered.
const ONE_LOOK: Duration = Duration::from_secs(30);
const SILENT: &str = "the API server does not answer";
const REACHABLE: &str = "is the API server up, and reachable from here?";

/// Looks until it is done, or `limit` has passed: then the inner error holds the last reason.
/// An API that can't be reached for a moment counts as "not yet"; one that is away at the end is the error.
pub(super) async fn until<T, F, Fut>(
    events: &Events,
    what: &str,
    limit: Duration,
    mut look: F,
) -> Result<Result<T, String>, Stop>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Look<T>, Stop>>,
{
    let longest = ONE_LOOK.min(limit).max(EVERY);
    let ended =
        Wait::new(what, limit, events).every(EVERY).until(async || match timeout(longest, look()).await {
            Ok(Ok(Look::Done(value))) => Ok(Look::Done(Ok(value))),
            Ok(Ok(Look::NotYet(open))) => Ok(Look::NotYet(open)),
            Ok(Err(Stop::Error(error))) if error.kind == Kind::Unavailable => Err(error),
            Ok(Err(stop)) => Ok(Look::Done(Err(stop))),
            Err(_) => Err(Error::unavailable(SILENT).hint(REACHABLE)),
        });
    match ended.await {
        Ok(done) => done.map(Ok),
        Err(Late::Open { last, .. }) => Ok(Err(last)),
        Err(Late::Away { error, .. } | Late::Never(error)) => Err(Stop::Error(error)),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn a_wait_ends_when_done_at_its_limit_or_with_the_error() {
        let (silent, looks) = (Events::new(String::new, |_| {}), Cell::new(0));
        let second = until(&silent, "x", Duration::from_secs(9), || async {
            looks.set(looks.get() + 1);
            Ok(if looks.get() == 2 { Look::Done(looks.get()) } else { Look::not_yet("no") })
        });
        assert_eq!(second.await.unwrap(), Ok(2));

        let short = Duration::from_millis(600);
        let never = until(&silent, "x", short, || async { Ok(Look::<()>::not_yet("still Pending")) });
        assert_eq!(never.await.unwrap(), Err("still Pending".to_owned()));

        let unreachable = until(&silent, "x", short, || async {
            Err::<Look<()>, _>(Stop::Error(Error::unavailable("connection refused")))
        });
        let Err(Stop::Error(away)) = unreachable.await else { panic!() };
        assert_eq!((away.kind, away.what.as_str()), (Kind::Unavailable, "connection refused"));

        let broken = until(&silent, "x", short, || async { Err::<Look<()>, _>(Stop::fail("a", "b")) });
        assert!(broken.await.is_err());

        let hung = until(&silent, "x", short, std::future::pending::<Result<Look<()>, Stop>>);
        let Err(Stop::Error(away)) = hung.await else { panic!() };
        assert_eq!((away.kind, away.what.as_str()), (Kind::Unavailable, SILENT));
    }
}

//! The one way to wait: look, say what does not exist yet, and look again, until it is there or the time is over.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::error::{Error, Kind, Result};
use crate::event::Events;

/// How often is looked, where nothing else is said.
const EVERY: Duration = Duration::from_secs(3);

/// What a look found.
#[derive(Debug)]
pub enum Look<T> {
    Done(T),
    NotYet(Open),
}

impl<T> Look<T> {
    /// What is waited for does not exist yet, and why.
    pub fn not_yet(why: impl Into<String>) -> Self {
        Self::NotYet(Open { what: None, why: why.into() })
    }
}

/// What does not exist yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Which of several things that are waited for; nothing where it is the only one.
    pub what: Option<String>,
    pub why: String,
}

/// How a wait ended that did not see what it waited for.
#[derive(Debug)]
pub enum Late {
    /// The time is over: what was open then, and why.
    Open { what: String, last: String },
    /// The time is over, and who was asked did not answer by then, or (of a patient wait) answered with an error.
    Away { what: String, error: Error },
    /// A look failed in a way that waiting does not heal.
    Never(Error),
}

impl Late {
    /// The error of what was open. Who does not answer is said to be away; an error that waiting does not heal is itself.
    pub fn or(self, open: impl FnOnce(String, String) -> Error) -> Error {
        match self {
            Self::Open { what, last } => open(what, last),
            Self::Away { what, error } => error.at(format!("while waiting for {what}")),
            Self::Never(error) => error,
        }
    }

    /// As [`or`](Self::or), with what helps when the time is over.
    pub fn or_hint(self, hint: &str, open: impl FnOnce(String, String) -> Error) -> Error {
        match self {
            Self::Never(error) => error,
            late => late.or(open).hint(hint),
        }
    }
}

/// After which errors of a look is waited on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    None,
    /// Of who can't be reached.
    Away,
    All,
}

/// A wait with an end.
#[derive(Debug)]
pub struct Wait<'a> {
    what: String,
    within: Duration,
    every: Duration,
    later: bool,
    patience: Patience,
    events: &'a Events,
}

impl<'a> Wait<'a> {
    /// For `what`, `within` this time; each new reason is told to `events`.
    pub fn new(what: impl Into<String>, within: Duration, events: &'a Events) -> Self {
        Self { what: what.into(), within, every: EVERY, later: false, patience: Patience::Away, events }
    }

    /// Looks this often.
    pub fn every(self, every: Duration) -> Self {
        Self { every, ..self }
    }

    /// Does not look at once: what is looked for takes a moment, or may be seen as it was before.
    pub fn later(self) -> Self {
        Self { later: true, ..self }
    }

    /// Waits on after every error: who is asked is only beginning, and may refuse now what it takes later.
    pub fn patient(self) -> Self {
        Self { patience: Patience::All, ..self }
    }

    /// Every error ends the wait, also of who is away: its looks act, and what is not known must not be done again.
    pub fn first_error_ends(self) -> Self {
        Self { patience: Patience::None, ..self }
    }

    /// Looks at least once, and a last time when the time is over. Who can't be reached for a moment is waited for.
    ///
    /// # Errors
    /// See [`Late`].
    pub async fn until<T>(self, look: impl AsyncFnMut() -> Result<Look<T>>) -> std::result::Result<T, Late> {
        self.woken(look, async |most| sleep(most).await).await
    }

    /// The same, where `wake` may end the time between two looks, which it is given, before it is over.
    ///
    /// # Errors
    /// See [`Late`].
    pub async fn woken<T>(
        self,
        mut look: impl AsyncFnMut() -> Result<Look<T>>,
        mut wake: impl AsyncFnMut(Duration),
    ) -> std::result::Result<T, Late> {
        let deadline = Instant::now() + self.within;
        let mut said = None;
        if self.later {
            wake(self.every.min(self.within)).await;
        }
        loop {
            // On the heap: looks wait for looks, and all of them together are too large for a stack.
            let (open, away) = match Box::pin(look()).await {
                Ok(Look::Done(value)) => return Ok(value),
                Ok(Look::NotYet(open)) => (open, None),
                Err(error) if self.waits_on(&error) => {
                    (Open { what: None, why: error.what.clone() }, Some(error))
                }
                Err(error) => return Err(Late::Never(error)),
            };
            let (what, last) = (open.what.unwrap_or_else(|| self.what.clone()), open.why);
            let told = Some((what.clone(), last.clone()));
            if said != told {
                self.events.waiting(&what, &last);
                said = told;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(match away {
                    // Nothing was waited for.
                    Some(error) if self.within.is_zero() => Late::Never(error),
                    Some(error) => Late::Away { what, error },
                    None => Late::Open { what, last },
                });
            }
            wake(self.every.min(left)).await;
        }
    }

    fn waits_on(&self, error: &Error) -> bool {
        match self.patience {
            Patience::None => false,
            Patience::Away => error.kind == Kind::Unavailable,
            Patience::All => true,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    fn quiet() -> Events {
        Events::new(String::new, |_| {})
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_when_done_when_the_time_is_over_or_when_it_can_never_be_done() {
        let (events, began) = (quiet(), Instant::now());
        let mut looks = 0;
        let third = Wait::new("x", TEN, &events).until(async || {
            looks += 1;
            Ok(if looks == 3 { Look::Done(looks) } else { Look::not_yet("no") })
        });
        assert_eq!(third.await.unwrap(), 3);
        assert_eq!(began.elapsed(), EVERY * 2);

        let open =
            Wait::new("x", TEN, &events).until(async || Ok(Look::<()>::not_yet("still Pending"))).await;
        let Err(Late::Open { what, last }) = open else { panic!() };
        assert_eq!((what.as_str(), last.as_str()), ("x", "still Pending"));
        assert_eq!(began.elapsed(), EVERY * 2 + TEN);

        let away =
            Wait::new("x", TEN, &events).until(async || Err::<Look<()>, _>(Error::unavailable("gone")));
        let error = away.await.unwrap_err().or(|_, _| panic!());
        assert_eq!((error.kind, error.what.as_str()), (Kind::Unavailable, "while waiting for x: gone"));

        let never = Wait::new("x", TEN, &events).until(async || Err::<Look<()>, _>(Error::refused("no")));
        assert!(matches!(never.await, Err(Late::Never(error)) if error.kind == Kind::Refused));
        assert_eq!(began.elapsed(), EVERY * 2 + TEN * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_a_look_without_time_and_a_last_one_at_its_end() {
        let (events, began) = (quiet(), Instant::now());
        assert!(Wait::new("x", Duration::ZERO, &events).until(async || Ok(Look::Done(()))).await.is_ok());
        let at_the_end = Wait::new("x", TEN, &events)
            .until(async || Ok(if began.elapsed() >= TEN { Look::Done(()) } else { Look::not_yet("no") }));
        assert!(at_the_end.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn news_end_the_time_between_two_looks_and_what_takes_a_moment_is_not_looked_at_at_once() {
        let (events, began) = (quiet(), Instant::now());
        let second = Duration::from_secs(1);
        let mut looks = 0;
        let look = async || {
            looks += 1;
            Ok(if looks == 3 { Look::Done(()) } else { Look::not_yet("no") })
        };
        let woken = Wait::new("x", TEN, &events).woken(look, async |most| sleep(second.min(most)).await);
        assert!(woken.await.is_ok() && began.elapsed() == second * 2);
        assert!(Wait::new("x", TEN, &events).later().until(async || Ok(Look::Done(()))).await.is_ok());
        assert_eq!(began.elapsed(), second * 2 + EVERY);
    }

    #[tokio::test(start_paused = true)]
    async fn how_long_an_error_is_waited_on_is_said() {
        let events = quiet();
        for (error, waits) in
            [(Error::refused("no"), [false, true, false]), (Error::unavailable("no"), [true, true, false])]
        {
            let wait = || Wait::new("x", TEN, &events);
            for (wait, waits) in [wait(), wait().patient(), wait().first_error_ends()].into_iter().zip(waits)
            {
                let began = Instant::now();
                assert!(wait.until(async || Err::<Look<()>, _>(error.clone())).await.is_err());
                assert_eq!(began.elapsed() == TEN, waits, "{error}");
            }
        }
    }
}

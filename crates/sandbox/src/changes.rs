//! Who waits for a change hears of it in the order in which they began to wait, so that a run in memory is the same each time:
//! a channel of tokio's that many watch wakes them in a random one.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

/// Counts changes, and wakes who waits for one.
#[derive(Debug, Default)]
pub(crate) struct Changes(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    count: AtomicU64,
    over: AtomicBool,
    woken: Notify,
}

impl Changes {
    pub(crate) fn tell(&self) {
        self.0.count.fetch_add(1, Ordering::SeqCst);
        self.0.woken.notify_waiters();
    }

    /// Of those from now on.
    pub(crate) fn seen(&self) -> Seen {
        let mut seen = Seen { shared: Arc::clone(&self.0), count: 0 };
        seen.mark_unchanged();
        seen
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::SeqCst);
        self.0.woken.notify_waiters();
    }
}

/// The changes that somebody has seen.
#[derive(Debug)]
pub struct Seen {
    shared: Arc<Shared>,
    count: u64,
}

impl Seen {
    /// All until now.
    pub(crate) fn mark_unchanged(&mut self) {
        self.count = self.shared.count.load(Ordering::SeqCst);
    }

    /// Waits until there is one that was not seen; none when there will never be another.
    pub(crate) async fn changed(&mut self) -> Option<()> {
        loop {
            let mut woken = pin!(self.shared.woken.notified());
            woken.as_mut().enable();
            let count = self.shared.count.load(Ordering::SeqCst);
            if count != self.count {
                self.count = count;
                return Some(());
            }
            if self.shared.over.load(Ordering::SeqCst) {
                return None;
            }
            woken.await;
        }
    }
}

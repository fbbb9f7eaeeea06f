//! What a machine is, beyond what a plan needs: its extensions and its clock.

use futures::stream::{self, StreamExt};
use jiff::{SignedDuration, Timestamp};
use prost_types::Timestamp as Wire;

use super::nodes::{AT_ONCE, handle};
use crate::error::{Error, Result};
use crate::model::node::{Node, Observed};
use crate::talos::resources::{Extension, TimeStatus, id};
use crate::talos::{self, Client};

/// A machine's extensions and clock.
#[derive(Debug)]
pub struct About {
    /// Names and versions.
    pub extensions: Observed<Vec<(String, String)>>,
    /// Whether the clock follows a time server; nothing when the machine does not say.
    pub synced: Observed<Option<bool>>,
    pub clock: Observed<Clock>,
}

/// How a machine's clock stands to others; positive when it is ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// To this machine's; zero when the call's own duration explains the difference.
    pub ahead_of_here: SignedDuration,
    /// To its time server's.
    pub ahead_of_server: SignedDuration,
}

/// Looks at machines that were read already, several at a time; in their order.
pub async fn about_all(client: &Client, nodes: &[Node]) -> Vec<Result<About>> {
    let look = |node| async move {
        match handle(client, node) {
            Ok(handle) => Ok(about(&handle).await),
            Err(error) => Err(error),
        }
    };
    stream::iter(nodes).map(look).buffered(AT_ONCE).collect().await
}

async fn about(node: &talos::Node) -> About {
    let (extensions, synced, clock) =
        tokio::join!(node.specs::<Extension>(), node.spec::<TimeStatus>(id::TIME), clock(node));
    let named = |extension: Extension| (extension.metadata.name, extension.metadata.version);
    About {
        extensions: extensions.map(|all| all.into_iter().map(|found| named(found.spec)).collect()),
        synced: synced.map(|found| found.map(|found| found.spec.synced && !found.spec.sync_disabled)),
        clock,
    }
}

async fn clock(node: &talos::Node) -> Observed<Clock> {
    let before = Timestamp::now();
    let told = node.time().await?;
    let after = Timestamp::now();
    let read = |time: Option<Wire>| {
        let time = time.and_then(|time| Timestamp::new(time.seconds, time.nanos).ok());
        time.ok_or_else(|| Error::failed(format!("node {}: tells no time", node.address())))
    };
    let (local, server) = (read(told.localtime)?, read(told.remotetime)?);
    Ok(Clock { ahead_of_here: ahead((before, local, after)), ahead_of_server: local.duration_since(server) })
}

/// How far a clock is ahead that was read between two moments of ours.
fn ahead((before, local, after): (Timestamp, Timestamp, Timestamp)) -> SignedDuration {
    if local < before {
        local.duration_since(before)
    } else if local > after {
        local.duration_since(after)
    } else {
        SignedDuration::ZERO
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_call_does_not_explain_is_a_difference_of_clocks() {
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        for (local, seconds) in [(100, 0), (105, 0), (110, 0), (99, -1), (111, 1), (0, -100), (3710, 3600)] {
            assert_eq!(ahead((at(100), at(local), at(110))).as_secs(), seconds, "{local}");
        }
    }
}

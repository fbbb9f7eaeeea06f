//! Calls to several machines at once: each answer says whose it is.

use jiff::Timestamp;
use tonic::Status;

use super::{Api, Caller};
use crate::talos::proto::common::Metadata;
use crate::talos::proto::{machine, storage, time};
use crate::world::World;

/// A reply that says whose it is.
pub(super) trait Reply: Default {
    fn metadata(&mut self) -> &mut Option<Metadata>;
}

macro_rules! replies {
    ($($reply:ty),*) => {
        $(impl Reply for $reply {
            fn metadata(&mut self) -> &mut Option<Metadata> {
                &mut self.metadata
            }
        })*
    };
}

replies!(
    machine::ApplyConfiguration,
    machine::Bootstrap,
    machine::EtcdAlarm,
    machine::EtcdMembers,
    machine::EtcdStatus,
    machine::Mounts,
    machine::Reboot,
    machine::ServiceList,
    machine::Version,
    storage::BlockDeviceWipe,
    time::Time
);

impl Api {
    /// Asks every machine that is named; whoever asked for several is told which answer is whose.
    pub(super) async fn each<T: Reply>(
        &self,
        caller: &Caller,
        name: &str,
        act: impl Fn(&mut World, Timestamp, &str) -> Result<T, Status>,
    ) -> Result<Vec<T>, Status> {
        let mut messages = Vec::new();
        for node in &caller.nodes {
            let metadata = Metadata { hostname: node.clone(), error: String::new() };
            match self.call(caller, node, name, &act).await {
                Ok(mut message) => {
                    if caller.many {
                        *message.metadata() = Some(metadata);
                    }
                    messages.push(message);
                }
                Err(status) if caller.many => {
                    let mut failed = T::default();
                    *failed.metadata() = Some(Metadata { error: status.message().to_owned(), ..metadata });
                    messages.push(failed);
                }
                Err(status) => return Err(status),
            }
        }
        Ok(messages)
    }
}

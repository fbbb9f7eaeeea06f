//! The calls about the machine itself: its version, mounts, services, files and clock, and the wipe of block devices.

use std::time::Duration;

use tonic::{Code, Response, Status};

use super::client::{Node, status_is_theirs};
use super::{MAX_MESSAGE, fault, proto};
use crate::error::{Error, Result};
use crate::talos::proto::machine;
use crate::talos::proto::storage::block_device_wipe_descriptor::Method;
use crate::talos::proto::storage::storage_service_client::StorageServiceClient;
use crate::talos::proto::storage::{BlockDeviceWipeDescriptor, BlockDeviceWipeRequest};
use crate::talos::proto::time::time_service_client::TimeServiceClient;

/// Overwriting a whole disk takes hours.
const ZEROES_DEADLINE: Duration = Duration::from_secs(24 * 3600);

/// A block device to wipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The kernel's name at this boot, without `/dev/`.
    pub name: String,
    /// Take the partition out of the GPT.
    pub drop: bool,
}

impl Node {
    pub async fn version(&self) -> Result<machine::Version> {
        let call = || async { self.machine().version(self.request(())).await };
        let reply = self.reading(call).await?;
        self.only(reply.messages, |message| message.metadata.as_ref())
    }

    /// Mounted file systems with their size and free space in bytes.
    pub async fn mounts(&self) -> Result<Vec<machine::MountStat>> {
        let call = || async { self.machine().mounts(self.request(())).await };
        let reply = self.reading(call).await?;
        Ok(self.only(reply.messages, |message| message.metadata.as_ref())?.stats)
    }

    pub async fn services(&self) -> Result<Vec<machine::ServiceInfo>> {
        let call = || async { self.machine().service_list(self.request(())).await };
        let reply = self.reading(call).await?;
        Ok(self.only(reply.messages, |message| message.metadata.as_ref())?.services)
    }

    /// A regular file of the machine, or none when there is none at this path; needs the role os:admin.
    ///
    /// # Errors
    /// `Kind::Failed` when it is longer than `most` bytes, or not a regular file.
    pub async fn read(&self, path: &str, most: usize) -> Result<Option<Vec<u8>>> {
        let found = self.reading(|| async {
            match self.bytes(path, most).await {
                Err(status) if status.code() == Code::NotFound && status_is_theirs(&status) => Ok(None),
                other => other.map(Some),
            }
            .map(Response::new)
        });
        found.await
    }

    async fn bytes(&self, path: &str, most: usize) -> Result<Vec<u8>, Status> {
        let request = self.request(machine::ReadRequest { path: path.into() });
        let mut chunks = self.machine().read(request).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.message().await? {
            if let Some(metadata) = chunk.metadata.filter(|metadata| !metadata.error.is_empty()) {
                return Err(Status::unknown(metadata.error));
            }
            bytes.extend(chunk.bytes);
            if bytes.len() > most {
                return Err(Status::out_of_range(format!("{path} is longer than {most} bytes")));
            }
        }
        Ok(bytes)
    }

    /// The machine's clock beside that of its time server, which it asks for this; an error when that does not answer.
    pub async fn time(&self) -> Result<proto::time::Time> {
        let client = || TimeServiceClient::new(self.client.channel.clone());
        let reply = self.reading(|| async { client().time(self.request(())).await }).await?;
        self.only(reply.messages, |message| message.metadata.as_ref())
    }

    /// Wipes block devices in this order, once all are found to be unused: signatures and tables, or every byte with
    /// `zeroes`. The node itself refuses what is mounted, what a volume is on, and what another device lies on.
    ///
    /// # Errors
    /// `Kind::Refused` with the node's own words; `Kind::Unavailable` when the reply was lost, and it may have been
    /// done.
    pub async fn wipe(&self, devices: &[Device], zeroes: bool) -> Result<()> {
        let method = if zeroes { Method::Zeroes } else { Method::Fast };
        let describe = |device: &Device| BlockDeviceWipeDescriptor {
            device: device.name.clone(),
            method: method.into(),
            drop_partition: device.drop,
            ..Default::default()
        };
        let message = BlockDeviceWipeRequest { devices: devices.iter().map(describe).collect() };
        let mut client = StorageServiceClient::new(self.client.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let request = self.request(message);
        let call = async move {
            match client.block_device_wipe(request).await {
                Err(status) if status.code() == Code::FailedPrecondition && status_is_theirs(&status) => {
                    Ok(Response::new(Err(fault::said(status.message()))))
                }
                other => other.map(|reply| Response::new(Ok(reply.into_inner()))),
            }
        };
        let reply = if zeroes { self.within(ZEROES_DEADLINE, call).await } else { self.unary(call).await }?;
        let refused = |text: String| {
            Error::refused(format!("node {}: refuses to wipe: {text}", self.address()))
                .hint("what uses the device has to let go of it first")
        };
        let reply = reply.map_err(refused)?;
        self.only(reply.messages, |message| message.metadata.as_ref()).map(|_| ())
    }
}

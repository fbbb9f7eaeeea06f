//! The calls about etcd, which control planes answer.

use super::client::Node;
use crate::error::Result;
use crate::talos::proto::machine;

impl Node {
    /// The members of etcd, as a quorum of them agrees.
    ///
    /// # Errors
    /// The machine is no control plane, its etcd does not run, or there is no quorum.
    pub async fn etcd_members(&self) -> Result<Vec<machine::EtcdMember>> {
        let request = machine::EtcdMemberListRequest::default();
        let call = || async { self.machine().etcd_member_list(self.request(request)).await };
        let reply = self.reading(call).await?;
        Ok(self.only(reply.messages, |message| message.metadata.as_ref())?.members)
    }

    /// What this machine's member says of itself.
    pub async fn etcd_status(&self) -> Result<machine::EtcdMemberStatus> {
        let call = || async { self.machine().etcd_status(self.request(())).await };
        let reply = self.reading(call).await?;
        let status = self.only(reply.messages, |message| message.metadata.as_ref())?;
        Ok(status.member_status.unwrap_or_default())
    }

    /// The alarms of all members, as this machine's knows them.
    pub async fn etcd_alarms(&self) -> Result<Vec<machine::EtcdMemberAlarm>> {
        let call = || async { self.machine().etcd_alarm_list(self.request(())).await };
        let reply = self.reading(call).await?;
        Ok(self.only(reply.messages, |message| message.metadata.as_ref())?.member_alarms)
    }
}

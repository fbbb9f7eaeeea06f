//! etcd's quorum: a control plane has its turn only while etcd is well, and is rebooted only when the other members can
//! do without it.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::{join, join_all};
use tonic::transport::Uri;

use super::seen::await_open;
use crate::error::{Error, Result};
use crate::event::Events;
use crate::session::Reached;
use crate::talos::proto::machine::etcd_member_alarm::AlarmType;
use crate::talos::proto::machine::{EtcdMember, EtcdMemberAlarm, EtcdMemberStatus};
use crate::talos::resources::MachineStatus;
use crate::talos::{Client, Node};

/// How Talos calls etcd among its services.
const SERVICE: &str = "etcd";
const RUNS: &str = "Running";

/// A member, as the others list it and as it answers for itself.
#[derive(Debug, Clone)]
struct JudgedMember {
    id: u64,
    name: String,
    voter: bool,
    /// The member that it takes for the leader; else why it is not to be counted on.
    leader: Result<u64, String>,
}

/// What all members together say.
#[derive(Debug, Clone, Default)]
struct Etcd {
    members: Vec<JudgedMember>,
    /// Such as `NOSPACE on talos-1`.
    alarms: BTreeSet<String>,
    /// The member of the node that was asked.
    own: u64,
}

/// Whether etcd runs on the node; if so it must be well, and without the node too when that is to `reboot`. It does not
/// on a worker, nor anywhere where there is no `cluster` yet.
///
/// # Errors
/// `Kind::Refused` when it is not well.
pub(in crate::session) async fn holds(
    client: &Client,
    node: &Node,
    cluster: &Reached,
    reboot: bool,
) -> Result<bool> {
    let refused = |why: String| {
        Error::refused(format!("{}: {why}", node.address()))
            .hint("`talosctl etcd members`, `etcd status` and `etcd alarm list` show more; run this again when etcd is well")
    };
    match state(node).await?.as_deref() {
        Some(RUNS) => {}
        Some(state) if cluster.is_one() => return Err(refused(format!("etcd does not run, it is {state}"))),
        _ => return Ok(false),
    }
    let etcd = Etcd::read(client, node).await.map_err(|error| refused(format!("etcd: {}", error.what)))?;
    etcd.judge(reboot).map_err(refused)?;
    Ok(true)
}

/// Waits until etcd is well again after the node had its turn.
pub(in crate::session) async fn again(
    client: &Client,
    node: &Node,
    within: Duration,
    events: &Events,
) -> Result<()> {
    let check = async || {
        let why = match state(node).await?.as_deref() {
            Some(RUNS) => Etcd::read(client, node).await?.judge(false).err(),
            state => Some(format!("it is {}", state.unwrap_or("gone"))),
        };
        Ok(why.map(|why| ("etcd to be well".to_owned(), why)))
    };
    await_open::<MachineStatus>(node, within, events, check).await.map_err(|late| {
        late.or_hint("no other control plane was touched; `talosctl etcd status` shows more", |_, last| {
            Error::failed(format!(
                "{}: etcd is not well within {}s: {last}",
                node.address(),
                within.as_secs()
            ))
        })
    })
}

/// Waits until etcd is well and has so many members, as the node sees it.
pub(in crate::session) async fn formed(
    client: &Client,
    address: &str,
    members: usize,
    within: Duration,
    events: &Events,
) -> Result<()> {
    let node = client.node(address)?;
    let check = async || {
        let why = match state(&node).await?.as_deref() {
            Some(RUNS) => {
                let etcd = Etcd::read(client, &node).await?;
                let voters = etcd.members.iter().filter(|member| member.voter).count();
                let joined = format!("{voters} of {members} members have joined");
                etcd.judge(false).err().or_else(|| (voters < members).then_some(joined))
            }
            state => Some(format!("it is {}", state.unwrap_or("gone"))),
        };
        Ok(why.map(|why| ("etcd to be well".to_owned(), why)))
    };
    await_open::<MachineStatus>(&node, within, events, check).await.map_err(|late| {
        let hint =
            "`talosctl service etcd` and `talosctl logs etcd` show more; run this again to go on waiting";
        late.or_hint(hint, |_, last| {
            Error::failed(format!("{address}: etcd is not well within {}s: {last}", within.as_secs()))
        })
    })
}

/// The state of the node's etcd, if it has one.
async fn state(node: &Node) -> Result<Option<String>> {
    let services = node.services().await?;
    Ok(services.into_iter().find(|service| service.id == SERVICE).map(|service| service.state))
}

impl Etcd {
    /// Asks the node for the members, and each of them how it is.
    async fn read(client: &Client, node: &Node) -> Result<Self> {
        let (members, own) = (node.etcd_members().await?, node.etcd_status().await?.member_id);
        let asked = members.iter().map(async |member| {
            let node = client.node(&address(member))?;
            let (status, alarms) = join(node.etcd_status(), node.etcd_alarms()).await;
            status.and_then(|status| Ok((status, alarms?)))
        });
        let answers = join_all(asked).await;
        let mut etcd = Self { own, ..Self::default() };
        for (member, answer) in members.iter().zip(answers) {
            let (leader, alarms) = match answer {
                Ok((status, alarms)) => (leader(&status), alarms),
                Err(error) => (Err(error.what), Vec::new()),
            };
            let name = member.hostname.clone();
            etcd.members.push(JudgedMember { id: member.id, name, voter: !member.is_learner, leader });
            etcd.alarms.extend(alarms.iter().filter_map(|alarm| told(alarm, &members)));
        }
        Ok(etcd)
    }

    /// Why the node had better be left alone: whatever is wrong with etcd, or the quorum that would be lost while the node
    /// reboots. A lone member has no quorum to lose.
    fn judge(&self, reboot: bool) -> Result<(), String> {
        if let Some(alarm) = self.alarms.first() {
            return Err(format!("etcd has the alarm {alarm}"));
        }
        let voters: Vec<&JudgedMember> = self.members.iter().filter(|member| member.voter).collect();
        let leaders: BTreeSet<u64> = voters.iter().filter_map(|member| member.leader.clone().ok()).collect();
        if leaders.len() > 1 {
            return Err("the members of etcd do not agree on their leader".to_owned());
        }
        let away = |member: &JudgedMember| reboot && voters.len() > 1 && member.id == self.own;
        let left = voters.iter().filter(|member| member.leader.is_ok() && !away(member)).count();
        let needed = voters.len() / 2 + 1;
        if left >= needed {
            return Ok(());
        }
        let ill = voters
            .iter()
            .filter_map(|member| Some(format!("; {}: {}", member.name, member.leader.as_ref().err()?)));
        let without = if reboot { " without this node" } else { "" };
        Err(format!(
            "etcd has {left} of {} members{without}, and its quorum is {needed}{}",
            voters.len(),
            ill.collect::<String>()
        ))
    }
}

/// Where the member's machine API is: at the host of its first peer URL, or else by its name.
fn address(member: &EtcdMember) -> String {
    let uri = member.peer_urls.first().and_then(|url| url.parse::<Uri>().ok());
    let host = uri.as_ref().and_then(Uri::host).map(|host| host.trim_matches(['[', ']']).to_owned());
    host.unwrap_or_else(|| member.hostname.clone())
}

fn leader(status: &EtcdMemberStatus) -> Result<u64, String> {
    match status.leader {
        _ if !status.errors.is_empty() => Err(status.errors.join(", ")),
        0 => Err("it knows no leader".to_owned()),
        leader => Ok(leader),
    }
}

fn told(alarm: &EtcdMemberAlarm, members: &[EtcdMember]) -> Option<String> {
    let name = members.iter().find(|member| member.id == alarm.member_id).map_or("a member", |m| &m.hostname);
    match alarm.alarm() {
        AlarmType::None => None,
        kind => Some(format!("{} on {name}", kind.as_str_name())),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Members by what each says: a leader's id, or why it has none; the node that was asked is the first.
    fn etcd(members: &[Result<u64, &str>]) -> Etcd {
        let member = |(id, leader): (u64, &Result<u64, &str>)| JudgedMember {
            id,
            name: format!("c{id}"),
            voter: true,
            leader: leader.map_err(str::to_owned),
        };
        Etcd { members: (1..).zip(members).map(member).collect(), alarms: BTreeSet::new(), own: 1 }
    }

    #[test]
    fn a_node_reboots_only_when_the_others_are_a_quorum() {
        let (up, down) = (Ok(2), Err("connection refused"));
        for (members, now, without) in [
            (&[up][..], Ok(()), Ok(())),
            (&[down], Err("0 of 1 members, and its quorum is 1"), Err("0 of 1")),
            (&[up, up], Ok(()), Err("1 of 2 members without this node, and its quorum is 2")),
            (&[up, up, up], Ok(()), Ok(())),
            (&[down, up, up], Ok(()), Ok(())),
            (
                &[up, down, up],
                Ok(()),
                Err("1 of 3 members without this node, and its quorum is 2; c2: connection refused"),
            ),
            (
                &[up, down, down],
                Err("1 of 3 members, and its quorum is 2; c2: connection refused; c3"),
                Err("0 of 3"),
            ),
            (&[up, up, up, up, down], Ok(()), Ok(())),
            (&[up, up, up, down, down], Ok(()), Err("2 of 5")),
            (&[up, Ok(3), up], Err("do not agree on their leader"), Err("do not agree")),
        ] {
            for (reboot, expected) in [(false, now), (true, without)] {
                let found = etcd(members).judge(reboot);
                let fits = match (&found, expected) {
                    (Ok(()), Ok(())) => true,
                    (Err(found), Err(expected)) => found.contains(expected),
                    _ => false,
                };
                assert!(fits, "{members:?}, reboot {reboot}: {found:?}");
            }
        }
    }

    #[test]
    fn an_alarm_is_enough_and_a_learner_does_not_count() {
        let mut three = etcd(&[Ok(1), Ok(1), Ok(1)]);
        three.members[2].voter = false;
        assert!(three.judge(false).is_ok());
        assert!(three.judge(true).unwrap_err().contains("1 of 2"), "of the voters");
        three.alarms.insert("NOSPACE on c2".into());
        assert_eq!(three.judge(false).unwrap_err(), "etcd has the alarm NOSPACE on c2");
    }

    #[test]
    fn a_member_is_asked_at_the_host_of_its_peer_url() {
        for (url, expected) in [
            ("https://10.5.0.2:2380", "10.5.0.2"),
            ("https://[fd00::2]:2380", "fd00::2"),
            ("", "c1"),
            ("no url at all", "c1"),
        ] {
            let member =
                EtcdMember { hostname: "c1".into(), peer_urls: vec![url.into()], ..Default::default() };
            assert_eq!(address(&member), expected);
        }
    }
}

//! One run at a time on a cluster, from whatever machine: a Kubernetes Lease, renewed while the run goes on.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease as Object, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::{DeleteParams, ObjectMeta, PostParams, Preconditions};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::cluster::{Cluster, MANAGER, from_kube};
use crate::error::{Error, Result};

/// Where the Lease is kept: a namespace that every cluster has, and that is not deleted.
const NAMESPACE: &str = "kube-system";
const NAME: &str = "nodeprep";
/// A Lease that was not renewed for so long is stale.
const LASTS: Duration = Duration::from_secs(60);
/// The annotation that says how a Lease is to be read, and how this release writes one. The releases before it had none, and
/// wrote what can be read as this.
const FORMAT: (&str, u32) = ("nodeprep.dev/lease-format", 1);
/// It is renewed this often, also while the API server is away because we reboot it: then until it is back.
const RENEWED_EVERY: Duration = Duration::from_secs(15);

/// Who holds a Lease, as it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseHolder {
    /// `<host>/<state folder>`: there the kernel's file lock already lets only one run through.
    pub place: String,
    /// `nodeprep apply, pid 4711`.
    pub run: String,
}

impl LeaseHolder {
    /// This process, whose state is kept in `folder`.
    pub fn this(verb: &str, folder: &std::path::Path) -> Self {
        let host = gethostname::gethostname();
        Self {
            place: format!("{}{}", host.to_string_lossy(), folder.display()),
            run: format!("nodeprep {verb}, pid {}", std::process::id()),
        }
    }

    fn identity(&self) -> String {
        format!("{} ({})", self.place, self.run)
    }
}

/// Held until it is released; one that is only dropped grows stale.
#[derive(Debug)]
pub struct Lease {
    leases: Api<Object>,
    renewal: JoinHandle<()>,
    identity: String,
    held: Held,
}

/// Whether a Lease is still ours, for those who are about to change something.
#[derive(Debug, Clone)]
pub struct Held(watch::Receiver<LeaseState>);

/// What the renewals of a Lease showed.
#[derive(Debug, Clone)]
struct LeaseState {
    renewed: Moment,
    taken_by: Option<String>,
}

/// A point in time, by the clock that everything here waits by and by one that goes on while this machine sleeps: others see
/// a Lease grow old meanwhile.
#[derive(Debug, Clone, Copy)]
struct Moment {
    awake: Instant,
    /// Since this machine was booted.
    boot: Duration,
}

impl Moment {
    fn now() -> Self {
        let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Self { awake: Instant::now(), boot: boot.try_into().unwrap_or_default() }
    }

    /// The longer of both times until `now`.
    fn until(self, now: Self) -> Duration {
        now.awake.saturating_duration_since(self.awake).max(now.boot.saturating_sub(self.boot))
    }
}

impl Held {
    /// Returns when the Lease is surely ours. One that could not be renewed for so long that it looks stale to others, such
    /// as when we reboot the only control plane, is checked again first.
    ///
    /// # Errors
    /// `Kind::Unavailable` (exit 75) when somebody else has it, or when nothing can be learned of it `within` that time.
    pub async fn sure(&self, within: Duration) -> Result<()> {
        let mut standing = self.0.clone();
        let known = |now: &LeaseState| now.taken_by.is_some() || now.renewed.until(Moment::now()) < LASTS;
        let standing = tokio::time::timeout(within, standing.wait_for(known)).await;
        match standing.map(|known| known.map(|standing| standing.taken_by.clone())) {
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(by))) => Err(Error::unavailable(format!("the cluster's lock was taken over by {by}"))
                .hint("nothing more was changed; run this again when that run has ended")),
            Ok(Err(_)) | Err(_) => Err(Error::unavailable(format!(
                "the cluster's lock could not be renewed for {}s",
                within.as_secs()
            ))
            .hint("nothing more was changed; run this again when the cluster answers")),
        }
    }

    /// Nobody else is known to have it.
    pub fn is_ours(&self) -> bool {
        self.0.borrow().taken_by.is_none()
    }
}

impl Lease {
    /// Takes the cluster's Lease. One that an earlier run of the same place left is taken over; one of another place that
    /// is stale only when `take_over` says so.
    ///
    /// # Errors
    /// `Kind::Unavailable` (exit 75) with the holder and the Lease's age, and whatever the API server refuses.
    pub async fn take(cluster: &Cluster, holder: &LeaseHolder, take_over: bool) -> Result<Self> {
        let leases: Api<Object> = Api::namespaced(cluster.client(), NAMESPACE);
        let now = Timestamp::now();
        let there = leases.get_opt(NAME).await.map_err(failed)?;
        let made = match there {
            None => leases.create(&params(), &object(holder, now, None)).await,
            Some(there) => {
                may_take(&there, holder, now, take_over)?;
                leases.replace(NAME, &params(), &object(holder, now, Some(&there))).await
            }
        };
        let made = made.map_err(|error| match &error {
            kube::Error::Api(status) if status.code == 409 => {
                Error::unavailable("another run took the cluster's lock just now")
                    .hint("wait until it ends, then run this again")
            }
            _ => failed(error),
        })?;
        let (tell, standing) = watch::channel(LeaseState { renewed: Moment::now(), taken_by: None });
        let renewal = tokio::spawn(renew(leases.clone(), made, tell));
        Ok(Self { leases, renewal, identity: holder.identity(), held: Held(standing) })
    }

    pub fn held(&self) -> Held {
        self.held.clone()
    }

    /// Lets the Lease go. A cluster that can't be reached keeps it until it is stale.
    pub async fn release(self) {
        self.renewal.abort();
        let Ok(Some(there)) = self.leases.get_opt(NAME).await else { return };
        if identity(&there) == self.identity {
            let Object { metadata: ObjectMeta { uid, resource_version, .. }, .. } = there;
            let preconditions = Some(Preconditions { uid, resource_version });
            let _ =
                self.leases.delete(NAME, &DeleteParams { preconditions, ..DeleteParams::default() }).await;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

/// Removes the Lease that a former run of this place left, if there is one.
///
/// # Errors
/// Whatever the API server refuses.
pub async fn give_up(cluster: &Cluster, holder: &LeaseHolder) -> Result<bool> {
    let leases: Api<Object> = Api::namespaced(cluster.client(), NAMESPACE);
    match leases.get_opt(NAME).await.map_err(failed)? {
        Some(there) if of_place(&there, holder) => {
            readable(&there)?;
            leases.delete(NAME, &DeleteParams::default()).await.map_err(failed)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// Renews the Lease until the task is ended or somebody else has it. What fails is tried again: the API server may be
/// away because the run reboots it.
async fn renew(leases: Api<Object>, mut held: Object, tell: watch::Sender<LeaseState>) {
    let own = identity(&held).to_owned();
    loop {
        tokio::time::sleep(RENEWED_EVERY).await;
        let begun = Moment::now();
        if let Some(spec) = &mut held.spec {
            spec.renew_time = Some(MicroTime(Timestamp::now()));
        }
        match leases.replace(NAME, &params(), &held).await {
            Ok(renewed) => {
                held = renewed;
                tell.send_modify(|standing| standing.renewed = begun);
            }
            Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => {
                match leases.get_opt(NAME).await {
                    Ok(Some(there)) if identity(&there) == own => held = there,
                    Ok(there) => {
                        let by = there.as_ref().map_or("nobody", identity).to_owned();
                        tell.send_modify(|standing| standing.taken_by = Some(by));
                        return;
                    }
                    Err(_) => {}
                }
            }
            Err(_) => {}
        }
    }
}

fn failed(error: kube::Error) -> Error {
    from_kube("the cluster's lock (Lease kube-system/nodeprep)", error)
}

fn params() -> PostParams {
    PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() }
}

fn object(holder: &LeaseHolder, now: Timestamp, there: Option<&Object>) -> Object {
    let former = there.and_then(|there| there.spec.as_ref()).and_then(|spec| spec.lease_transitions);
    let mut metadata = there.map_or_else(
        || ObjectMeta { name: Some(NAME.into()), namespace: Some(NAMESPACE.into()), ..ObjectMeta::default() },
        |there| there.metadata.clone(),
    );
    metadata.annotations.get_or_insert_default().insert(FORMAT.0.into(), FORMAT.1.to_string());
    let spec = LeaseSpec {
        holder_identity: Some(holder.identity()),
        lease_duration_seconds: i32::try_from(LASTS.as_secs()).ok(),
        acquire_time: Some(MicroTime(now)),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(former.map_or(0, |transitions| transitions.saturating_add(1))),
        ..LeaseSpec::default()
    };
    Object { metadata, spec: Some(spec) }
}

fn identity(lease: &Object) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

fn of_place(lease: &Object, holder: &LeaseHolder) -> bool {
    identity(lease).strip_prefix(&holder.place).is_some_and(|rest| rest.starts_with(" ("))
}

/// # Errors
/// `Kind::Unavailable` when a newer release wrote it, who alone knows what it says.
fn readable(lease: &Object) -> Result<()> {
    let written = lease.metadata.annotations.as_ref().and_then(|all| all.get(FORMAT.0));
    match written {
        Some(format) if format.parse::<u32>().map_or(true, |format| format > FORMAT.1) => {
            let what = format!(
                "the cluster's lock is of format {format}, and this nodeprep knows those up to {}",
                FORMAT.1
            );
            Err(Error::unavailable(what).hint("a newer release holds or held it: use that one"))
        }
        _ => Ok(()),
    }
}

fn may_take(there: &Object, holder: &LeaseHolder, now: Timestamp, take_over: bool) -> Result<()> {
    readable(there)?;
    let by = identity(there);
    if by.is_empty() || of_place(there, holder) {
        return Ok(());
    }
    let renewed = there.spec.as_ref().and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0);
    let age = renewed.map(|renewed| now.duration_since(renewed));
    let lasts = SignedDuration::try_from(LASTS).unwrap_or(SignedDuration::MAX);
    let stale = age.is_none_or(|age| age > lasts);
    let ago =
        age.map_or_else(|| "never renewed".to_owned(), |age| format!("renewed {} s ago", age.as_secs()));
    let held = |hint: &str| {
        Error::unavailable(format!("another run holds the cluster's lock: {by}, {ago}")).hint(hint)
    };
    match (stale, take_over) {
        (true, true) => Ok(()),
        (true, false) => Err(held("its run may have died: look there, then add --take-over")),
        (false, _) => Err(held("wait until it ends, then run this again")),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn holder(place: &str) -> LeaseHolder {
        LeaseHolder { place: place.into(), run: "nodeprep apply, pid 7".into() }
    }

    #[test]
    fn a_lease_is_taken_from_its_own_place_or_when_stale_on_purpose_and_from_nobody_else() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let held = object(&holder("one/state"), at(0), None);
        for (place, second, take_over, may) in [
            ("one/state", 5, false, true),
            ("one/state2", 5, false, false),
            ("two/state", 5, true, false),
            ("two/state", 61, false, false),
            ("two/state", 61, true, true),
        ] {
            let taken = may_take(&held, &holder(place), at(second), take_over);
            assert_eq!(taken.is_ok(), may, "{place} after {second} s");
            if let Err(error) = taken {
                assert_eq!(error.kind.exit_code(), 75);
                assert!(error.what.contains("one/state (nodeprep apply, pid 7), renewed"), "{error}");
            }
        }
    }

    #[test]
    fn a_machine_that_slept_knows_that_its_lease_grew_old_meanwhile() {
        let (renewed, awake) = (Moment::now(), Duration::from_secs(5));
        for (asleep, stale) in [(0, false), (50, false), (60, true), (3600, true)] {
            let now = Moment {
                awake: renewed.awake + awake,
                boot: renewed.boot + awake + Duration::from_secs(asleep),
            };
            assert_eq!(renewed.until(now) >= LASTS, stale, "{asleep} s");
        }
    }

    #[test]
    fn a_lease_of_the_release_before_is_read_and_one_of_a_newer_release_is_not_taken() {
        let (here, now) = (holder("one"), Timestamp::UNIX_EPOCH);
        for (format, may) in [(None, true), (Some("1"), true), (Some("2"), false), (Some("x"), false)] {
            let mut lease = object(&here, now, None);
            let format = format.map(|format| [(FORMAT.0.to_owned(), format.to_owned())].into());
            lease.metadata.annotations = format;
            let taken = may_take(&lease, &here, now, true);
            assert_eq!(taken.is_ok(), may, "{lease:?}");
            assert!(taken.err().is_none_or(|error| error.what.contains("up to 1")));
        }
    }

    #[test]
    fn a_lease_that_changes_hands_says_how_often() {
        let now = Timestamp::UNIX_EPOCH;
        let first = object(&holder("one"), now, None);
        let second = object(&holder("two"), now, Some(&first));
        assert_eq!(second.spec.as_ref().unwrap().lease_transitions, Some(1));
        assert_eq!(identity(&second), "two (nodeprep apply, pid 7)");
    }
}

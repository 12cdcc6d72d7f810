//! What each fault did to each of its targets, and when: its packets, their TCP connections, the runtime, and how long it took
//! until everything was as before. And what the node's processes and its runtime did in the meantime.
//!
//! Times of kernel events are the kernel's own. Injection and end are seen by the recorder, some milliseconds after they
//! happened; what a fault did until then is its own all the same. A recovery is told to the second, or, where hundreds of targets are looked at, to five.

mod calls;
mod node;
mod outset;
mod record;
mod recorder;
mod recovery;
#[cfg(test)]
mod tests;
mod totals;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sabot_core::model::{BootTime, FaultName};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

pub use self::node::{Calls, NodeTimeline, NodeTotals, NodeWindow, OperationTotals, ProcessStats};
pub use self::record::{Firsts, Moment, Reaction, TargetTimeline, What};
use self::recorder::Recorder;
pub use self::recovery::Recovery;
pub use self::totals::{Connections, Named, Totals, Window};
use super::event::{Event, EventHub, Subscription};
use super::identity::{Identities, Identity, Owners};
use super::ring::OwnedTask;
use crate::engine::handle::{Handle, LedgerEntry, Snapshot};
use crate::kernel::boot_time;

/// How often every owner is looked at, for what was before a fault.
const AT_REST: Duration = Duration::from_secs(10);
/// How often the owners are that a fault hurts, or did: no more often than this, ..
const WHILE_OPEN: Duration = Duration::from_millis(500);
/// .. and so that looking takes no more than this part of a processor, however many they are.
const LOOK_SHARE: u32 = 1000;
/// How rarely at most.
const LOOK_LATEST: Duration = Duration::from_secs(5);

/// What the observers know of an owner; read from the kernel at the time of the call.
pub trait Measure: Send + Sync + 'static {
    /// Of those owners that are there.
    fn totals(&self, owners: &BTreeSet<u32>) -> HashMap<u32, Totals>;

    /// What they know of the node, whoever the owners are.
    fn node(&self) -> NodeTotals;

    fn firsts(&self, owner: u32) -> Firsts;

    /// What happens from now on is first again.
    fn forget_firsts(&self, owner: u32);

    /// What the container runtime was asked to do to a pod, where the event tells of that.
    fn reaction(&self, event: &Event) -> Option<(Identity, Reaction)>;
}

/// Everything that is known of a fault's consequences on this node.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeline {
    pub applied: BootTime,
    pub targets: Vec<TargetTimeline>,
    /// `None` as long as it has been in force on nobody.
    pub activity: Option<NodeTimeline>,
}

/// A cheap clone for each reader; the recording ends with the last of them.
#[derive(Clone)]
pub struct Timelines {
    recorder: Arc<Mutex<Recorder>>,
    _task: Arc<OwnedTask>,
}

/// Who can tell timelines.
pub trait TimelineSource: Send + Sync + 'static {
    /// `None` for a fault that isn't known. `ledgers` are the fault's own, as they are now; other counters may be read from
    /// the kernel.
    fn timeline(&self, fault: &FaultName, ledgers: &[LedgerEntry]) -> Option<Timeline>;
}

impl TimelineSource for Timelines {
    fn timeline(&self, fault: &FaultName, ledgers: &[LedgerEntry]) -> Option<Timeline> {
        let mut recorder = lock(&self.recorder);
        recorder.matched(fault, ledgers);
        recorder.look(boot_time());
        recorder.look_at_node(fault, boot_time());
        recorder.timeline(fault)
    }
}

/// Begins to record. Must be called within a tokio runtime.
pub fn start(engine: Handle, identities: Identities, measure: Arc<dyn Measure>, hub: &EventHub) -> Timelines {
    let recorder = Arc::new(Mutex::new(Recorder::new(Arc::clone(&measure))));
    let (events, hub) = (hub.overhear(), hub.clone());
    let shared = Arc::clone(&recorder);
    let task = tokio::spawn(async move {
        tokio::join!(
            record(engine, identities, Arc::clone(&shared), &hub),
            react(events, measure, shared)
        )
    });
    Timelines {
        recorder,
        _task: Arc::new(OwnedTask::new(&task)),
    }
}

fn lock(recorder: &Mutex<Recorder>) -> MutexGuard<'_, Recorder> {
    recorder.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn record(engine: Handle, identities: Identities, recorder: Arc<Mutex<Recorder>>, hub: &EventHub) {
    let mut snapshots = engine.watch();
    let mut owners = identities.watch();
    let mut at_rest = interval(AT_REST);
    at_rest.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look_at = Instant::now();
    let mut is_open = follow(&recorder, &mut snapshots, &mut owners).await;
    loop {
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() {
                return;
            } else {
                is_open = follow(&recorder, &mut snapshots, &mut owners).await;
            },
            Ok(()) = owners.changed() => {
                is_open = follow(&recorder, &mut snapshots, &mut owners).await;
            }
            _ = at_rest.tick() => {
                let known = identities.current();
                change(&recorder, move |recorder| recorder.sample(&known, boot_time())).await;
                match_faults(&engine, &recorder).await;
            }
            () = sleep_until(look_at), if is_open => {
                let began = Instant::now();
                is_open = change(&recorder, |recorder| {
                    recorder.look(boot_time());
                    recorder.is_open()
                })
                .await;
                look_at = Instant::now() + (began.elapsed() * LOOK_SHARE).clamp(WHILE_OPEN, LOOK_LATEST);
            }
        }
        let news = lock(&recorder).news();
        news.into_iter().for_each(|event| hub.publish(event));
    }
}

/// Takes in what the engine and the identities say now; whether there is something to look at.
async fn follow(
    recorder: &Arc<Mutex<Recorder>>,
    snapshots: &mut watch::Receiver<Arc<Snapshot>>,
    owners: &mut watch::Receiver<Arc<Owners>>,
) -> bool {
    let snapshot = snapshots.borrow_and_update().clone();
    let known = owners.borrow_and_update().clone();
    change(recorder, move |recorder| {
        recorder.follow(&snapshot, &known, boot_time());
        recorder.is_open()
    })
    .await
}

/// Takes the moments of first matches from the counters while they are there; the kernel notes them to the nanosecond,
/// however late they are read.
async fn match_faults(engine: &Handle, recorder: &Mutex<Recorder>) {
    let unmatched = lock(recorder).unmatched();
    let name = match &unmatched[..] {
        [] => return,
        [one] => Some(one.clone()),
        _ => None,
    };
    // An engine that ends has nothing more to tell.
    let Ok(ledgers) = engine.ledgers(name).await else {
        return;
    };
    let mut of_fault: BTreeMap<&FaultName, Vec<LedgerEntry>> = BTreeMap::new();
    for entry in &ledgers {
        of_fault.entry(&entry.fault).or_default().push(entry.clone());
    }
    let mut recorder = lock(recorder);
    for fault in &unmatched {
        recorder.matched(fault, of_fault.get(fault).map_or(&[], Vec::as_slice));
    }
}

/// Reading the kernel's counters takes a while: not on a thread that others wait for.
async fn change<T: Default + Send + 'static>(
    recorder: &Arc<Mutex<Recorder>>,
    work: impl FnOnce(&mut Recorder) -> T + Send + 'static,
) -> T {
    let recorder = Arc::clone(recorder);
    let done = spawn_blocking(move || work(&mut lock(&recorder))).await;
    done.unwrap_or_else(|error| {
        tracing::error!(%error, "a part of the timelines could not be recorded");
        T::default()
    })
}

async fn react(mut events: Subscription, measure: Arc<dyn Measure>, recorder: Arc<Mutex<Recorder>>) {
    loop {
        match events.recv().await {
            Ok(event) => {
                if let Some((identity, reaction)) = measure.reaction(&event) {
                    lock(&recorder).react(&identity, &reaction);
                }
            }
            Err(RecvError::Lagged(count)) => {
                tracing::warn!(
                    count,
                    "events came too fast; what the runtime did may be missing from timelines"
                );
            }
            Err(RecvError::Closed) => return,
        }
    }
}

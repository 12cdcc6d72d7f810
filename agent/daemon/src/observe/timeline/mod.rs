//! What each fault did to each of its targets, and when: its packets, their TCP connections, the runtime, and how long it took
//! until everything was as before. And what the node's processes and its runtime did in the meantime.
//!
//! Times of kernel events are the kernel's own. Injection and end are seen by the recorder, some milliseconds after they
//! happened; a recovery is told to the second.

mod node;
mod record;
mod recorder;
mod recovery;
#[cfg(test)]
mod tests;
mod totals;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sabot_core::model::{BootTime, FaultName};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

pub use self::node::{NodeTimeline, NodeTotals, NodeWindow, OperationTotals};
pub use self::record::{Firsts, Moment, Reaction, TargetTimeline, What};
use self::recorder::Recorder;
pub use self::recovery::Recovery;
pub use self::totals::{Totals, Window};
use super::event::{Event, EventHub};
use super::identity::{Identities, Identity};
use super::ring::OwnedTask;
use crate::engine::handle::Handle;
use crate::kernel::boot_time;

/// How often every owner is looked at, for what was before a fault.
const AT_REST: Duration = Duration::from_secs(5);
/// How often the owners are that a fault hurts, or did.
const WHILE_OPEN: Duration = Duration::from_millis(500);

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
    pub node: Option<NodeTimeline>,
}

/// A cheap clone for each reader; the recording ends with the last of them.
#[derive(Clone)]
pub struct Timelines {
    recorder: Arc<Mutex<Recorder>>,
    _task: Arc<OwnedTask>,
}

/// Who can tell timelines.
pub trait TimelineSource: Send + Sync + 'static {
    /// `None` for a fault that isn't known. May read the kernel's counters.
    fn timeline(&self, fault: &FaultName) -> Option<Timeline>;
}

impl TimelineSource for Timelines {
    fn timeline(&self, fault: &FaultName) -> Option<Timeline> {
        let mut recorder = lock(&self.recorder);
        recorder.look(boot_time());
        recorder.look_at_node(fault, boot_time());
        recorder.timeline(fault)
    }
}

/// Begins to record. Must be called within a tokio runtime.
pub fn start(engine: Handle, identities: Identities, measure: Arc<dyn Measure>, hub: &EventHub) -> Timelines {
    let recorder = Arc::new(Mutex::new(Recorder::new(Arc::clone(&measure))));
    let events = hub.subscribe();
    let shared = Arc::clone(&recorder);
    let task = tokio::spawn(async move {
        tokio::join!(
            record(engine, identities, Arc::clone(&shared)),
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

async fn record(engine: Handle, identities: Identities, recorder: Arc<Mutex<Recorder>>) {
    let mut snapshots = engine.watch();
    let mut owners = identities.watch();
    let (mut at_rest, mut while_open) = (interval(AT_REST), interval(WHILE_OPEN));
    for ticks in [&mut at_rest, &mut while_open] {
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    loop {
        let (snapshot, known) = (
            snapshots.borrow_and_update().clone(),
            owners.borrow_and_update().clone(),
        );
        let is_open = change(&recorder, move |recorder| {
            recorder.follow(&snapshot, &known, boot_time());
            recorder.is_open()
        })
        .await;
        for fault in change(&recorder, |recorder| recorder.unmatched()).await {
            // An engine that ends has nothing more to tell.
            if let Ok(ledgers) = engine.ledgers(Some(fault.clone())).await {
                lock(&recorder).matched(&fault, &ledgers);
            }
        }
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() {
                return;
            },
            Ok(()) = owners.changed() => {}
            _ = at_rest.tick() => {
                let known = identities.current();
                change(&recorder, move |recorder| recorder.sample(&known, boot_time())).await;
            }
            _ = while_open.tick(), if is_open => {
                change(&recorder, |recorder| recorder.look(boot_time())).await;
            }
        }
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

async fn react(
    mut events: tokio::sync::broadcast::Receiver<Arc<Event>>,
    measure: Arc<dyn Measure>,
    recorder: Arc<Mutex<Recorder>>,
) {
    loop {
        match events.recv().await {
            Ok(event) => {
                if let Some((identity, reaction)) = measure.reaction(&event) {
                    lock(&recorder).react(&identity, &reaction);
                }
            }
            // What is missing is in nobody's timeline.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

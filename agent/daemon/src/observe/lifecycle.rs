//! What becomes of faults, as events, told from one snapshot of the engine to the next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use sabot_core::model::FaultName;
use tokio::sync::watch;

use super::event::{Event, EventHub, EventKind, FaultEvent};
use super::ring::OwnedTask;
use crate::engine::handle::{FaultView, Handle, Phase, Snapshot};

/// The task that watches the engine; it ends when this is dropped, or with the engine.
pub struct LifecycleObserver {
    task: OwnedTask,
}

/// Begins to watch; faults that exist already are reported as applied. Must be called within a tokio runtime.
pub fn start(engine: &Handle, hub: EventHub) -> LifecycleObserver {
    LifecycleObserver {
        task: OwnedTask::new(&tokio::spawn(watch(engine.watch(), hub))),
    }
}

impl LifecycleObserver {
    /// Whether the engine is still being watched.
    pub fn is_running(&self) -> bool {
        self.task.is_running()
    }
}

type Faults = BTreeMap<FaultName, FaultView>;

async fn watch(mut snapshots: watch::Receiver<Arc<Snapshot>>, hub: EventHub) {
    let mut known: Arc<Snapshot> = snapshots.borrow_and_update().clone();
    publish(&hub, &changes(&Faults::new(), &known.faults));
    while snapshots.changed().await.is_ok() {
        let next = snapshots.borrow_and_update().clone();
        publish(&hub, &changes(&known.faults, &next.faults));
        known = next;
    }
}

fn publish(hub: &EventHub, changes: &[FaultEvent]) {
    for change in changes {
        hub.publish(Event {
            time: SystemTime::now(),
            kind: EventKind::Fault(change.clone()),
        });
    }
}

/// Snapshots may be skipped, so a change is told from what both sides show, and several may lie between them.
fn changes(before: &Faults, after: &Faults) -> Vec<FaultEvent> {
    let mut changes = Vec::new();
    for (name, view) in after {
        let mut tell = |change| changes.push(event(name, change, view.message.clone()));
        // A name that is used again after its fault ended is a new fault.
        let previous = before
            .get(name)
            .filter(|previous| !ended(previous) || ended(view));
        match previous {
            None => tell("applied"),
            Some(previous) if !ended(view) && previous.spec != view.spec => tell("edited"),
            Some(_) => {}
        }
        if previous.map(|previous| previous.phase) != Some(view.phase)
            && let Some(change) = phase_change(view.phase)
        {
            tell(change);
        }
    }
    for (name, view) in before {
        if !ended(view) && !after.contains_key(name) {
            changes.push(event(name, vanished(view), view.message.clone()));
        }
    }
    changes
}

fn ended(view: &FaultView) -> bool {
    matches!(view.phase, Phase::Expired | Phase::Deleted)
}

fn phase_change(phase: Phase) -> Option<&'static str> {
    match phase {
        // Being applied says it all.
        Phase::Pending => None,
        Phase::Injected => Some("injected"),
        Phase::Partial => Some("partial"),
        Phase::Failed => Some("failed"),
        Phase::Expired => Some("expired"),
        Phase::Deleted => Some("deleted"),
    }
}

/// How a fault ended whose end no snapshot showed.
fn vanished(view: &FaultView) -> &'static str {
    if view.fault.expires <= SystemTime::now() {
        "expired"
    } else {
        "deleted"
    }
}

fn event(fault: &FaultName, change: &'static str, message: String) -> FaultEvent {
    FaultEvent {
        fault: fault.clone(),
        change,
        message,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::{engine, fault_view, snapshot};
    use super::*;

    fn told(before: &[FaultView], after: &[FaultView]) -> Vec<&'static str> {
        let before = snapshot(1, before.iter().cloned());
        let after = snapshot(2, after.iter().cloned());
        changes(&before.faults, &after.faults)
            .iter()
            .map(|event| event.change)
            .collect()
    }

    fn in_phase(phase: Phase) -> FaultView {
        fault_view("cut", phase, 0, &[1])
    }

    #[test]
    fn each_phase_is_told_once() {
        assert_eq!(told(&[], &[in_phase(Phase::Pending)]), ["applied"]);
        assert_eq!(told(&[], &[in_phase(Phase::Injected)]), ["applied", "injected"]);
        for (phase, change) in [
            (Phase::Injected, "injected"),
            (Phase::Partial, "partial"),
            (Phase::Failed, "failed"),
            (Phase::Expired, "expired"),
            (Phase::Deleted, "deleted"),
        ] {
            assert_eq!(told(&[in_phase(Phase::Pending)], &[in_phase(phase)]), [change]);
            assert!(told(&[in_phase(phase)], &[in_phase(phase)]).is_empty());
        }
    }

    #[test]
    fn an_edit_is_told_beside_the_phase() {
        let mut edited = in_phase(Phase::Partial);
        edited.spec.duration = Some(Duration::from_secs(7));
        assert_eq!(
            told(&[in_phase(Phase::Injected)], &[edited]),
            ["edited", "partial"]
        );
    }

    #[test]
    fn a_name_used_again_is_applied_again() {
        assert_eq!(
            told(&[in_phase(Phase::Deleted)], &[in_phase(Phase::Injected)]),
            ["applied", "injected"]
        );
    }

    #[test]
    fn an_end_that_no_snapshot_showed_is_told() {
        let mut overdue = in_phase(Phase::Injected);
        let fault = Arc::make_mut(&mut overdue.fault);
        fault.expires = SystemTime::now() - Duration::from_secs(1);
        assert_eq!(told(&[overdue], &[]), ["expired"]);
        assert_eq!(told(&[in_phase(Phase::Injected)], &[]), ["deleted"]);
        assert!(told(&[in_phase(Phase::Deleted)], &[]).is_empty());
    }

    #[tokio::test]
    async fn the_watch_publishes_what_changes() {
        let (engine, snapshots) = engine(snapshot(1, [in_phase(Phase::Pending)]));
        let hub = EventHub::new(8);
        let mut events = hub.subscribe();
        let observer = start(&engine, hub);
        let mut next = async || match &events.recv().await.expect("the hub is open").kind {
            EventKind::Fault(event) => event.change,
            other => panic!("{other:?} is no change of a fault"),
        };
        assert_eq!(next().await, "applied");
        snapshots
            .send(Arc::new(snapshot(2, [in_phase(Phase::Injected)])))
            .unwrap();
        assert_eq!(next().await, "injected");
        assert!(observer.is_running());
    }
}

//! Containers and sandboxes as the runtime itself tells of them: the second source beside the calls of its clients.
//!
//! It tells also of what nobody asked for, as of a container that ends by itself. Who asked, how long that took and what
//! failed it doesn't tell.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sabot_proto::runtime::v1::{ContainerEventResponse, ContainerEventType, PodSandboxStatus};
use tokio::sync::mpsc;

use super::operations::Subject;
use super::places::{Known, Places, PodName};
use crate::observe::event::{ContainerEvent, Event, EventHub, EventKind};
use crate::observe::ring::OwnedTask;
use crate::targets::Told;

/// What can happen; the last one is what CRI had no number for.
pub const CHANGES: [&str; 5] = ["created", "started", "stopped", "deleted", "other"];
const DELETED: usize = 3;
const OTHER: usize = 4;

/// Everything counted since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerSnapshot {
    /// By [`CHANGES`].
    pub changes: [u64; CHANGES.len()],
    /// How often the runtime began to tell anew; what happened before that since it last told is in no count.
    pub gaps: u64,
}

/// Counts what the runtime tells; ends when this is dropped.
pub struct ContainerObserver {
    state: Arc<Mutex<State>>,
    _task: OwnedTask,
}

/// Begins to listen; events go to `hub`. Must be called within a tokio runtime.
pub fn start(mut told: mpsc::Receiver<Told>, known: Known, hub: EventHub) -> ContainerObserver {
    let state = Arc::new(Mutex::new(State::new(known)));
    let hearing = Arc::clone(&state);
    let task = tokio::spawn(async move {
        while let Some(told) = told.recv().await {
            let event = lock(&hearing).hear(told);
            event.into_iter().for_each(|event| hub.publish(event));
        }
    });
    ContainerObserver {
        state,
        _task: OwnedTask::new(&task),
    }
}

impl ContainerObserver {
    pub fn snapshot(&self) -> ContainerSnapshot {
        lock(&self.state).counted.clone()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

struct State {
    places: Places,
    known: Known,
    counted: ContainerSnapshot,
    has_begun: bool,
}

impl State {
    fn new(known: Known) -> Self {
        Self {
            places: Places::default(),
            known,
            counted: ContainerSnapshot::default(),
            has_begun: false,
        }
    }

    fn hear(&mut self, told: Told) -> Option<Event> {
        match told {
            Told::Begun => {
                self.counted.gaps += u64::from(self.has_begun);
                self.has_begun = true;
                None
            }
            Told::Event(event) => Some(self.count(*event)),
        }
    }

    fn count(&mut self, event: ContainerEventResponse) -> Event {
        let change = change(event.container_event_type);
        self.counted.changes[change] += 1;
        let time = time(event.created_at);
        let named = event.containers_statuses.into_iter().filter_map(|status| {
            let name = status.metadata?.name;
            Some((status.id, name))
        });
        let names: BTreeMap<_, _> = named.collect();
        let mut subject = self.subject(event.container_id, event.pod_sandbox_status);
        subject.container_name = names.get(&subject.container).cloned().unwrap_or_default();
        let operation = match change {
            DELETED if subject.container.is_empty() => "RemovePodSandbox",
            DELETED => "RemoveContainer",
            _ => "",
        };
        self.places.learn(operation, &subject);
        self.known.learn(&subject);
        let container = self.known.container(&subject);
        let (pod_namespace, pod_name) = subject.pod.unwrap_or_default();
        Event {
            time,
            container,
            kind: EventKind::Container(ContainerEvent {
                change: CHANGES[change],
                pod_namespace,
                pod_name,
                sandbox: subject.sandbox,
                container: subject.container,
            }),
        }
    }

    /// Whom an id means: a sandbox's own events have the id of the sandbox.
    fn subject(&self, id: String, status: Option<PodSandboxStatus>) -> Subject {
        let mut subject = Subject::default();
        match status {
            Some(status) => {
                subject.pod = status.metadata.and_then(pod);
                subject.container = if status.id == id { String::new() } else { id };
                subject.sandbox = status.id;
            }
            None => {
                subject.sandbox = id;
                self.places.complete(&mut subject, &self.known);
                if subject.pod.is_none() {
                    subject.container = std::mem::take(&mut subject.sandbox);
                }
            }
        }
        self.places.complete(&mut subject, &self.known);
        subject
    }
}

fn pod(metadata: sabot_proto::runtime::v1::PodSandboxMetadata) -> Option<PodName> {
    (!metadata.name.is_empty()).then_some((metadata.namespace, metadata.name))
}

/// The place among [`CHANGES`].
fn change(number: i32) -> usize {
    match ContainerEventType::try_from(number) {
        Ok(ContainerEventType::ContainerCreatedEvent) => 0,
        Ok(ContainerEventType::ContainerStartedEvent) => 1,
        Ok(ContainerEventType::ContainerStoppedEvent) => 2,
        Ok(ContainerEventType::ContainerDeletedEvent) => DELETED,
        Err(_) => OTHER,
    }
}

/// A runtime that doesn't say when it happened says so when it happens.
fn time(unix_ns: i64) -> SystemTime {
    match u64::try_from(unix_ns) {
        Ok(ns) if ns > 0 => UNIX_EPOCH + Duration::from_nanos(ns),
        _ => SystemTime::now(),
    }
}

#[cfg(test)]
mod tests {
    use sabot_proto::runtime::v1::PodSandboxMetadata;

    use super::*;

    fn event(kind: i32, id: &str, sandbox: Option<&str>) -> Told {
        let status = sandbox.map(|sandbox| PodSandboxStatus {
            id: sandbox.to_owned(),
            metadata: Some(PodSandboxMetadata {
                name: "web".into(),
                namespace: "team-a".into(),
                ..PodSandboxMetadata::default()
            }),
            ..PodSandboxStatus::default()
        });
        Told::Event(Box::new(ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind,
            created_at: 1_000_000_007,
            pod_sandbox_status: status,
            containers_statuses: Vec::new(),
        }))
    }

    fn state() -> State {
        State::new(Known::new(Box::new(|id| {
            (id == "old").then(|| ("team-b".to_owned(), "db".to_owned()))
        })))
    }

    /// Change, pod, sandbox, container.
    fn heard(state: &mut State, told: Told) -> [String; 4] {
        let event = state.hear(told).expect("it is an event");
        assert_eq!(event.time, UNIX_EPOCH + Duration::from_nanos(1_000_000_007));
        let EventKind::Container(event) = event.kind else {
            panic!("it is a container's: {event:?}");
        };
        [
            event.change.to_owned(),
            event.pod_name,
            event.sandbox,
            event.container,
        ]
    }

    #[test]
    fn a_life_is_counted_and_told_with_its_pod() {
        let mut state = state();
        let life = [
            (0, "s1", Some("s1"), ["created", "web", "s1", ""]),
            (1, "s1", Some("s1"), ["started", "web", "s1", ""]),
            (0, "c1", Some("s1"), ["created", "web", "s1", "c1"]),
            (1, "c1", Some("s1"), ["started", "web", "s1", "c1"]),
            // What was said before needn't be said again.
            (2, "c1", None, ["stopped", "web", "s1", "c1"]),
            (3, "c1", None, ["deleted", "web", "s1", "c1"]),
            (3, "s1", None, ["deleted", "web", "s1", ""]),
            // And is forgotten in time.
            (2, "c1", None, ["stopped", "", "", "c1"]),
        ];
        for (kind, id, sandbox, expected) in life {
            assert_eq!(
                heard(&mut state, event(kind, id, sandbox)),
                expected,
                "{kind} {id}"
            );
        }
        assert_eq!(state.counted.changes, [2, 2, 2, 2, 0]);
    }

    #[test]
    fn sandboxes_that_were_there_before_are_asked_of_others() {
        let mut state = state();
        let expected = ["stopped", "db", "old", ""];
        assert_eq!(heard(&mut state, event(2, "old", None)), expected);
        let expected = ["other", "", "", "c9"];
        assert_eq!(heard(&mut state, event(9, "c9", None)), expected);
        assert_eq!(state.counted.changes, [0, 0, 1, 0, 1]);
    }

    #[test]
    fn each_beginning_but_the_first_ends_a_gap() {
        let mut state = state();
        for expected in [0, 1, 2] {
            assert_eq!(state.hear(Told::Begun), None);
            assert_eq!(state.counted.gaps, expected);
        }
    }
}

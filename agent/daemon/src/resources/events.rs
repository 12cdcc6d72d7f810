//! Kubernetes' events: what happened to a fault, at the fault and at its pods.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use sabot_core::model::World;
use sabot_resources::{GROUP, VERSION};
use tokio::sync::mpsc;

use super::object::Resource;
use crate::engine::handle::FaultView;
use crate::targets::kube::reason;

/// Events that wait to be told; more than that are dropped, and counted.
const QUEUE: usize = 256;
/// Pods of one fault that are told of one change.
const MOST_PODS: usize = 16;
/// Nodes of one fault that tell of it at the fault itself; the others tell at their pods only.
const MOST_NODES: usize = 20;
/// At most ten a second.
const PACE: Duration = Duration::from_millis(100);
/// The longest text that an event may carry.
const LONGEST_NOTE: usize = 1000;
const PATIENCE: Duration = Duration::from_secs(10);

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happened {
    Injected,
    Failed,
    Refused,
    Ended,
}

impl Happened {
    fn reason(self) -> &'static str {
        match self {
            Self::Injected => "FaultInjected",
            Self::Failed => "FaultFailed",
            Self::Refused => "FaultRefused",
            Self::Ended => "FaultEnded",
        }
    }

    fn kind(self) -> EventType {
        match self {
            Self::Injected | Self::Ended => EventType::Normal,
            Self::Failed | Self::Refused => EventType::Warning,
        }
    }
}

struct Told {
    event: Event,
    about: ObjectReference,
}

/// Tells the API server in its own time; whoever has something to say never waits.
pub(super) struct Events {
    queue: mpsc::Sender<Told>,
    dropped: u64,
}

impl Events {
    pub(super) fn start(client: Client, node: &str) -> Self {
        let reporter = Reporter {
            controller: "sabot.dev/sabotd".to_owned(),
            instance: Some(node.to_owned()),
        };
        let (queue, told) = mpsc::channel(QUEUE);
        tokio::spawn(tell(Recorder::new(client, reporter), told));
        Self { queue, dropped: 0 }
    }

    /// At the fault, unless many nodes do so already, and at its pods.
    pub(super) fn publish(
        &mut self,
        happened: Happened,
        resource: &Resource,
        note: &str,
        pods: Vec<ObjectReference>,
    ) {
        let fault = reference(resource);
        if resource.status.nodes.len() < MOST_NODES {
            self.put(event(happened, note, None), fault.clone());
        }
        for pod in pods.into_iter().take(MOST_PODS) {
            let note = format!("{}: {note}", resource.key);
            self.put(event(happened, &note, Some(fault.clone())), pod);
        }
    }

    fn put(&mut self, event: Event, about: ObjectReference) {
        if self.queue.try_send(Told { event, about }).is_err() {
            self.dropped += 1;
            if self.dropped.is_power_of_two() {
                tracing::warn!(dropped = self.dropped, "events for the API server are dropped");
            }
        }
    }
}

fn event(happened: Happened, note: &str, secondary: Option<ObjectReference>) -> Event {
    let end = note
        .char_indices()
        .map(|(at, _)| at)
        .take_while(|at| *at <= LONGEST_NOTE)
        .last()
        .unwrap_or(0);
    let note = if note.len() > LONGEST_NOTE {
        &note[..end]
    } else {
        note
    };
    Event {
        type_: happened.kind(),
        reason: happened.reason().to_owned(),
        note: Some(note.to_owned()),
        action: "InjectFault".to_owned(),
        secondary,
    }
}

fn reference(resource: &Resource) -> ObjectReference {
    let namespace = &resource.key.namespace;
    ObjectReference {
        api_version: Some(format!("{GROUP}/{VERSION}")),
        kind: Some(resource.key.kind.name().to_owned()),
        name: Some(resource.key.name.clone()),
        namespace: (!namespace.is_empty()).then(|| namespace.clone()),
        uid: Some(resource.uid.clone()),
        ..ObjectReference::default()
    }
}

/// The pods that a fault means here, each once.
pub(super) fn pods(view: &FaultView, world: &World) -> Vec<ObjectReference> {
    let mut names: Vec<_> = view
        .targets
        .iter()
        .filter(|target| !target.pod_name.is_empty())
        .map(|target| (&target.pod_namespace, &target.pod_name))
        .collect();
    names.sort_unstable();
    names.dedup();
    let pod = |(namespace, name): (&String, &String)| {
        let known = world
            .pods
            .values()
            .find(|pod| pod.namespace == *namespace && pod.name == *name);
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(name.clone()),
            namespace: Some(namespace.clone()),
            uid: known.map(|pod| pod.uid.clone()),
            ..ObjectReference::default()
        }
    };
    names.into_iter().map(pod).collect()
}

async fn tell(recorder: Recorder, mut told: mpsc::Receiver<Told>) {
    while let Some(Told { event, about }) = told.recv().await {
        match tokio::time::timeout(PATIENCE, recorder.publish(&event, &about)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(
                error = reason(&error),
                reason = event.reason,
                "an event could not be told"
            ),
            Err(_) => tracing::debug!(reason = event.reason, "an event could not be told in time"),
        }
        tokio::time::sleep(PACE).await;
    }
}

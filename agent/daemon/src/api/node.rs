//! `sabot.v1.NodeService`.

use std::collections::BTreeMap;
use std::sync::Arc;

use sabot_proto::convert::{duration_to_proto, timestamp_to_proto};
use sabot_proto::sabot::v1;
use sabot_proto::sabot::v1::node_service_server::NodeService;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::changes::changes;
use super::stream::{Ended, Sink, Stopped, produce};
use super::targets::{TargetIdentity, targets};
use super::view::is_active;
use super::{Limits, NodeInfo};
use crate::engine::handle::{Handle, RuntimeState};
use crate::kernel::features::{CRI_CALLS, Feature, Features};
use crate::targets::kube::{KubeState, UNKNOWN_VERSION, too_old};

pub(super) struct NodeApi {
    engine: Handle,
    node: Arc<NodeInfo>,
    stopped: Stopped,
}

impl NodeApi {
    pub(super) fn new(engine: Handle, node: Arc<NodeInfo>, stopped: Stopped) -> Self {
        Self {
            engine,
            node,
            stopped,
        }
    }
}

#[tonic::async_trait]
impl NodeService for NodeApi {
    async fn get_node(
        &self,
        _request: Request<v1::GetNodeRequest>,
    ) -> Result<Response<v1::GetNodeResponse>, Status> {
        let snapshot = self.engine.snapshot();
        let active = snapshot.faults.values().filter(|f| is_active(f)).count();
        let kubernetes = kubernetes(&self.node.kubernetes.state(), &self.node.kubernetes.lacks().all());
        let features = self.node.features.list.iter().chain([&kubernetes]);
        let node = v1::Node {
            version: self.node.version.clone(),
            name: self.node.name.clone(),
            kernel_release: self.node.features.kernel_release.clone(),
            started_at: Some(timestamp_to_proto(self.node.started_at)),
            uptime: Some(duration_to_proto(self.node.started.elapsed())),
            features: features.map(feature).collect(),
            runtime: Some(v1::RuntimeStatus {
                sources: runtime_sources(&self.node.features, &snapshot.runtime),
                ..runtime(&snapshot.runtime)
            }),
            limits: Some(limits(self.node.limits)),
            active_faults: u32::try_from(active).unwrap_or(u32::MAX),
        };
        Ok(Response::new(v1::GetNodeResponse { node: Some(node) }))
    }

    async fn list_targets(
        &self,
        request: Request<v1::ListTargetsRequest>,
    ) -> Result<Response<v1::ListTargetsResponse>, Status> {
        let namespace = request.into_inner().namespace;
        let targets = targets(&self.engine.snapshot(), namespace.as_deref())
            .into_values()
            .collect();
        Ok(Response::new(v1::ListTargetsResponse { targets }))
    }

    type WatchTargetsStream = ReceiverStream<Result<v1::WatchTargetsResponse, Status>>;

    async fn watch_targets(
        &self,
        request: Request<v1::WatchTargetsRequest>,
    ) -> Result<Response<Self::WatchTargetsStream>, Status> {
        let namespace = request.into_inner().namespace;
        let engine = self.engine.clone();
        Ok(Response::new(produce(
            self.stopped.clone(),
            |mut sink| async move {
                match watch_targets(&engine, namespace.as_deref(), &mut sink).await {
                    Ok(()) => Ended,
                    Err(ended) => ended,
                }
            },
        )))
    }
}

async fn watch_targets(
    engine: &Handle,
    namespace: Option<&str>,
    sink: &mut Sink<v1::WatchTargetsResponse>,
) -> Result<(), Ended> {
    let mut snapshots = engine.watch();
    let mut told = BTreeMap::<TargetIdentity, v1::TargetInfo>::new();
    let mut synced = false;
    loop {
        let now = targets(&snapshots.borrow_and_update().clone(), namespace);
        for (change, _, target) in changes(&told, &now) {
            sink.send(v1::WatchTargetsResponse {
                change: change.into(),
                target: Some(target.clone()),
            })
            .await?;
        }
        told = now;
        if !std::mem::replace(&mut synced, true) {
            sink.send(v1::WatchTargetsResponse {
                change: v1::Change::Synced.into(),
                target: None,
            })
            .await?;
        }
        if sink.or_ended(snapshots.changed()).await?.is_err() {
            // The engine is gone, and the daemon with it.
            return Ok(());
        }
    }
}

fn feature(feature: &Feature) -> v1::Feature {
    v1::Feature {
        name: feature.name.to_owned(),
        available: feature.available,
        detail: feature.detail.clone(),
        consequence: feature.consequence.clone(),
    }
}

/// The cluster's API as one more thing that a node has or lacks.
fn kubernetes(state: &KubeState, lacks: &BTreeMap<String, String>) -> Feature {
    let unknown = "Services, nodes and pods of other nodes are unknown";
    let (available, detail, consequence) = match state {
        KubeState::Ready { version } => {
            let part = |(part, why): (&String, &String)| format!("{part} can't be followed: {why}");
            let (old, parts) = (too_old(version), lacks.iter().map(part));
            let server = match version.as_str() {
                UNKNOWN_VERSION => "the API server answers, and doesn't tell its version".to_owned(),
                version => format!("the API server is {version}"),
            };
            let said: Vec<_> = [server].into_iter().chain(old).chain(parts).collect();
            let stays = "what can't be followed stays as it was last known, or unknown";
            (true, said.join("; "), if lacks.is_empty() { "" } else { stays })
        }
        KubeState::Absent(why) => (false, why.clone(), unknown),
        KubeState::Connecting => (false, "the API server hasn't answered yet".to_owned(), unknown),
        KubeState::Down(why) => {
            let stays = "Services, nodes and pods of other nodes stay as they were last known";
            (false, why.clone(), stays)
        }
    };
    Feature {
        name: "kubernetes",
        available,
        detail,
        consequence: consequence.to_owned(),
    }
}

fn runtime(state: &RuntimeState) -> v1::RuntimeStatus {
    let (state, message) = match state {
        RuntimeState::Absent(why) => (v1::RuntimeState::Absent, why.clone()),
        RuntimeState::Connecting => (v1::RuntimeState::Connecting, String::new()),
        RuntimeState::Down(why) => (v1::RuntimeState::Down, why.clone()),
        RuntimeState::Ready {
            name,
            version,
            events,
        } => {
            return v1::RuntimeStatus {
                state: v1::RuntimeState::Ready.into(),
                message: String::new(),
                name: name.clone(),
                version: version.clone(),
                events: *events,
                ..v1::RuntimeStatus::default()
            };
        }
    };
    v1::RuntimeStatus {
        state: state.into(),
        message,
        ..v1::RuntimeStatus::default()
    }
}

/// How it is seen what the runtime does: by what its clients send and receive, and by what it tells.
fn runtime_sources(features: &Features, state: &RuntimeState) -> Vec<v1::RuntimeSource> {
    let calls = features.get(CRI_CALLS);
    let events = matches!(state, RuntimeState::Ready { events: true, .. });
    let how = match state {
        RuntimeState::Ready { events: true, .. } => {
            "the runtime tells of containers and sandboxes that were created, started, stopped and deleted (GetContainerEvents)"
        }
        RuntimeState::Ready { .. } => {
            "the runtime doesn't offer GetContainerEvents, as containerd before 1.7 and CRI-O unless it is told to"
        }
        RuntimeState::Absent(_) | RuntimeState::Connecting | RuntimeState::Down(_) => {
            "the runtime isn't ready"
        }
    };
    vec![
        v1::RuntimeSource {
            name: "calls".to_owned(),
            in_use: calls.is_some_and(|feature| feature.available),
            detail: calls.map_or_else(
                || "not wanted (--cri-calls, --runtime-endpoint)".to_owned(),
                |feature| feature.detail.clone(),
            ),
            blind_spots: "what happens although nobody asks for it, as the end of a container; names of some calls on a \
                          connection older than the daemon, until the client connects anew; io_uring and 32-bit clients"
                .to_owned(),
        },
        v1::RuntimeSource {
            name: "events".to_owned(),
            in_use: events,
            detail: how.to_owned(),
            blind_spots: "who asked, how long it took, what failed, images; what happened before the daemon subscribed or while \
                          the subscription was interrupted"
                .to_owned(),
        },
    ]
}

fn limits(limits: Limits) -> v1::Limits {
    v1::Limits {
        max_duration: Some(duration_to_proto(limits.max_duration)),
        max_faults: limits.max_faults,
        max_targets: limits.max_targets,
        max_faults_per_target: limits.max_faults_per_target,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::kubernetes;
    use crate::targets::kube::{KubeState, UNKNOWN_VERSION};

    fn said(version: &str, lacks: &[(&str, &str)]) -> (bool, String, String) {
        let version = version.to_owned();
        let own = |(part, why): &(&str, &str)| ((*part).to_owned(), (*why).to_owned());
        let lacks: BTreeMap<_, _> = lacks.iter().map(own).collect();
        let feature = kubernetes(&KubeState::Ready { version }, &lacks);
        (feature.available, feature.detail, feature.consequence)
    }

    #[test]
    fn an_old_server_and_what_it_does_not_give_are_told() {
        let fine = (true, "the API server is v1.33.1".to_owned(), String::new());
        assert_eq!(said("v1.33.1", &[]), fine);
        let (available, detail, consequence) = said("v1.20.2", &[("endpointslices of shop", "404")]);
        assert!(available, "the rest of it works");
        let expected = "the API server is v1.20.2; supported are 1.27 and later; endpointslices of shop can't be followed: 404";
        assert_eq!(detail, expected);
        assert!(consequence.contains("unknown"), "{consequence}");
        let (_, detail, _) = said(UNKNOWN_VERSION, &[]);
        assert!(detail.contains("doesn't tell its version"), "{detail}");
    }
}

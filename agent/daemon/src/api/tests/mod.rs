//! The services over a fake engine, through a real socket and a real client.

mod engine;
mod events;
mod faults;
mod node;
mod server;
mod socket;
mod timeline;
mod tracing;
mod watches;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use hyper_util::rt::TokioIo;
use sabot_abi::{CONNECTION_ACCEPTED, Histogram, PEER_PRIVATE, PEER_SERVICE};
use sabot_core::Violation;
use sabot_core::model::{BootTime, FaultName};
use sabot_proto::sabot::v1;
use sabot_proto::sabot::v1::fault_service_client::FaultServiceClient;
use sabot_proto::sabot::v1::node_service_client::NodeServiceClient;
use sabot_proto::sabot::v1::observe_service_client::ObserveServiceClient;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::{Limits, NodeInfo, ServeError, Services, SocketGuard, WatchLoss, bind_socket, serve};
use crate::audit::AuditLog;
use crate::engine::handle::LedgerEntry;
use crate::kernel::features::{Feature, Features};
use crate::observe::drops::DropKind;
use crate::observe::event::EventHub;
use crate::observe::identity::Identity;
use crate::observe::source::{ObserveSource, SetTracingError, SyscallSummary};
use crate::observe::syscalls::{CallTotals, SyscallsError, Tracing};
use crate::observe::timeline::{
    Connections, Moment, NodeTimeline, NodeWindow, OperationTotals, ProcessStats, Recovery, TargetTimeline,
    Timeline, TimelineSource, Totals, What, Window,
};
use crate::targets::kube::KubeStatus;
use engine::FakeEngine;

/// Longer than anything here takes on a busy machine; reaching it means that it hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// Events that the hub holds for a reader.
const HUB_CAPACITY: usize = 16;

#[derive(Default)]
struct Observers {
    tracing: Mutex<Tracing>,
}

impl ObserveSource for Observers {
    fn syscalls(&self) -> Vec<SyscallSummary> {
        let mut durations = Histogram::EMPTY;
        durations.buckets[0] = 12;
        durations.sum = 340_000;
        vec![SyscallSummary {
            process: "containerd".into(),
            syscall: "openat".into(),
            calls: 12,
            total: Duration::from_micros(340),
            errors: vec![("ENOENT".into(), 3)],
            p50: Duration::from_micros(20),
            p99: Duration::from_micros(90),
            durations,
        }]
    }

    fn tracing(&self) -> Option<Tracing> {
        Some(self.tracing.lock().expect("no test panics in here").clone())
    }

    /// Refuses what holds a name that nothing can have.
    fn set_tracing(&self, tracing: &Tracing) -> Result<(), SetTracingError> {
        if let Some(index) = tracing.processes.iter().position(String::is_empty) {
            return Err(SyscallsError::Invalid(vec![Violation {
                field: format!("tracing.processes[{index}]"),
                value: "a b".into(),
                allowed: "a name".into(),
            }])
            .into());
        }
        *self.tracing.lock().expect("no test panics in here") = tracing.clone();
        Ok(())
    }

    fn events_lost(&self) -> Vec<(String, u64)> {
        vec![("packets".into(), 5)]
    }

    fn incidents(&self) -> Vec<(String, u64)> {
        vec![("unparsed".into(), 2)]
    }
}

/// Tells of one fault only, `team-a/cut`.
struct OneTimeline;

impl TimelineSource for OneTimeline {
    fn timeline(&self, fault: &FaultName, _ledgers: &[LedgerEntry]) -> Option<Timeline> {
        let at = |seconds: u64| BootTime(seconds * 1_000_000_000);
        let dropped = DropKind {
            injected: true,
            egress: false,
            reason: "FAULT".into(),
        };
        let mut connections = Connections::default();
        connections[PEER_SERVICE as usize] = [3, 0, 1, 2];
        connections[PEER_PRIVATE as usize][CONNECTION_ACCEPTED] = 4;
        let window = |from, to| Window {
            from: at(from),
            to: at(to),
            totals: Totals {
                retransmits: to - from,
                drops: [(dropped.clone(), 7)].into(),
                connections,
                connect_errors: [("ECONNREFUSED", 2)].into(),
                dns_answers: [("NOERROR", 5), ("SERVFAIL", 1)].into(),
                ..Totals::default()
            },
        };
        let moment = |seconds, what| Moment {
            at: at(seconds),
            what,
            detail: String::new(),
        };
        (*fault == engine::fault_name("cut")).then(|| Timeline {
            applied: at(1),
            targets: vec![TargetTimeline {
                identity: Arc::new(Identity::Pod {
                    namespace: "team-a".into(),
                    name: "web".into(),
                }),
                moments: vec![moment(1, What::Applied), moment(3, What::FirstRto)],
                recovery: Some(Recovery::NoTraffic),
                before: None,
                during: window(1, 5),
                after: Some(window(5, 6)),
            }],
            activity: Some(NodeTimeline {
                before: None,
                during: node_window(at(1), at(5)),
                after: None,
            }),
        })
    }
}

/// Ten calls of the kubelet, and two of the runtime's of 300 ms.
fn node_window(from: BootTime, to: BootTime) -> NodeWindow {
    let mut durations = Histogram::EMPTY;
    durations.buckets[1] = 9;
    durations.sum = 9 * 1100;
    let kubelet = ProcessStats {
        calls: 10,
        errors: 3,
        durations,
    };
    let sync = CallTotals {
        durations: (&durations).into(),
        errors: [("EIO", 3)].into(),
    };
    let mut stop = OperationTotals {
        outcomes: [("NotFound", 1), ("OK", 1)].into(),
        total: Duration::from_millis(600),
        ..OperationTotals::default()
    };
    stop.buckets[8] = 1;
    stop.buckets[9] = 1;
    NodeWindow {
        from,
        to,
        processes: [("kubelet".into(), kubelet)].into(),
        calls: [(("kubelet".into(), "fsync"), sync)].into(),
        operations: [("StopContainer", stop)].into(),
    }
}

/// A server on a socket of its own.
struct Fixture {
    engine: FakeEngine,
    events: EventHub,
    watch_loss: WatchLoss,
    socket: PathBuf,
    channel: Channel,
    shutdown: Option<oneshot::Sender<()>>,
    server: JoinHandle<Result<(), ServeError>>,
    _guard: SocketGuard,
    _directory: TempDir,
}

impl Fixture {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let socket = directory.path().join("sabotd.sock");
        let (listener, guard) = bind_socket(&socket).expect("the socket is free");
        let (engine, handle) = FakeEngine::start();
        let events = EventHub::new(HUB_CAPACITY);
        let watch_loss = WatchLoss::default();
        let services = Services {
            engine: handle,
            events: events.clone(),
            observe: Arc::new(Observers::default()),
            timelines: Arc::new(OneTimeline),
            node: Arc::new(node_info()),
            audit: AuditLog::default(),
            watch_loss: watch_loss.clone(),
        };
        let (shutdown, stopped) = oneshot::channel();
        let server = tokio::spawn(serve(listener, None, services, async {
            let _ = stopped.await;
        }));
        let path = socket.clone();
        let channel = Endpoint::from_static("http://sabotd")
            .connect_with_connector(service_fn(move |_| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            }))
            .await
            .expect("the server answers");
        Self {
            engine,
            events,
            watch_loss,
            socket,
            channel,
            shutdown: Some(shutdown),
            server,
            _guard: guard,
            _directory: directory,
        }
    }

    fn faults(&self) -> FaultServiceClient<Channel> {
        FaultServiceClient::new(self.channel.clone())
    }

    fn node(&self) -> NodeServiceClient<Channel> {
        NodeServiceClient::new(self.channel.clone())
    }

    fn observe(&self) -> ObserveServiceClient<Channel> {
        ObserveServiceClient::new(self.channel.clone())
    }

    async fn apply(&self, name: &str) -> v1::Fault {
        let request = v1::ApplyFaultRequest {
            metadata: Some(metadata(name)),
            spec: Some(spec()),
            wait: None,
        };
        let answer = self.faults().apply_fault(request).await.expect("it is applied");
        answer.into_inner().fault.expect("with the fault")
    }

    fn shut_down(&mut self) {
        let shutdown = self.shutdown.take().expect("only once");
        shutdown.send(()).expect("the server runs");
    }
}

fn node_info() -> NodeInfo {
    NodeInfo {
        version: "1.2.3".into(),
        name: "node-1".into(),
        started_at: SystemTime::now(),
        started: Instant::now(),
        features: Features {
            kernel_release: "6.18.0".into(),
            list: vec![
                Feature {
                    name: "bpf",
                    available: true,
                    detail: "programs load".into(),
                    consequence: String::new(),
                },
                Feature {
                    name: "tun",
                    available: false,
                    detail: "/dev/net/tun: No such file or directory".into(),
                    consequence: "delay is refused".into(),
                },
            ],
        },
        kubernetes: KubeStatus::absent("not in a pod".into()),
        limits: Limits {
            max_duration: Duration::from_secs(3600),
            max_faults: 4096,
            max_targets: 1024,
            max_faults_per_target: 64,
        },
    }
}

fn metadata(name: &str) -> v1::Metadata {
    v1::Metadata {
        name: name.into(),
        namespace: "team-a".into(),
    }
}

fn spec() -> v1::FaultSpec {
    v1::FaultSpec {
        duration: Some(prost_types::Duration {
            seconds: 60,
            nanos: 0,
        }),
        target: Some(v1::Target {
            kind: Some(v1::target::Kind::Interface("eth0".into())),
        }),
        action: Some(v1::Action {
            kind: Some(v1::action::Kind::Partition(v1::Partition {})),
        }),
        ..v1::FaultSpec::default()
    }
}

/// The next message; panics when there is none in time.
async fn next<T>(stream: &mut Streaming<T>) -> T {
    tokio::time::timeout(PATIENCE, stream.message())
        .await
        .expect("a message in time")
        .expect("no error")
        .expect("not the end")
}

/// Panics unless the stream ends without an error.
async fn assert_ends<T>(stream: &mut Streaming<T>) {
    let end = tokio::time::timeout(PATIENCE, stream.message())
        .await
        .expect("the end in time")
        .expect("no error");
    assert!(end.is_none(), "the stream goes on");
}

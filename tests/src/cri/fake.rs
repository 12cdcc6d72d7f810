//! A container runtime that does what a test tells it, on a real unix socket.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::ensure;
use futures::{Stream, StreamExt};
use sabot_proto::runtime::v1::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use sabot_proto::runtime::v1::{
    ContainerEventResponse, ContainerEventType, ContainerStatusRequest, ContainerStatusResponse,
    CreateContainerRequest, CreateContainerResponse, ExecSyncRequest, ExecSyncResponse, GetEventsRequest,
    LinuxPodSandboxStatus, ListContainersRequest, ListContainersResponse, ListPodSandboxRequest,
    ListPodSandboxResponse, Namespace, NamespaceMode, NamespaceOption, PodIp, PodSandbox, PodSandboxMetadata,
    PodSandboxNetworkStatus, PodSandboxState, PodSandboxStatus, PodSandboxStatusRequest,
    PodSandboxStatusResponse, RemoveContainerRequest, RemoveContainerResponse, RemovePodSandboxRequest,
    RemovePodSandboxResponse, RunPodSandboxRequest, RunPodSandboxResponse, StartContainerRequest,
    StartContainerResponse, StopContainerRequest, StopContainerResponse, StopPodSandboxRequest,
    StopPodSandboxResponse, VersionRequest, VersionResponse,
};
use tokio::net::UnixListener;
use tokio::runtime::{self, Runtime};
use tokio::sync::broadcast;
use tokio_stream::wrappers::{BroadcastStream, UnixListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::client::{Client, Cri};

/// One sandbox, as the test wants it described.
#[derive(Clone)]
pub struct FakeSandbox {
    pub namespace: String,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub state: PodSandboxState,
    /// The first is the pod's main one.
    pub addresses: Vec<String>,
    pub host_network: bool,
    /// The JSON under `info`.
    pub info: String,
    /// Its status is answered with an error.
    pub status_fails: bool,
    /// Its status is never answered.
    pub status_hangs: bool,
}

impl FakeSandbox {
    /// A ready one in the namespace `shop` with the label `app=NAME`, described the way containerd does it.
    pub fn ready(name: &str, netns: &Path) -> Self {
        Self {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            labels: [("app".to_owned(), name.to_owned())].into(),
            annotations: BTreeMap::new(),
            state: PodSandboxState::SandboxReady,
            addresses: ["10.88.0.2", "fd00::2"].map(str::to_owned).into(),
            host_network: false,
            info: info(0, netns),
            status_fails: false,
            status_hangs: false,
        }
    }

    fn metadata(&self) -> PodSandboxMetadata {
        PodSandboxMetadata {
            name: self.name.clone(),
            uid: format!("uid-{}", self.name),
            namespace: self.namespace.clone(),
            attempt: 0,
        }
    }

    fn status(&self, id: String) -> PodSandboxStatus {
        let mut addresses = self.addresses.iter().cloned();
        let network = if self.host_network {
            NamespaceMode::Node
        } else {
            NamespaceMode::Pod
        };
        PodSandboxStatus {
            id,
            metadata: Some(self.metadata()),
            state: self.state.into(),
            network: Some(PodSandboxNetworkStatus {
                ip: addresses.next().unwrap_or_default(),
                additional_ips: addresses.map(|ip| PodIp { ip }).collect(),
            }),
            linux: Some(LinuxPodSandboxStatus {
                namespaces: Some(Namespace {
                    options: Some(NamespaceOption {
                        network: network.into(),
                        ..NamespaceOption::default()
                    }),
                }),
            }),
            labels: self.labels.clone().into_iter().collect(),
            annotations: self.annotations.clone().into_iter().collect(),
            ..PodSandboxStatus::default()
        }
    }
}

/// What containerd writes under `info`, as far as it matters here.
pub fn info(pid: u32, netns: &Path) -> String {
    let namespaces = serde_json::json!([{"type": "ipc"}, {"type": "network", "path": netns}]);
    serde_json::json!({"pid": pid, "runtimeSpec": {"linux": {"namespaces": namespaces}}}).to_string()
}

/// What the runtime has, and what it was asked.
#[derive(Default)]
pub struct State {
    /// By id.
    pub sandboxes: BTreeMap<String, FakeSandbox>,
    pub list_hangs: bool,
    /// How often it was asked for the list.
    pub lists: usize,
    /// How often it was asked for a status.
    pub statuses: usize,
}

/// Drop it to take the runtime down; its socket file stays, as after a crash.
pub struct FakeRuntime {
    state: Arc<Mutex<State>>,
    events: Option<broadcast::Sender<ContainerEventResponse>>,
    /// Its own, so that its connections end with it.
    server: Option<Runtime>,
}

/// Whether the runtime knows the call for its events.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Events {
    /// As containerd 1.6.
    Unimplemented,
    /// As containerd 1.7 and later.
    Offered,
}

impl FakeRuntime {
    /// Serves on a socket, whatever is at its path.
    ///
    /// # Panics
    ///
    /// The socket can't be bound.
    pub fn start(socket: &Path, version: &'static str, events: Events) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let sender = (events == Events::Offered).then(|| broadcast::channel(1024).0);
        let service = Service {
            version,
            state: state.clone(),
            events: sender.clone(),
        };
        let _ = std::fs::remove_file(socket);
        let server = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let _context = server.enter();
        let incoming = UnixListenerStream::new(UnixListener::bind(socket).unwrap());
        server.spawn(async move {
            let router = Server::builder().add_service(RuntimeServiceServer::new(service));
            router.serve_with_incoming(incoming).await.unwrap();
        });
        Self {
            state,
            events: sender,
            server: Some(server),
        }
    }

    /// What it has, to look at and to change.
    ///
    /// # Panics
    ///
    /// A holder of the state panicked before.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Adds or replaces a sandbox.
    pub fn put(&self, id: &str, sandbox: FakeSandbox) {
        self.state().sandboxes.insert(id.to_owned(), sandbox);
    }

    /// Removes a sandbox, if it is there.
    pub fn remove(&self, id: &str) {
        self.state().sandboxes.remove(id);
    }

    /// Tells the subscribers that something happened.
    ///
    /// # Panics
    ///
    /// No events are offered, or nobody is subscribed.
    pub fn emit(&self, id: &str) {
        self.tell(ContainerEventResponse {
            container_id: id.into(),
            container_event_type: ContainerEventType::ContainerStartedEvent.into(),
            ..ContainerEventResponse::default()
        });
    }

    /// Tells the subscribers what happened.
    ///
    /// # Panics
    ///
    /// No events are offered, or nobody is subscribed.
    pub fn tell(&self, event: ContainerEventResponse) {
        self.events
            .as_ref()
            .expect("events are offered")
            .send(event)
            .expect("somebody is subscribed");
    }

    /// Who follows the events.
    pub fn subscribers(&self) -> usize {
        self.events.as_ref().map_or(0, broadcast::Sender::receiver_count)
    }
}

impl Drop for FakeRuntime {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown_background();
        }
    }
}

struct Service {
    version: &'static str,
    state: Arc<Mutex<State>>,
    events: Option<broadcast::Sender<ContainerEventResponse>>,
}

/// The calls that the daemon makes; every other one is unimplemented.
macro_rules! runtime_service {
    ($($name:ident($request:ty) -> $response:ty;)* { $($real:tt)* }) => {
        #[tonic::async_trait]
        impl RuntimeService for Service {
            $(async fn $name(&self, _: Request<$request>) -> Result<Response<$response>, Status> {
                Err(Status::unimplemented(stringify!($name)))
            })*
            $($real)*
        }
    };
}

runtime_service! {
    run_pod_sandbox(RunPodSandboxRequest) -> RunPodSandboxResponse;
    stop_pod_sandbox(StopPodSandboxRequest) -> StopPodSandboxResponse;
    remove_pod_sandbox(RemovePodSandboxRequest) -> RemovePodSandboxResponse;
    create_container(CreateContainerRequest) -> CreateContainerResponse;
    start_container(StartContainerRequest) -> StartContainerResponse;
    stop_container(StopContainerRequest) -> StopContainerResponse;
    remove_container(RemoveContainerRequest) -> RemoveContainerResponse;
    list_containers(ListContainersRequest) -> ListContainersResponse;
    container_status(ContainerStatusRequest) -> ContainerStatusResponse;
    exec_sync(ExecSyncRequest) -> ExecSyncResponse;
    {
        async fn version(&self, _: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
            Ok(Response::new(VersionResponse {
                version: "0.1.0".into(),
                runtime_name: "fake".into(),
                runtime_version: self.version.into(),
                runtime_api_version: "v1".into(),
            }))
        }

        async fn list_pod_sandbox(
            &self,
            _: Request<ListPodSandboxRequest>,
        ) -> Result<Response<ListPodSandboxResponse>, Status> {
            let hangs = {
                let mut state = self.state.lock().unwrap();
                state.lists += 1;
                state.list_hangs
            };
            if hangs {
                tokio::time::sleep(Duration::from_secs(3600)).await;
            }
            let state = self.state.lock().unwrap();
            // Like a runtime that ignores the filter: all of them, whatever their state.
            let items = state.sandboxes.iter().map(|(id, sandbox)| PodSandbox {
                id: id.clone(),
                metadata: Some(sandbox.metadata()),
                state: sandbox.state.into(),
                labels: sandbox.labels.clone().into_iter().collect(),
                ..PodSandbox::default()
            });
            Ok(Response::new(ListPodSandboxResponse { items: items.collect() }))
        }

        async fn pod_sandbox_status(
            &self,
            request: Request<PodSandboxStatusRequest>,
        ) -> Result<Response<PodSandboxStatusResponse>, Status> {
            let PodSandboxStatusRequest { pod_sandbox_id: id, verbose } = request.into_inner();
            assert!(verbose, "the process is only in the verbose answer");
            let sandbox = {
                let mut state = self.state.lock().unwrap();
                state.statuses += 1;
                state.sandboxes.get(id.as_str()).cloned().ok_or_else(|| Status::not_found(id.clone()))?
            };
            if sandbox.status_hangs {
                tokio::time::sleep(Duration::from_secs(3600)).await;
            }
            if sandbox.status_fails {
                return Err(Status::unknown("the sandbox's task is not found"));
            }
            Ok(Response::new(PodSandboxStatusResponse {
                status: Some(sandbox.status(id)),
                info: [("info".to_owned(), sandbox.info)].into(),
            }))
        }

        type GetContainerEventsStream =
            Pin<Box<dyn Stream<Item = Result<ContainerEventResponse, Status>> + Send>>;

        async fn get_container_events(
            &self,
            _: Request<GetEventsRequest>,
        ) -> Result<Response<Self::GetContainerEventsStream>, Status> {
            let sender = self.events.as_ref().ok_or_else(|| Status::unimplemented("unknown method"))?;
            let events = BroadcastStream::new(sender.subscribe());
            Ok(Response::new(Box::pin(events.map(|event| event.map_err(|e| Status::aborted(e.to_string()))))))
        }
    }
}

/// What a client other than the daemon asks, on a connection of its own: a call that is answered, and one that is refused.
///
/// # Errors
///
/// The first call fails, or the second one doesn't.
pub fn ask(socket: &Path) -> anyhow::Result<()> {
    let client = Client::new(socket)?;
    client.call("ListPodSandbox", async |mut cri: Cri| {
        cri.list_pod_sandbox(ListPodSandboxRequest::default()).await
    })?;
    let refused = client.call("RunPodSandbox", async |mut cri: Cri| {
        cri.run_pod_sandbox(RunPodSandboxRequest::default()).await
    });
    ensure!(refused.is_err(), "the fake runtime runs no sandboxes");
    Ok(())
}

/// A directory for sockets; its path is short enough for one.
pub fn socket_in(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("cri.sock")
}

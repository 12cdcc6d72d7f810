//! gRPC over the daemon's unix socket, for callers that aren't async.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use sabot_proto::MAX_MESSAGE_BYTES;
use sabot_proto::sabot::v1::fault_service_client::FaultServiceClient;
use sabot_proto::sabot::v1::node_service_client::NodeServiceClient;
use sabot_proto::sabot::v1::observe_service_client::ObserveServiceClient;
use sabot_proto::sabot::v1::{
    ApplyFaultRequest, DeleteFaultRequest, Fault, FaultSpec, GetFaultRequest, GetNodeRequest,
    ListFaultsRequest, Metadata, Node,
};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// A connection, and the runtime that it lives on.
#[derive(Debug)]
pub struct Client {
    channel: Channel,
    runtime: Runtime,
}

impl Client {
    /// # Errors
    ///
    /// Nobody answers on the socket.
    pub fn connect(socket: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("no tokio runtime")?;
        let path: PathBuf = socket.to_path_buf();
        let connector = service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The address is never looked at: the connector knows where to go.
        let endpoint = Endpoint::from_static("http://localhost");
        let channel = runtime
            .block_on(endpoint.connect_with_connector(connector))
            .with_context(|| format!("nobody answers on {}", socket.display()))?;
        Ok(Self { channel, runtime })
    }

    /// Waits for a call on one of the services below.
    pub fn wait<T>(&self, call: impl Future<Output = T>) -> T {
        self.runtime.block_on(call)
    }

    pub fn faults(&self) -> FaultServiceClient<Channel> {
        FaultServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub fn observe(&self) -> ObserveServiceClient<Channel> {
        ObserveServiceClient::new(self.channel.clone())
    }

    pub fn nodes(&self) -> NodeServiceClient<Channel> {
        NodeServiceClient::new(self.channel.clone())
    }

    /// Applies a fault and waits for its enforcement.
    ///
    /// # Errors
    ///
    /// The daemon's status.
    pub fn apply(&self, name: &str, spec: FaultSpec, wait: Duration) -> Result<Fault, Box<Status>> {
        let request = ApplyFaultRequest {
            metadata: Some(Metadata {
                name: name.to_owned(),
                namespace: String::new(),
            }),
            spec: Some(spec),
            wait: wait.try_into().ok(),
        };
        let answer = self.wait(self.faults().apply_fault(request))?.into_inner();
        answer.fault.ok_or_else(absent)
    }

    /// The fault with its counters, read from the kernel now.
    ///
    /// # Errors
    ///
    /// The daemon's status.
    pub fn get(&self, namespace: &str, name: &str) -> Result<Fault, Box<Status>> {
        let request = GetFaultRequest {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let answer = self.wait(self.faults().get_fault(request))?.into_inner();
        answer.fault.ok_or_else(absent)
    }

    /// Deletes a fault; returns it with its last counters.
    ///
    /// # Errors
    ///
    /// The daemon's status.
    pub fn delete(&self, namespace: &str, name: &str) -> Result<Fault, Box<Status>> {
        let request = DeleteFaultRequest {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let answer = self.wait(self.faults().delete_fault(request))?.into_inner();
        answer.fault.ok_or_else(absent)
    }

    /// All faults that the daemon knows, with their counters.
    ///
    /// # Errors
    ///
    /// The daemon's status.
    pub fn list(&self, active_only: bool) -> Result<Vec<Fault>, Box<Status>> {
        let request = ListFaultsRequest {
            namespace: None,
            active_only,
            include_counters: true,
        };
        Ok(self.wait(self.faults().list_faults(request))?.into_inner().faults)
    }

    /// What works on this node.
    ///
    /// # Errors
    ///
    /// The daemon's status.
    pub fn node(&self) -> Result<Node, Box<Status>> {
        let answer = self.wait(self.nodes().get_node(GetNodeRequest {}))?.into_inner();
        answer.node.ok_or_else(absent)
    }
}

fn absent() -> Box<Status> {
    Box::new(Status::internal("the daemon's answer is empty"))
}

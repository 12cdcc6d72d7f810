//! The gRPC server: `sabot.v1`, health and reflection.

use std::future::{Future, IntoFuture as _};
use std::io;
use std::pin::pin;
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use sabot_proto::sabot::v1::fault_service_server::FaultServiceServer;
use sabot_proto::sabot::v1::node_service_server::NodeServiceServer;
use sabot_proto::sabot::v1::observe_service_server::ObserveServiceServer;
use sabot_proto::{FILE_DESCRIPTOR_SET, MAX_MESSAGE_BYTES};
use tokio::net::UnixListener;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::transport::Server;
use tonic_health::ServingStatus;

use super::Services;
use super::caller::Connection;
use super::fault::FaultApi;
use super::node::NodeApi;
use super::observe::ObserveApi;
use super::roles::RolesLayer;
use super::stream::Stop;
use super::tls::Remote;

/// How long calls may take to end once the daemon stops; streams of ours end at once.
const GRACE: Duration = Duration::from_secs(2);
/// Between failures to accept a connection: out of file descriptors, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("building the reflection service: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("serving gRPC: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves until `shutdown`: then health says NOT_SERVING, streams end, and calls under way are given a moment.
pub async fn serve(
    listener: UnixListener,
    remote: Option<Remote>,
    services: Services,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let (stop, stopped) = Stop::new();
    let roles = RolesLayer::new(services.audit.clone());
    let faults = FaultApi::new(services.engine.clone(), services.audit.clone(), stopped.clone());
    let faults = FaultServiceServer::new(faults).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let nodes = NodeServiceServer::new(NodeApi::new(
        services.engine.clone(),
        services.node.clone(),
        stopped.clone(),
    ));
    let observe = ObserveServiceServer::new(ObserveApi::new(services, stopped.clone()));

    let (health, health_service) = tonic_health::server::health_reporter();
    let report = async |status| {
        for name in [
            // The whole server, by the protocol's convention.
            "",
            "sabot.v1.FaultService",
            "sabot.v1.NodeService",
            "sabot.v1.ObserveService",
        ] {
            health.set_service_status(name, status).await;
        }
    };
    report(ServingStatus::Serving).await;

    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut ended = stopped;
    let server = Server::builder()
        .layer(roles)
        .trace_fn(|request| tracing::debug_span!("grpc", method = request.uri().path()))
        .add_service(faults)
        .add_service(nodes)
        .add_service(observe)
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        // What older clients ask for.
        .add_service(reflection().build_v1alpha()?)
        .serve_with_incoming_shutdown(connections(listener, remote), async move { ended.wait().await });

    let mut server = pin!(server.into_future());
    tokio::select! {
        result = &mut server => return Ok(result?),
        () = shutdown => {}
    }
    report(ServingStatus::NotServing).await;
    stop.stop();
    match tokio::time::timeout(GRACE, server).await {
        Ok(result) => Ok(result?),
        Err(_) => {
            tracing::info!("calls were still under way at the end of the grace period");
            Ok(())
        }
    }
}

/// Those of this machine's processes, and those of clients with certificates.
fn connections(listener: UnixListener, remote: Option<Remote>) -> impl Stream<Item = io::Result<Connection>> {
    let remote = remote.map(|remote| ReceiverStream::new(remote.connections()));
    let remote = stream::iter(remote).flatten();
    let local = UnixListenerStream::new(listener).then(async |connection| {
        if let Err(error) = &connection {
            tracing::warn!(%error, "a connection could not be accepted");
            // The listener stays readable: without a pause this would be a busy loop.
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
        connection.map(Connection::unix)
    });
    stream::select(local, remote)
}

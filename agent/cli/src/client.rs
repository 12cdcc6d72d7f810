//! The connection to sabotd.

use std::error::Error;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use sabot_proto::MAX_MESSAGE_BYTES;
use sabot_proto::sabot::v1::fault_service_client::FaultServiceClient;
use sabot_proto::sabot::v1::node_service_client::NodeServiceClient;
use sabot_proto::sabot::v1::observe_service_client::ObserveServiceClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};
use tower::service_fn;

use crate::args::Global;
use crate::error::CliError;
use crate::remote::Remote;

pub(crate) struct Client {
    channel: Channel,
    socket: PathBuf,
    /// Of a daemon of another machine.
    server: Option<String>,
    timeout: Duration,
}

impl Client {
    /// The socket is opened here and not by the channel, so that the reason of a failure is the operating system's.
    pub(crate) async fn connect(global: &Global) -> Result<Self, CliError> {
        if let Some(remote) = global.remote.read()? {
            return Self::connect_remote(remote, global.timeout).await;
        }
        let socket = global.socket.clone();
        let unreachable = |source| CliError::Unreachable {
            socket: socket.clone(),
            source,
        };
        let no_answer = || CliError::NoAnswer {
            socket: socket.clone(),
            after: global.timeout,
        };
        let stream = tokio::time::timeout(global.timeout, UnixStream::connect(&socket))
            .await
            .map_err(|_| no_answer())?
            .map_err(unreachable)?;
        let first = Arc::new(Mutex::new(Some(stream)));
        let path = socket.clone();
        let connector = service_fn(move |_| {
            let first = first.lock().unwrap_or_else(PoisonError::into_inner).take();
            let path = path.clone();
            async move {
                let stream = match first {
                    Some(stream) => stream,
                    None => UnixStream::connect(path).await?,
                };
                Ok::<_, io::Error>(TokioIo::new(stream))
            }
        });
        // The name is for the authority header alone.
        let endpoint = Endpoint::from_static("http://sabotd");
        let channel = tokio::time::timeout(global.timeout, endpoint.connect_with_connector(connector))
            .await
            .map_err(|_| no_answer())?
            .map_err(|e| unreachable(io::Error::other(e)))?;
        Ok(Self {
            channel,
            socket,
            server: None,
            timeout: global.timeout,
        })
    }

    /// As [`Self::connect`].
    async fn connect_remote(remote: Remote, timeout: Duration) -> Result<Self, CliError> {
        let place = PathBuf::from(remote.server());
        let unreachable = |source| CliError::Remote {
            server: remote.server().to_owned(),
            source,
        };
        let no_answer = || CliError::NoAnswer {
            socket: place.clone(),
            after: timeout,
        };
        let stream = tokio::time::timeout(timeout, remote.connect())
            .await
            .map_err(|_| no_answer())?
            .map_err(unreachable)?;
        let first = Arc::new(Mutex::new(Some(stream)));
        let again = remote.clone();
        let connector = service_fn(move |_| {
            let first = first.lock().unwrap_or_else(PoisonError::into_inner).take();
            let again = again.clone();
            async move {
                let stream = match first {
                    Some(stream) => stream,
                    None => again.connect().await?,
                };
                Ok::<_, io::Error>(TokioIo::new(stream))
            }
        });
        let endpoint = Endpoint::from_static("http://sabotd");
        let channel = tokio::time::timeout(timeout, endpoint.connect_with_connector(connector))
            .await
            .map_err(|_| no_answer())?
            .map_err(|e| unreachable(io::Error::other(e)))?;
        Ok(Self {
            channel,
            socket: place,
            server: Some(remote.server().to_owned()),
            timeout,
        })
    }

    pub(crate) fn faults(&self) -> FaultServiceClient<Channel> {
        FaultServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub(crate) fn node(&self) -> NodeServiceClient<Channel> {
        NodeServiceClient::new(self.channel.clone())
    }

    pub(crate) fn observe(&self) -> ObserveServiceClient<Channel> {
        ObserveServiceClient::new(self.channel.clone())
    }

    /// The answer to a call, within the timeout. `what` is being done: `applying team-a/cut`.
    pub(crate) async fn answer<T>(
        &self,
        what: impl Into<String>,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, CliError> {
        self.answer_within(what, self.timeout, call).await
    }

    /// The same for a call that the daemon itself may take `extra` for.
    pub(crate) async fn slow_answer<T>(
        &self,
        what: impl Into<String>,
        extra: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, CliError> {
        self.answer_within(what, self.timeout.saturating_add(extra), call)
            .await
    }

    /// A server says no to a certificate only after the client's side of the handshake is over: what looks like a failed
    /// call is a connection that was never let in.
    fn failed(&self, what: impl Into<String>, status: Status) -> CliError {
        match (&self.server, status.source()) {
            (Some(server), Some(error)) => CliError::Remote {
                server: server.clone(),
                source: io::Error::other(root(error)),
            },
            _ => CliError::status(what, status),
        }
    }

    async fn answer_within<T>(
        &self,
        what: impl Into<String>,
        timeout: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, CliError> {
        match tokio::time::timeout(timeout, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.failed(what, status)),
            Err(_) => Err(CliError::NoAnswer {
                socket: self.socket.clone(),
                after: timeout,
            }),
        }
    }
}

/// What was at the beginning of it, for people.
fn root(error: &dyn Error) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}

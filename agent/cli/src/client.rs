//! The connection to sabotd.

use std::error::Error;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use sabot_proto::MAX_MESSAGE_BYTES;
use sabot_proto::sabot::v1::fault_service_client::FaultServiceClient;
use sabot_proto::sabot::v1::node_service_client::NodeServiceClient;
use sabot_proto::sabot::v1::observe_service_client::ObserveServiceClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};
use tower::service_fn;

use crate::args::Global;
use crate::cluster::{Ending, ExecStream};
use crate::error::CliError;
use crate::remote::Remote;

const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// For what a process says last to arrive, after the connection through it has ended.
const AFTERWORD: Duration = Duration::from_secs(1);

pub(crate) struct Client {
    channel: Channel,
    /// As messages name it: the socket's path, the address, or the pod.
    place: String,
    /// Of a daemon of another machine.
    server: Option<String>,
    timeout: Duration,
    /// Why the way there ended, where it is a process that can say so.
    ending: Option<Ending>,
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
            place: socket.display().to_string(),
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
            place: socket.display().to_string(),
            server: None,
            timeout: global.timeout,
            ending: None,
        })
    }

    /// Over a command in the daemon's pod, which can't be opened a second time.
    pub(crate) async fn over(
        stream: ExecStream,
        ending: Ending,
        place: String,
        timeout: Duration,
    ) -> Result<Self, CliError> {
        let stream = Arc::new(Mutex::new(Some(stream)));
        let connector = service_fn(move |_| {
            let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
            let ended = || io::Error::new(io::ErrorKind::NotConnected, "the connection has ended");
            async move { stream.map(TokioIo::new).ok_or_else(ended) }
        });
        let endpoint = Endpoint::from_static("http://sabotd")
            // Proxies and load balancers on the way forget connections on which nothing is said.
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let channel = match endpoint.connect_with_connector(connector).await {
            Ok(channel) => channel,
            Err(error) => {
                let why = ending.reason(AFTERWORD).await;
                let why = why.unwrap_or_else(|| root(&error));
                return Err(CliError::Pod { place, why });
            }
        };
        Ok(Self {
            channel,
            place,
            server: None,
            timeout,
            ending: Some(ending),
        })
    }

    /// As [`Self::connect`].
    async fn connect_remote(remote: Remote, timeout: Duration) -> Result<Self, CliError> {
        let place = remote.server().to_owned();
        let unreachable = |source| CliError::Remote {
            server: place.clone(),
            source,
        };
        let no_answer = || CliError::NoAnswer {
            place: place.clone(),
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
            server: Some(place.clone()),
            place,
            timeout,
            ending: None,
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

    async fn answer_within<T>(
        &self,
        what: impl Into<String>,
        timeout: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, CliError> {
        match tokio::time::timeout(timeout, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.failure(what.into(), status).await),
            Err(_) => Err(CliError::NoAnswer {
                place: self.place.clone(),
                after: timeout,
            }),
        }
    }

    /// What a call ended with: where the way to the daemon has ended, that is why.
    ///
    /// A server says no to a certificate only after the client's side of the handshake is over: what looks like a failed
    /// call is a connection that was never let in.
    pub(crate) async fn failure(&self, what: String, status: Status) -> CliError {
        if let (Some(server), Some(error)) = (&self.server, status.source()) {
            return CliError::Remote {
                server: server.clone(),
                source: io::Error::other(root(error)),
            };
        }
        let broken = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Internal);
        let ending = self.ending.as_ref().filter(|_| broken);
        let why = match ending {
            Some(ending) => ending.reason(AFTERWORD).await,
            None => None,
        };
        match why {
            Some(why) => CliError::Pod {
                place: self.place.clone(),
                why,
            },
            None => CliError::status(what, status),
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

//! Where the container runtime listens, and the connection to it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use sabot_proto::runtime::v1::runtime_service_client::RuntimeServiceClient;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

/// Looked at in this order where no endpoint is given.
pub const DEFAULT_SOCKETS: [&str; 5] = [
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/var/run/containerd/containerd.sock",
    "/var/run/crio/crio.sock",
    "/run/k3s/containerd/containerd.sock",
];

/// As much as the kubelet allows: a list of many pods with large annotations passes tonic's default of 4 MiB.
const MAX_MESSAGE: usize = 16 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The value of `--runtime-endpoint`: `auto`, `none`, `unix:///path` or a plain path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RuntimeEndpoint {
    /// The first of [`DEFAULT_SOCKETS`] that exists.
    #[default]
    Auto,
    /// No pods.
    Disabled,
    Socket(PathBuf),
}

#[derive(Debug, thiserror::Error)]
#[error(
    "`{given}` is not a runtime endpoint: `auto`, `none`, `unix:///absolute/path` and `/absolute/path` are"
)]
pub struct EndpointError {
    given: String,
}

impl FromStr for RuntimeEndpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::Disabled),
            _ => {
                let path = text.strip_prefix("unix://").unwrap_or(text);
                if path.starts_with('/') {
                    Ok(Self::Socket(path.into()))
                } else {
                    Err(EndpointError { given: text.into() })
                }
            }
        }
    }
}

impl fmt::Display for RuntimeEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Disabled => f.write_str("none"),
            Self::Socket(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl RuntimeEndpoint {
    /// The socket to connect to now, or why there is none.
    ///
    /// # Errors
    ///
    /// The reason, in words.
    pub fn locate(&self) -> Result<PathBuf, String> {
        match self {
            Self::Disabled => Err("no pods: the runtime endpoint is `none`".into()),
            Self::Socket(path) if path.exists() => Ok(path.clone()),
            Self::Socket(path) => Err(format!("the CRI socket {} does not exist", path.display())),
            Self::Auto => DEFAULT_SOCKETS
                .iter()
                .map(PathBuf::from)
                .find(|path| path.exists())
                .ok_or_else(|| format!("no CRI socket found; looked at {}", DEFAULT_SOCKETS.join(", "))),
        }
    }
}

pub(super) type Client = RuntimeServiceClient<Channel>;

/// One connection, used until it breaks: its end ends the session, so that a restarted runtime is never mistaken for
/// the one before it.
pub(super) async fn connect(path: &Path) -> Result<Client, String> {
    let failed = |e: &dyn fmt::Display| format!("cannot connect to the CRI socket {}: {e}", path.display());
    let stream = timeout(CONNECT_TIMEOUT, UnixStream::connect(path))
        .await
        .map_err(|e| failed(&e))?
        .map_err(|e| failed(&e))?;
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_| {
        let stream = stream.take();
        async { stream.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionReset)) }
    });
    // The authority is not used, but has to be one that a Go server accepts.
    let channel = Endpoint::from_static("http://localhost")
        .connect_timeout(CONNECT_TIMEOUT)
        .connect_with_connector(connector)
        .await
        .map_err(|e| failed(&e))?;
    Ok(RuntimeServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_read_as_they_are_written() {
        for (text, endpoint) in [
            ("auto", RuntimeEndpoint::Auto),
            ("none", RuntimeEndpoint::Disabled),
            (
                "unix:///run/x.sock",
                RuntimeEndpoint::Socket("/run/x.sock".into()),
            ),
            ("/run/x.sock", RuntimeEndpoint::Socket("/run/x.sock".into())),
        ] {
            let parsed: RuntimeEndpoint = text.parse().unwrap();
            assert_eq!(parsed, endpoint);
            assert_eq!(parsed.to_string().parse::<RuntimeEndpoint>().unwrap(), endpoint);
        }
    }

    #[test]
    fn other_schemes_and_relative_paths_are_refused() {
        for text in ["", "x.sock", "unix://x.sock", "tcp://127.0.0.1:1", "http://x"] {
            let error = text.parse::<RuntimeEndpoint>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }
}

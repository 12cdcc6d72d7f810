//! The way to a daemon through its pod: a command there, whose input and output are the connection.

use std::io::{self, Cursor};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, Chain, ReadBuf, ReadHalf, SimplexStream, WriteHalf,
};
use tokio::task::JoinHandle;

use super::daemons::Daemon;

/// What the daemon's container runs for us.
const BRIDGE: [&str; 2] = ["sabotd", "bridge"];
/// Bytes under way in each direction: several of HTTP/2's frames.
const BUFFER: usize = 64 << 10;
/// Of what the command says first, and of what it says on its standard error, for a message.
const MOST_SAID: usize = 4096;
/// For what was on its way when the command ended.
const REST: Duration = Duration::from_millis(100);
/// How long the daemon may be silent at first, which speaks as soon as the bridge has reached it: its settings of HTTP/2.
const SILENCE: Duration = Duration::from_secs(2);

type End = Shared<BoxFuture<'static, Option<Status>>>;

/// The command's standard output to read from, and its standard input to write to.
pub(crate) struct ExecStream {
    output: Chain<Cursor<Vec<u8>>, ReadHalf<SimplexStream>>,
    input: WriteHalf<SimplexStream>,
    /// Absent once it has come.
    end: Option<End>,
}

/// Says why the command ended, once. The connection to the API server goes with it, and not with the stream: whoever writes to a
/// command that has ended lets go of the stream before the reason has come.
pub(crate) struct Ending {
    told: Mutex<Option<JoinHandle<Option<String>>>>,
    _process: AttachedProcess,
}

/// Runs the bridge in a daemon's pod, and waits until the daemon has said something there, or the command has ended: what is
/// written to a command that can't run ends the connection to the API server before the reason has been read from it.
///
/// # Errors
/// The API server's: not reachable, not allowed, no such pod.
pub(super) async fn open(pods: &Api<Pod>, daemon: &Daemon) -> Result<(ExecStream, Ending), kube::Error> {
    let mut params = AttachParams::default()
        .stdin(true)
        .stdout(true)
        .stderr(true)
        .max_stdin_buf_size(BUFFER)
        .max_stdout_buf_size(BUFFER)
        .max_stderr_buf_size(MOST_SAID);
    params.container.clone_from(&daemon.container);
    let mut process = pods.exec(&daemon.pod, BRIDGE, &params).await?;
    let status = process.take_status();
    let end = async move {
        match status {
            Some(status) => status.await,
            None => None,
        }
    };
    let end = end.boxed().shared();
    let (Some(mut output), Some(input)) = (process.stdout(), process.stdin()) else {
        // Both were asked for; a process without them couldn't be spoken with.
        return Err(kube::Error::ReadEvents(io::ErrorKind::NotConnected.into()));
    };
    let ending = Ending::of(process, end.clone());
    let said = first(&mut output, end.clone()).await;
    let stream = ExecStream {
        output: Cursor::new(said).chain(output),
        input,
        end: Some(end),
    };
    Ok((stream, ending))
}

impl Ending {
    fn of(mut process: AttachedProcess, end: End) -> Self {
        let stderr = process.stderr();
        let told = tokio::spawn(async move {
            let said = match stderr {
                Some(stderr) => collect(stderr, end.clone()).await,
                None => String::new(),
            };
            let status = end.await;
            if !said.is_empty() {
                return Some(said);
            }
            let failure = status.filter(|status| status.status.as_deref() == Some("Failure"));
            failure.and_then(|status| status.message)
        });
        Self {
            told: Mutex::new(Some(told)),
            _process: process,
        }
    }

    /// `None`: it hasn't ended within this time, has said nothing, or was asked before.
    pub(crate) async fn reason(&self, within: Duration) -> Option<String> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        match tokio::time::timeout(within, &mut told).await {
            Ok(said) => said.ok().flatten(),
            Err(_) => {
                told.abort();
                None
            }
        }
    }
}

/// What the command's output begins with; empty: it has ended, or was silent for too long.
async fn first(output: &mut ReadHalf<SimplexStream>, end: End) -> Vec<u8> {
    let mut said = Vec::with_capacity(MOST_SAID);
    tokio::select! {
        biased;
        _ = output.read_buf(&mut said) => {}
        _ = end => {}
        () = tokio::time::sleep(SILENCE) => {}
    }
    said
}

/// What the command says until it ends.
async fn collect(mut stderr: ReadHalf<SimplexStream>, end: End) -> String {
    let mut said = Vec::new();
    let mut buffer = [0; 512];
    let ended = async {
        end.await;
        tokio::time::sleep(REST).await;
    };
    tokio::pin!(ended);
    loop {
        tokio::select! {
            read = stderr.read(&mut buffer) => match read {
                Ok(0) | Err(_) => break,
                Ok(length) => {
                    let room = MOST_SAID.saturating_sub(said.len());
                    said.extend_from_slice(&buffer[..length.min(room)]);
                }
            },
            () = &mut ended => break,
        }
    }
    String::from_utf8_lossy(&said).trim().to_owned()
}

impl AsyncRead for ExecStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.output).poll_read(context, buffer) {
            return Poll::Ready(read);
        }
        // A connection that breaks leaves the stream open; all that came before is in it then.
        if let Some(end) = self.end.as_mut() {
            std::task::ready!(end.poll_unpin(context));
            self.end = None;
        }
        match Pin::new(&mut self.output).poll_read(context, buffer) {
            Poll::Pending => Poll::Ready(Ok(())),
            read => read,
        }
    }
}

impl AsyncWrite for ExecStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.input).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_shutdown(context)
    }
}

//! A process behind a WebSocket: each message begins with the number of its stream.

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::{ExecPod, Running, Shared};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
/// Says that the stream whose number follows has ended.
const CLOSE: u8 = 255;

type Socket = WebSocketStream<TcpStream>;

/// Runs a command until it ends, or until its client goes.
pub(super) async fn run(socket: Socket, pod: &ExecPod, command: &[String], shared: &Arc<Shared>) {
    let (sink, stream) = socket.split();
    let (messages, outgoing) = mpsc::channel(16);
    let writer = tokio::spawn(write(sink, outgoing));
    let status = match spawn(pod, command) {
        Ok(child) => {
            let _running = Running::new(shared);
            attend(child, stream, &messages).await
        }
        Err(message) => Some(json!({"status": "Failure", "reason": "InternalError", "message": message})),
    };
    if let Some(status) = status {
        // The client may be gone.
        let _ = messages
            .send(message(STATUS, status.to_string().as_bytes()))
            .await;
    }
    drop(messages);
    let _ = writer.await;
}

fn spawn(pod: &ExecPod, command: &[String]) -> Result<Child, String> {
    let (name, arguments) = command.split_first().ok_or("no command is given")?;
    let program = pod
        .programs
        .get(name)
        .ok_or_else(|| format!("exec: \"{name}\": executable file not found in $PATH: unknown"))?;
    Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(&pod.environment)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| error.to_string())
}

/// What it ended with; `None` where the client has gone.
async fn attend(
    mut child: Child,
    stream: SplitStream<Socket>,
    messages: &mpsc::Sender<Message>,
) -> Option<serde_json::Value> {
    let stdin = child.stdin.take()?;
    let stdout = copy(child.stdout.take()?, STDOUT, messages.clone());
    let stderr = copy(child.stderr.take()?, STDERR, messages.clone());
    let outputs = async {
        tokio::join!(stdout, stderr);
        child.wait().await
    };
    tokio::pin!(outputs);
    // The input's end is the client's affair: a command may go on without any.
    let input = feed(stream, stdin);
    tokio::pin!(input);
    let status = tokio::select! {
        status = &mut outputs => status,
        is_gone = &mut input => {
            if is_gone {
                return None;
            }
            outputs.await
        }
    };
    status.ok().map(ended)
}

fn ended(status: ExitStatus) -> serde_json::Value {
    match status.code() {
        Some(0) => json!({"status": "Success"}),
        code => {
            let code = code.unwrap_or(-1);
            json!({
                "status": "Failure",
                "reason": "NonZeroExitCode",
                "message": format!("command terminated with non-zero exit code: exit status {code}"),
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            })
        }
    }
}

/// Everything that is sent to the standard input. Whether the client has gone.
async fn feed(mut stream: SplitStream<Socket>, stdin: ChildStdin) -> bool {
    let mut stdin = Some(stdin);
    while let Some(Ok(message)) = stream.next().await {
        let Message::Binary(bytes) = message else {
            continue;
        };
        match bytes.split_first() {
            Some((&STDIN, data)) => {
                if let Some(open) = stdin.as_mut()
                    && open.write_all(data).await.is_err()
                {
                    stdin = None;
                }
            }
            Some((&CLOSE, [STDIN])) => stdin = None,
            _ => {}
        }
    }
    true
}

async fn copy(mut from: impl AsyncRead + Unpin, channel: u8, to: mpsc::Sender<Message>) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(length) = from.read(&mut buffer).await {
        if length == 0 || to.send(message(channel, &buffer[..length])).await.is_err() {
            break;
        }
    }
}

fn message(channel: u8, data: &[u8]) -> Message {
    let mut bytes = Vec::with_capacity(1 + data.len());
    bytes.push(channel);
    bytes.extend_from_slice(data);
    Message::binary(bytes)
}

async fn write(mut sink: SplitSink<Socket, Message>, mut messages: mpsc::Receiver<Message>) {
    while let Some(message) = messages.recv().await {
        if sink.send(message).await.is_err() {
            return;
        }
    }
    // The client may be gone.
    let _ = sink.close().await;
}

//! The HTTP endpoint: whatever comes in, what goes out is whole answers that it may give, and the next one is served.

use std::future::pending;
use std::io;
use std::sync::LazyLock;
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::yield_now;
use tokio::time::timeout;

const BUFFER: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(20);
/// Of other tasks, in which everything that was asked is answered.
const TURNS: usize = 256;
/// HTTP/2 begins so, and a server's part of it with a frame of this kind.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: u8 = 4;
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Connections that never were on a network.
struct Connections(UnboundedReceiver<DuplexStream>);

impl Listener for Connections {
    type Io = DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (DuplexStream, ()) {
        match self.0.recv().await {
            Some(connection) => (connection, ()),
            None => pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The endpoint, which serves all inputs.
static ENDPOINT: LazyLock<(Runtime, UnboundedSender<DuplexStream>)> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    let (connect, connections) = unbounded_channel();
    let state = sabotd::fuzzing::http();
    runtime.spawn(sabotd::metrics::serve(Connections(connections), state, pending()));
    (runtime, connect)
});

/// # Panics
///
/// What is answered isn't one or several whole answers that fit, or the next client isn't served.
pub fn check(bytes: &[u8]) {
    let (runtime, connect) = &*ENDPOINT;
    runtime.block_on(async {
        let said = talk(connect, bytes).await;
        if bytes.starts_with(PREFACE) {
            return assert_eq!(said.get(3), Some(&SETTINGS), "no HTTP/2: {said:?}");
        }
        let text = String::from_utf8_lossy(bytes);
        let has_head = text.contains("HEAD");
        let mut rest = said.as_slice();
        while !rest.is_empty() {
            let (mut answer, after) = Answer::read(rest).unwrap_or_else(|| panic!("no HTTP: {rest:?}"));
            if has_head && answer.body.starts_with("HTTP/1") {
                // It is the next answer.
                answer.body = "";
            }
            answer.check(&text.to_ascii_lowercase());
            // What the answer to a HEAD would have been isn't there.
            rest = if has_head { &[] } else { after };
        }
        if bytes.len().is_multiple_of(16) {
            let alive = talk(
                connect,
                b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
            )
            .await;
            let (alive, _) = Answer::read(&alive).expect("an answer");
            assert_eq!((alive.status, alive.body), (200, "alive\n"));
        }
    });
}

/// What is answered to these bytes, after which nothing more is said.
async fn talk(connect: &UnboundedSender<DuplexStream>, bytes: &[u8]) -> Vec<u8> {
    let (mut client, server) = duplex(BUFFER);
    connect.send(server).expect("the endpoint is there");
    let ask = async {
        let mut answer = Vec::new();
        // The server may have had enough.
        if client.write_all(bytes).await.is_ok() {
            // A client that goes too soon isn't answered.
            for _ in 0..TURNS {
                yield_now().await;
            }
            let _ = client.shutdown().await;
        }
        let _ = client.read_to_end(&mut answer).await;
        answer
    };
    timeout(PATIENCE, ask)
        .await
        .expect("a connection comes to its end")
}

struct Answer<'a> {
    status: u16,
    media: &'a str,
    body: &'a str,
}

impl<'a> Answer<'a> {
    /// The first answer, and what follows it. `None` where this isn't one, or isn't whole.
    fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let mut lines = std::str::from_utf8(&bytes[..end]).ok()?.split("\r\n");
        let (version, status) = lines.next()?.split_once(' ')?;
        let status = status.get(..3)?.parse().ok()?;
        let mut answer = Self {
            status,
            media: "",
            body: "",
        };
        let mut length = None;
        for line in lines {
            let (name, value) = line.split_once(": ")?;
            match name {
                "content-type" => answer.media = value,
                "content-length" => length = Some(value.parse::<usize>().ok()?),
                _ => {}
            }
        }
        let rest = &bytes[end + 4..];
        // To go on, and what a HEAD asks for, have no length where they would have no body.
        let length = length.unwrap_or(0);
        let (body, rest) = rest.split_at(length.min(rest.len()));
        answer.body = std::str::from_utf8(body).ok()?;
        let is_http = matches!(version, "HTTP/1.1" | "HTTP/1.0");
        is_http.then_some((answer, rest))
    }

    /// `asked`: all that was said, in lower case.
    fn check(&self, asked: &str) {
        match self.status {
            200 if self.media == TEXT || self.media == OPEN_METRICS => self.check_metrics(asked),
            200 => assert!(asked.contains("/healthz") && matches!(self.body, "alive\n" | "")),
            503 => {
                assert!(asked.contains("/readyz"));
                assert!(matches!(self.body, "not ready\nengine: there is none\n" | ""));
            }
            // Not HTTP, no such path, no such method, too long a path or too long headers; go on.
            400 | 404 | 405 | 414 | 431 | 100 => assert_eq!(self.body, ""),
            status => panic!("{status} to {asked:?}"),
        }
    }

    fn check_metrics(&self, asked: &str) {
        assert!(asked.contains("/metrics"));
        let is_open = self.media == OPEN_METRICS;
        assert!(
            !is_open || asked.contains("application/openmetrics-text"),
            "{asked:?}"
        );
        if self.body.is_empty() {
            return assert!(asked.contains("head"));
        }
        assert_eq!(is_open, self.body.ends_with("# EOF\n"));
        for line in self.body.lines().filter(|line| !line.starts_with("# ")) {
            let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
            assert!(
                series.starts_with("sabot_") && value.parse::<f64>().is_ok(),
                "{line}"
            );
        }
    }
}

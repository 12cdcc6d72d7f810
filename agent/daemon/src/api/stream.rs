//! Server streams that end when their reader goes or when the daemon stops.

use std::future::Future;

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Messages between a stream's producer and the transport. A reader that stops reading soon stops the producer.
const BUFFER: usize = 32;

/// Nobody needs the stream any more: its reader is gone, or the daemon stops.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended;

/// Tells every stream that the daemon stops.
#[derive(Debug)]
pub(super) struct Stop(watch::Sender<bool>);

#[derive(Clone, Debug)]
pub(super) struct Stopped(watch::Receiver<bool>);

impl Stop {
    pub(super) fn new() -> (Self, Stopped) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), Stopped(receiver))
    }

    pub(super) fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stopped {
    /// Returns once the daemon stops; the sender's end without a word means the same.
    pub(super) async fn wait(&mut self) {
        let _ = self.0.wait_for(|stopped| *stopped).await;
    }
}

/// The producer's end of a stream.
#[derive(Debug)]
pub(super) struct Sink<T> {
    messages: mpsc::Sender<Result<T, Status>>,
    stopped: Stopped,
}

impl<T> Sink<T> {
    /// Waits for the reader to make room.
    pub(super) async fn send(&mut self, message: T) -> Result<(), Ended> {
        tokio::select! {
            biased;
            () = self.stopped.wait() => Err(Ended),
            sent = self.messages.send(Ok(message)) => sent.map_err(|_| Ended),
        }
    }

    /// Ends the stream with an error.
    pub(super) async fn fail(&mut self, status: Status) -> Ended {
        tokio::select! {
            () = self.stopped.wait() => {}
            _ = self.messages.send(Err(status)) => {}
        }
        Ended
    }

    /// What `future` gives, unless the stream ends before.
    pub(super) async fn or_ended<F: Future>(&mut self, future: F) -> Result<F::Output, Ended> {
        tokio::select! {
            biased;
            () = self.stopped.wait() => Err(Ended),
            () = self.messages.closed() => Err(Ended),
            output = future => Ok(output),
        }
    }
}

/// A stream of what `produce` sends, in a task of its own.
pub(super) fn produce<T, F, R>(stopped: Stopped, produce: F) -> ReceiverStream<Result<T, Status>>
where
    T: Send + 'static,
    F: FnOnce(Sink<T>) -> R,
    R: Future<Output = Ended> + Send + 'static,
{
    let (messages, receiver) = mpsc::channel(BUFFER);
    let producer = produce(Sink { messages, stopped });
    tokio::spawn(producer);
    ReceiverStream::new(receiver)
}

//! Open watches: what each of them sees, and what a test does to them.

use std::collections::{BTreeSet, VecDeque};
use std::io;

use axum::body::Bytes;
use futures::Stream;
use futures::stream::unfold;
use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, timeout_at};

use super::resources::Resource;
use super::store::{Change, Scope};

/// Events that each watch can be sent again.
const REMEMBERED: usize = 16;

/// What is written on a watch's connection.
#[derive(Clone, Debug)]
enum Frame {
    Event(Bytes),
    /// The connection breaks.
    Break,
}

/// In which order events that were held are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    AsWritten,
    Reversed,
}

#[derive(Debug)]
struct Watch {
    resource: &'static Resource,
    scope: Scope,
    wants_bookmarks: bool,
    sender: UnboundedSender<Frame>,
    held: Vec<Bytes>,
    last: VecDeque<Bytes>,
}

impl Watch {
    fn send(&mut self, event: Bytes) {
        self.last.push_back(event.clone());
        if self.last.len() > REMEMBERED {
            self.last.pop_front();
        }
        // Its client may be gone.
        let _ = self.sender.send(Frame::Event(event));
    }
}

#[derive(Debug, Default)]
pub(super) struct Watches {
    open: Vec<Watch>,
    /// Resources whose events wait.
    held: BTreeSet<&'static str>,
}

impl Watches {
    /// Opens one that has seen everything that is in the store, but for these events.
    pub(super) fn open(
        &mut self,
        resource: &'static Resource,
        scope: Scope,
        wants_bookmarks: bool,
        missed: Vec<Bytes>,
        until: Instant,
    ) -> impl Stream<Item = io::Result<Bytes>> + use<> {
        self.open.retain(|watch| !watch.sender.is_closed());
        let (sender, receiver) = unbounded_channel();
        let mut watch = Watch {
            resource,
            scope,
            wants_bookmarks,
            sender,
            held: Vec::new(),
            last: VecDeque::new(),
        };
        missed.into_iter().for_each(|event| watch.send(event));
        self.open.push(watch);
        body(receiver, until)
    }

    /// Those whose clients still listen.
    pub(super) fn count(&self, plural: &str) -> usize {
        let mut open = self.open.iter().filter(|watch| !watch.sender.is_closed());
        open.by_ref()
            .filter(|watch| watch.resource.plural == plural)
            .count()
    }

    pub(super) fn tell(&mut self, change: &Change) {
        for watch in &mut self.open {
            let Some((kind, json)) = watch.scope.sees(change) else {
                continue;
            };
            let event = event(kind, &json);
            if self.held.contains(watch.resource.plural) {
                watch.held.push(event);
            } else {
                watch.send(event);
            }
        }
    }

    fn of<'a>(&'a mut self, plural: &'a str) -> impl Iterator<Item = &'a mut Watch> {
        self.open
            .iter_mut()
            .filter(move |watch| watch.resource.plural == plural)
    }

    pub(super) fn hold(&mut self, plural: &'static str) {
        self.held.insert(plural);
    }

    pub(super) fn release(&mut self, plural: &'static str, order: Order) {
        self.held.remove(plural);
        for watch in self.of(plural) {
            let mut held = std::mem::take(&mut watch.held);
            if order == Order::Reversed {
                held.reverse();
            }
            held.into_iter().for_each(|event| watch.send(event));
        }
    }

    pub(super) fn repeat(&mut self, plural: &str) {
        for watch in self.of(plural) {
            for event in watch.last.clone() {
                watch.send(event);
            }
        }
    }

    pub(super) fn bookmark(&mut self, plural: &str, version: u64) {
        for watch in self.of(plural).filter(|watch| watch.wants_bookmarks) {
            let object = json!({
                "apiVersion": watch.resource.api_version(),
                "kind": watch.resource.kind,
                "metadata": {"resourceVersion": version.to_string()},
            });
            let _ = watch
                .sender
                .send(Frame::Event(event("BOOKMARK", object.to_string().as_bytes())));
        }
    }

    /// Ends them as a server does whose time for them is over.
    pub(super) fn end(&mut self, plural: &str) {
        self.open.retain(|watch| watch.resource.plural != plural);
    }

    /// Breaks their connections in the middle of an event.
    pub(super) fn cut(&mut self, plural: &str) {
        for watch in self.of(plural) {
            let _ = watch
                .sender
                .send(Frame::Event(Bytes::from_static(b"{\"type\":\"MODIFIED\",\"obj")));
            let _ = watch.sender.send(Frame::Break);
        }
        self.end(plural);
    }

    /// Tells them that the server has forgotten what they have seen, and ends them.
    pub(super) fn expire(&mut self, plural: &str) {
        let status = super::serve::status(410, "Expired", "too old resource version");
        let event = event("ERROR", status.to_string().as_bytes());
        for watch in self.of(plural) {
            let _ = watch.sender.send(Frame::Event(event.clone()));
        }
        self.end(plural);
    }
}

/// One line of a watch's answer.
pub(super) fn event(kind: &str, json: &[u8]) -> Bytes {
    let mut line = format!("{{\"type\":\"{kind}\",\"object\":").into_bytes();
    line.extend_from_slice(json);
    line.extend_from_slice(b"}\n");
    line.into()
}

fn body(frames: UnboundedReceiver<Frame>, until: Instant) -> impl Stream<Item = io::Result<Bytes>> {
    unfold(Some(frames), move |frames| async move {
        let mut frames = frames?;
        match timeout_at(until, frames.recv()).await {
            Ok(Some(Frame::Event(line))) => Some((Ok(line), Some(frames))),
            Ok(Some(Frame::Break)) => Some((Err(io::Error::other("cut")), None)),
            Ok(None) | Err(_) => None,
        }
    })
}

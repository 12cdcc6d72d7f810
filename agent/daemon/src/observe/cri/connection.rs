//! One connection: its two directions, and the calls on it.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::Arc;

use super::hpack::{Decoder, Field};
use super::http2::{CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, HEADERS, Heard, RST_STREAM, Reader};
use super::message::Message;
use super::names::{Names, Unseen};
use super::operations::{Method, UNKNOWN};
use super::shape::by_shape;
use super::status::{CANCELLED, DISCONNECTED, LOST, RESET, UNREAD, outcome};

/// Bytes of a request and of an answer that are kept: enough for the names and ids at their beginning.
const KEPT: usize = 4096;
/// Bytes of a header block.
const LONGEST_BLOCK: usize = 64 * 1024;
/// Calls on one connection at one time; a server allows some hundred.
const MOST_CALLS: usize = 4096;
/// Calls that are remembered after their end, so that what is still sent for them isn't taken for a new one.
const REMEMBERED: usize = 256;
/// For this long after an answer a request may come late: another CPU recorded it.
const LATE_NS: u64 = 1_000_000_000;

/// Who sent something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sender {
    /// 0: in another pid namespace.
    pub(super) pid: u32,
    pub(super) process: Arc<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Request,
    Answer,
}

/// Some of what one of the two sends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said<'a> {
    pub(super) way: Way,
    pub(super) sender: &'a Sender,
    /// When it was sent, `CLOCK_BOOTTIME` in ns.
    pub(super) time: u64,
    pub(super) bytes: &'a [u8],
    /// A send begins with it.
    pub(super) is_start: bool,
    /// Bytes of the same send that come after these; those of its last piece weren't copied.
    pub(super) rest: usize,
}

/// A call that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) operation: &'static str,
    /// Its request was sent at, `CLOCK_BOOTTIME` in ns, and never after `end`; `None`: before anyone listened.
    pub(super) start: Option<u64>,
    pub(super) end: u64,
    pub(super) outcome: &'static str,
    /// The runtime's words on a failure.
    pub(super) message: String,
    pub(super) client: Sender,
    /// The beginnings of the gRPC messages.
    pub(super) request: Vec<u8>,
    pub(super) answer: Vec<u8>,
}

/// What came of some bytes.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) ended: Vec<Ended>,
    /// How often the thread was lost.
    pub(super) out_of_sync: u64,
}

pub(super) struct Connection {
    requests: Direction,
    answers: Direction,
    calls: BTreeMap<u32, Call>,
    remembered: VecDeque<u32>,
    names: Names,
    /// When something was last heard.
    pub(super) heard: u64,
    /// Who was last heard at the client's end.
    pub(super) client: Sender,
}

struct Direction {
    reader: Reader,
    hpack: Decoder,
    /// Headers of which a part is still to come.
    block: Option<Block>,
    /// What was heard last makes no sense.
    is_astray: bool,
    /// Bytes of the last send that weren't heard.
    rest: usize,
}

struct Block {
    stream: u32,
    ends_stream: bool,
    bytes: Vec<u8>,
}

#[derive(Default)]
struct Call {
    request: Option<Request>,
    answer: Vec<u8>,
    end: Option<End>,
}

struct Request {
    start: u64,
    client: Sender,
    /// `None`: its path isn't known.
    method: Option<Method>,
    /// What its path may be then.
    unseen: Option<Unseen>,
    message: Vec<u8>,
    is_whole: bool,
}

struct End {
    time: u64,
    outcome: &'static str,
    message: String,
}

impl Direction {
    fn new() -> Self {
        Self {
            reader: Reader::new(),
            hpack: Decoder::joined(),
            block: None,
            is_astray: false,
            rest: 0,
        }
    }

    fn lose(&mut self) {
        self.reader.lose();
        self.hpack.forget();
        self.block = None;
        self.is_astray = false;
        self.rest = 0;
    }
}

impl Connection {
    pub(super) fn new() -> Self {
        Self {
            requests: Direction::new(),
            answers: Direction::new(),
            calls: BTreeMap::new(),
            remembered: VecDeque::new(),
            names: Names::default(),
            heard: 0,
            client: Sender::default(),
        }
    }

    /// What one of the two said next.
    pub(super) fn hear(&mut self, said: &Said<'_>, news: &mut News) {
        self.heard = said.time;
        let way = said.way;
        let mut reader = mem::replace(&mut self.direction(way).reader, Reader::new());
        let omitted = mem::replace(&mut self.direction(way).rest, said.rest);
        if said.is_start && omitted > 0 {
            reader.skip(omitted, |heard| self.understand(said, heard, news));
        }
        reader.push(said.bytes, said.is_start, |heard| {
            self.understand(said, heard, news);
        });
        let direction = self.direction(way);
        direction.reader = reader;
        if direction.is_astray {
            direction.lose();
            news.out_of_sync += 1;
            if way == Way::Answer {
                self.abandon(LOST, said.time, news);
            }
        }
    }

    /// Something was missed, in either direction.
    pub(super) fn lose(&mut self, time: u64, news: &mut News) {
        self.requests.lose();
        self.answers.lose();
        news.out_of_sync += 1;
        self.abandon(LOST, time, news);
    }

    /// Nothing more will be said.
    pub(super) fn close(&mut self, time: u64, news: &mut News) {
        self.settle(u64::MAX, news);
        self.abandon(DISCONNECTED, time, news);
    }

    /// Ends the calls whose requests don't come any more.
    pub(super) fn settle(&mut self, now: u64, news: &mut News) {
        let is_late = |call: &Call| {
            call.end
                .as_ref()
                .is_some_and(|end| end.time.saturating_add(LATE_NS) <= now)
        };
        let late: Vec<u32> = self
            .calls
            .iter()
            .filter(|(_, call)| is_late(call))
            .map(|(&stream, _)| stream)
            .collect();
        for stream in late {
            self.end(stream, news);
        }
    }

    /// The operations that are under way, as far as their names are known.
    pub(super) fn in_flight(
        &self,
        is_counted: impl Fn(&Sender) -> bool,
    ) -> impl Iterator<Item = &'static str> {
        let requests = self
            .calls
            .values()
            .filter(|call| call.end.is_none())
            .filter_map(|call| call.request.as_ref());
        requests
            .filter(move |request| is_counted(&request.client))
            .filter_map(|request| match request.method {
                Some(Method::Operation(operation)) => Some(operation),
                Some(Method::Foreign) => None,
                None => Some(self.names.get(request.unseen.as_ref()).unwrap_or(UNKNOWN)),
            })
    }

    fn direction(&mut self, way: Way) -> &mut Direction {
        match way {
            Way::Request => &mut self.requests,
            Way::Answer => &mut self.answers,
        }
    }

    fn understand(&mut self, said: &Said<'_>, heard: Heard<'_>, news: &mut News) {
        if self.direction(said.way).is_astray {
            return;
        }
        match heard {
            Heard::Preface => self.begin(said, news),
            Heard::OutOfSync => self.direction(said.way).is_astray = true,
            Heard::Frame(frame) => self.frame(said, frame, news),
        }
    }

    /// What was there before was another connection, whose end nobody saw.
    fn begin(&mut self, said: &Said<'_>, news: &mut News) {
        self.abandon(DISCONNECTED, said.time, news);
        self.remembered.clear();
        self.requests.block = None;
        self.requests.hpack.begin();
        self.answers.hpack.begin();
    }

    fn frame(&mut self, said: &Said<'_>, frame: Frame<'_>, news: &mut News) {
        let ends_stream = frame.flags & END_STREAM != 0;
        match frame.kind {
            HEADERS => {
                self.direction(said.way).block = Some(Block {
                    stream: frame.stream,
                    ends_stream,
                    bytes: Vec::new(),
                });
                self.header_part(said, frame, news);
            }
            CONTINUATION => self.header_part(said, frame, news),
            DATA => self.data(said, frame, ends_stream, news),
            RST_STREAM => self.reset(said, frame.stream, news),
            _ => {}
        }
    }

    fn header_part(&mut self, said: &Said<'_>, frame: Frame<'_>, news: &mut News) {
        let direction = self.direction(said.way);
        let Some(mut block) = direction
            .block
            .take()
            .filter(|block| block.stream == frame.stream)
        else {
            direction.is_astray = true;
            return;
        };
        block.bytes.extend_from_slice(frame.payload);
        if frame.flags & END_HEADERS == 0 && block.bytes.len() <= LONGEST_BLOCK {
            direction.block = Some(block);
            return;
        }
        match direction.hpack.decode(&block.bytes) {
            Ok(fields) => match said.way {
                Way::Request => self.request(said, &block, &fields, news),
                Way::Answer if block.ends_stream => {
                    let has_answer = self
                        .calls
                        .get(&block.stream)
                        .is_some_and(|call| Message::of_grpc(&call.answer).is_some());
                    let (outcome, message) = outcome(&fields, has_answer);
                    self.answered(said, block.stream, outcome, message, news);
                }
                Way::Answer => {}
            },
            Err(error) => {
                tracing::debug!(%error, "headers on the runtime's socket can't be read");
                direction.is_astray = true;
            }
        }
    }

    fn request(&mut self, said: &Said<'_>, block: &Block, fields: &[Field], news: &mut News) {
        if self.remembered.contains(&block.stream) {
            return;
        }
        let Some(call) = self.call(block.stream) else {
            return;
        };
        if call.request.is_none() {
            let method = method(fields);
            call.request = Some(Request {
                start: said.time,
                client: said.sender.clone(),
                method,
                unseen: method.is_none().then(|| Unseen::of(fields)).flatten(),
                message: Vec::new(),
                is_whole: block.ends_stream,
            });
        }
        self.end_if_whole(block.stream, news);
    }

    fn data(&mut self, said: &Said<'_>, frame: Frame<'_>, ends_stream: bool, news: &mut News) {
        let keep = |kept: &mut Vec<u8>| {
            let room = KEPT - kept.len();
            kept.extend_from_slice(&frame.payload[..frame.payload.len().min(room)]);
        };
        match said.way {
            Way::Request => {
                let request = self
                    .calls
                    .get_mut(&frame.stream)
                    .and_then(|call| call.request.as_mut());
                if let Some(request) = request {
                    keep(&mut request.message);
                    request.is_whole |= ends_stream;
                    self.end_if_whole(frame.stream, news);
                }
            }
            Way::Answer if !self.remembered.contains(&frame.stream) => {
                if let Some(call) = self.call(frame.stream) {
                    keep(&mut call.answer);
                    if ends_stream {
                        self.answered(said, frame.stream, UNREAD, String::new(), news);
                    }
                }
            }
            Way::Answer => {}
        }
    }

    fn reset(&mut self, said: &Said<'_>, stream: u32, news: &mut News) {
        match said.way {
            Way::Answer => self.answered(said, stream, RESET, String::new(), news),
            Way::Request => {
                if let Some(call) = self.calls.get_mut(&stream) {
                    // An answer that crossed it came first.
                    call.end.get_or_insert_with(|| End {
                        time: said.time,
                        outcome: CANCELLED,
                        message: String::new(),
                    });
                    self.end(stream, news);
                }
            }
        }
    }

    fn answered(
        &mut self,
        said: &Said<'_>,
        stream: u32,
        outcome: &'static str,
        message: String,
        news: &mut News,
    ) {
        if self.remembered.contains(&stream) {
            return;
        }
        let Some(call) = self.call(stream) else {
            return;
        };
        call.end.get_or_insert(End {
            time: said.time,
            outcome,
            message,
        });
        self.end_if_whole(stream, news);
    }

    /// The call of a stream, known or new; `None` where there are too many.
    fn call(&mut self, stream: u32) -> Option<&mut Call> {
        if self.calls.len() >= MOST_CALLS && !self.calls.contains_key(&stream) {
            return None;
        }
        Some(self.calls.entry(stream).or_default())
    }

    fn end_if_whole(&mut self, stream: u32, news: &mut News) {
        let is_whole = self.calls.get(&stream).is_some_and(|call| {
            call.end.is_some() && call.request.as_ref().is_some_and(|request| request.is_whole)
        });
        if is_whole {
            self.end(stream, news);
        }
    }

    /// Ends every call that hasn't got an end.
    fn abandon(&mut self, outcome: &'static str, time: u64, news: &mut News) {
        let streams: Vec<u32> = self.calls.keys().copied().collect();
        for stream in streams {
            if let Some(call) = self.calls.get_mut(&stream) {
                call.end.get_or_insert(End {
                    time,
                    outcome,
                    message: String::new(),
                });
            }
            self.end(stream, news);
        }
    }

    fn end(&mut self, stream: u32, news: &mut News) {
        let Some(Call {
            request,
            answer,
            end: Some(end),
        }) = self.calls.remove(&stream)
        else {
            return;
        };
        self.remembered.push_back(stream);
        if self.remembered.len() > REMEMBERED {
            self.remembered.pop_front();
        }
        let operation = match request.as_ref().and_then(|request| request.method) {
            Some(Method::Operation(operation)) => operation,
            Some(Method::Foreign) => return,
            None => {
                let asked = request
                    .as_ref()
                    .and_then(|request| Message::of_grpc(&request.message));
                let unseen = request.as_ref().and_then(|request| request.unseen.as_ref());
                let shape = by_shape(asked, Message::of_grpc(&answer));
                self.names.settle(unseen, shape).unwrap_or(UNKNOWN)
            }
        };
        // Of a request that was heard after its answer the moment is that at which it was heard.
        let start = request.as_ref().map(|request| request.start.min(end.time));
        let (client, request) = match request {
            Some(request) => (request.client, request.message),
            None => (self.client.clone(), Vec::new()),
        };
        news.ended.push(Ended {
            operation,
            start,
            end: end.time,
            outcome: end.outcome,
            message: end.message,
            client,
            request,
            answer,
        });
    }
}

/// `None` where the path isn't known.
fn method(fields: &[Field]) -> Option<Method> {
    let path = fields.iter().find(|field| field.is(":path"));
    match path {
        Some(path) => path.text().map(|path| Method::of_path(&path)),
        None if fields.iter().any(|field| field.name.is_none()) => None,
        // A request without a path isn't one of gRPC.
        None => Some(Method::Foreign),
    }
}

#[cfg(test)]
mod tests;

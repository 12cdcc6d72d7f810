//! Frames of HTTP/2 (RFC 9113) in a stream of bytes that arrives in pieces, and of which a part may be missing.
//!
//! A reader that doesn't know where it is looks for a frame where a send begins: senders seldom cut frames there. Every
//! frame's head is checked, so that a reader that went astray notices soon.

/// What a client says first.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEAD: usize = 9;
/// Bytes of a frame that are kept; frames of gRPC have at most 16 KiB unless both sides agree on more.
const KEPT: usize = 64 * 1024;
/// The longest frame that is believed in, and the longest one by which a frame's beginning is found: longer ones need both
/// sides to agree on them, and gRPC's servers don't.
const LONGEST: u32 = 1 << 22;
const LONGEST_FOUND: u32 = 1 << 14;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const WITH_PRIORITY: u8 = 0x20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    length: u32,
    kind: u8,
    flags: u8,
    stream: u32,
}

/// A frame without its padding. Of a very long one the end is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard<'a> {
    /// A connection begins.
    Preface,
    Frame(Frame<'a>),
    /// What follows can't be understood until the next [`Heard::Frame`].
    OutOfSync,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Where frames begin isn't known.
    Searching,
    /// Between frames, or in a head.
    Head,
    /// In a frame of which this many bytes are missing.
    Payload(Head, usize),
}

/// One direction of a connection.
#[derive(Debug)]
pub(super) struct Reader {
    state: State,
    /// Of a head or of a payload.
    kept: Vec<u8>,
}

impl Reader {
    /// Of a connection of which nothing is known.
    pub(super) fn new() -> Self {
        Self {
            state: State::Searching,
            kept: Vec::new(),
        }
    }

    /// Bytes are missing here, nobody knows how many.
    pub(super) fn lose(&mut self) {
        self.state = State::Searching;
        self.kept.clear();
    }

    pub(super) fn is_searching(&self) -> bool {
        self.state == State::Searching
    }

    /// The next bytes; `is_start`: a send begins with them.
    pub(super) fn push(&mut self, bytes: &[u8], is_start: bool, mut hear: impl FnMut(Heard<'_>)) {
        let mut rest = bytes;
        if is_start {
            if let Some(after) = bytes.strip_prefix(PREFACE) {
                self.lose();
                self.state = State::Head;
                hear(Heard::Preface);
                rest = after;
            } else if self.is_searching() && looks_like_frames(bytes) {
                self.state = State::Head;
            }
        }
        while !rest.is_empty() && !self.is_searching() {
            rest = self.step(rest, &mut hear);
        }
    }

    /// This many bytes were sent and not copied.
    pub(super) fn skip(&mut self, count: usize, mut hear: impl FnMut(Heard<'_>)) {
        match self.state {
            State::Searching => {}
            // The content of a long message may be passed over, and nothing else.
            State::Payload(head, missing) if head.kind == DATA && count <= missing => {
                self.state = State::Payload(head, missing - count);
                self.finish(&mut hear);
            }
            State::Head | State::Payload(..) => {
                self.lose();
                hear(Heard::OutOfSync);
            }
        }
    }

    /// Takes some bytes, at least one; returns the rest.
    fn step<'b>(&mut self, bytes: &'b [u8], hear: &mut impl FnMut(Heard<'_>)) -> &'b [u8] {
        match self.state {
            State::Searching => &[],
            State::Head => {
                let (taken, rest) = bytes.split_at(bytes.len().min(HEAD - self.kept.len()));
                self.kept.extend_from_slice(taken);
                if self.kept.len() == HEAD {
                    match head(&self.kept).filter(|head| head.is_plausible()) {
                        Some(head) => self.state = State::Payload(head, head.length as usize),
                        None => {
                            self.state = State::Searching;
                            hear(Heard::OutOfSync);
                        }
                    }
                    self.kept.clear();
                    self.finish(hear);
                }
                rest
            }
            State::Payload(head, missing) => {
                let (taken, rest) = bytes.split_at(bytes.len().min(missing));
                let room = KEPT - self.kept.len();
                self.kept.extend_from_slice(&taken[..taken.len().min(room)]);
                self.state = State::Payload(head, missing - taken.len());
                self.finish(hear);
                rest
            }
        }
    }

    /// Hands on the frame if it is complete.
    fn finish(&mut self, hear: &mut impl FnMut(Heard<'_>)) {
        let State::Payload(head, 0) = self.state else {
            return;
        };
        self.state = State::Head;
        match content(head, &self.kept) {
            Some(payload) => hear(Heard::Frame(Frame {
                kind: head.kind,
                flags: head.flags,
                stream: head.stream,
                payload,
            })),
            None => {
                self.state = State::Searching;
                hear(Heard::OutOfSync);
            }
        }
        self.kept.clear();
    }
}

impl Head {
    /// Whether gRPC could send this.
    fn is_plausible(self) -> bool {
        let (of_stream, of_connection) = (self.stream % 2 == 1, self.stream == 0);
        let flags = |allowed: u8| self.flags & !allowed == 0;
        self.length <= LONGEST
            && match self.kind {
                DATA => of_stream && flags(END_STREAM | PADDED),
                HEADERS => {
                    of_stream && self.length > 0 && flags(END_STREAM | END_HEADERS | PADDED | WITH_PRIORITY)
                }
                PRIORITY => of_stream && self.length == 5,
                RST_STREAM => of_stream && self.length == 4 && flags(0),
                SETTINGS => {
                    of_connection
                        && flags(ACK)
                        && self.length.is_multiple_of(6)
                        && (self.flags == 0 || self.length == 0)
                }
                PING => of_connection && flags(ACK) && self.length == 8,
                GOAWAY => of_connection && flags(0) && self.length >= 8,
                WINDOW_UPDATE => (of_stream || of_connection) && flags(0) && self.length == 4,
                CONTINUATION => of_stream && flags(END_HEADERS),
                _ => false,
            }
    }
}

fn head(bytes: &[u8]) -> Option<Head> {
    let &[l0, l1, l2, kind, flags, s0, s1, s2, s3] = bytes.first_chunk::<HEAD>()?;
    Some(Head {
        length: u32::from_be_bytes([0, l0, l1, l2]),
        kind,
        flags,
        stream: u32::from_be_bytes([s0, s1, s2, s3]),
    })
}

/// Every frame that begins in these bytes is plausible, and there is a whole head at least.
fn looks_like_frames(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    let mut seen = false;
    while let Some(head) = head(rest) {
        if !head.is_plausible() || head.length > LONGEST_FOUND {
            return false;
        }
        seen = true;
        rest = rest.get(HEAD + head.length as usize..).unwrap_or_default();
    }
    seen
}

/// The payload without padding and priority; `None` where it is too short for what its flags say.
fn content(head: Head, payload: &[u8]) -> Option<&[u8]> {
    let mut content = payload;
    if matches!(head.kind, DATA | HEADERS) && head.flags & PADDED != 0 {
        let (&padding, after) = content.split_first()?;
        // The padding of a frame whose end is missing is missing too.
        content = if payload.len() == head.length as usize {
            after.get(..after.len().checked_sub(padding.into())?)?
        } else {
            after
        };
    }
    if head.kind == HEADERS && head.flags & WITH_PRIORITY != 0 {
        content = content.get(5..)?;
    }
    Some(content)
}

#[cfg(test)]
mod tests;

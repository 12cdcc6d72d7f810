//! What is said to a runtime and by it: calls are what their client and their runtime made of them, wherever the kernel cuts
//! what they send.

use std::iter;

use arbitrary::{Arbitrary, Unstructured};
use sabotd::fuzzing::cri_calls::{Heard, Send, listen};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// Bytes of a message that are kept.
const KEPT: usize = 4096;

/// Paths, and what they are called; `None` for what is nobody's business.
const PATHS: [(&str, Option<&str>); 5] = [
    ("/runtime.v1.RuntimeService/RunPodSandbox", Some("RunPodSandbox")),
    ("/runtime.v1.ImageService/PullImage", Some("PullImage")),
    ("/runtime.v1alpha2.RuntimeService/Version", Some("Version")),
    ("/runtime.v1.RuntimeService/Levitate", Some("other")),
    ("/grpc.health.v1.Health/Check", None),
];
const STATUSES: [(&str, &str); 5] = [
    ("0", "OK"),
    ("5", "NotFound"),
    ("13", "Internal"),
    ("14", "Unavailable"),
    ("99", "Unknown"),
];

#[derive(Debug, Arbitrary)]
enum Input {
    Calls(Vec<Call>),
    Bytes {
        /// They are heard from a connection's beginning on.
        has_preface: bool,
        said: Vec<Part>,
    },
}

#[derive(Debug, Arbitrary)]
struct Call {
    path: u8,
    status: u8,
    message: Vec<u8>,
    answer: Vec<u8>,
    has_answer: bool,
    /// Others are asked before it is answered.
    is_late: bool,
    pieces: Vec<u8>,
}

#[derive(Debug, Arbitrary)]
struct Part {
    is_request: bool,
    /// A frame with a right length, which a mutation seldom finds: its kind, its flags and its stream.
    frame: Option<(u8, u8, u8)>,
    bytes: Vec<u8>,
    pieces: Vec<u8>,
}

/// # Panics
///
/// A call isn't told as it was made.
pub fn check(bytes: &[u8]) {
    match Input::arbitrary_take_rest(Unstructured::new(bytes)) {
        Ok(Input::Calls(calls)) => told(calls),
        Ok(Input::Bytes { has_preface, said }) => cut(has_preface, said),
        Err(_) => {}
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("inputs are short");
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Headers as HPACK has them without its table.
fn headers(flags: u8, stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).expect("these are short"));
            block.extend(text.bytes());
        }
    }
    frame(HEADERS, flags | END_HEADERS, stream, &block)
}

fn message(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("inputs are short");
    [&[0], length.to_be_bytes().as_slice(), bytes].concat()
}

fn send(is_request: bool, bytes: Vec<u8>, pieces: &[u8]) -> Send {
    Send {
        is_request,
        bytes,
        pieces: pieces.iter().copied().map(usize::from).collect(),
    }
}

/// Both ends' first words.
fn beginning() -> [Send; 2] {
    let settings = frame(SETTINGS, 0, 0, &[]);
    [
        send(true, [PREFACE, &settings].concat(), &[]),
        send(false, settings, &[]),
    ]
}

/// Whole calls are told as they were.
fn told(calls: Vec<Call>) {
    let mut sends = Vec::from(beginning());
    let (mut late, mut expected) = (Vec::new(), Vec::new());
    let mut answer = |sends: &mut Vec<Send>, (stream, start, call): (u32, u64, &Call)| {
        let (status, outcome) = STATUSES[usize::from(call.status) % STATUSES.len()];
        let body = if call.has_answer {
            message(&call.answer)
        } else {
            Vec::new()
        };
        let mut bytes = headers(0, stream, &[(":status", "200")]);
        if call.has_answer {
            bytes.extend(frame(DATA, 0, stream, &body));
        }
        bytes.extend(headers(END_STREAM, stream, &[("grpc-status", status)]));
        sends.push(send(false, bytes, &call.pieces));
        let (_, operation) = PATHS[usize::from(call.path) % PATHS.len()];
        expected.extend(operation.map(|operation| Heard {
            operation,
            outcome,
            message: String::new(),
            start: Some(start),
            end: sends.len() as u64,
            request: kept(message(&call.message)),
            answer: kept(body),
        }));
    };
    for (stream, call) in iter::successors(Some(1), |stream| Some(stream + 2)).zip(&calls) {
        let (path, _) = PATHS[usize::from(call.path) % PATHS.len()];
        let mut bytes = headers(0, stream, &[(":method", "POST"), (":path", path)]);
        bytes.extend(frame(DATA, END_STREAM, stream, &message(&call.message)));
        sends.push(send(true, bytes, &call.pieces));
        let asked = (stream, sends.len() as u64, call);
        if call.is_late {
            late.push(asked);
        } else {
            answer(&mut sends, asked);
        }
    }
    for asked in late {
        answer(&mut sends, asked);
    }
    assert_eq!(listen(&sends), (expected, 0));
}

fn kept(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(KEPT);
    bytes
}

/// Where the kernel cuts a send makes no difference, while its listener knows where it is.
fn cut(has_preface: bool, said: Vec<Part>) {
    let mut sends: Vec<Send> = if has_preface {
        beginning().into()
    } else {
        Vec::new()
    };
    for part in said {
        let bytes = match part.frame {
            Some((kind, flags, stream)) => frame(kind % 10, flags, stream.into(), &part.bytes),
            None => part.bytes,
        };
        // A client's first words are one piece.
        let is_preface = bytes.starts_with(PREFACE);
        let pieces = if is_preface { &[] } else { part.pieces.as_slice() };
        sends.push(send(part.is_request, bytes, pieces));
    }
    let (calls, lost) = listen(&sends);
    let said: usize = sends.iter().map(|send| send.bytes.len()).sum();
    for call in &calls {
        assert!(call.request.len() + call.answer.len() <= said, "{call:?}");
        assert!(call.start.is_none_or(|start| start <= call.end), "{call:?}");
    }
    let mut whole = sends;
    for send in &mut whole {
        send.pieces.clear();
    }
    let whole = listen(&whole);
    if has_preface && (lost == 0 || whole.1 == 0) {
        assert_eq!((calls, lost), whole);
    }
}

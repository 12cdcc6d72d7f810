use proptest::prelude::*;
use sabot_proto::runtime::v1::{
    ListPodSandboxResponse, PodSandbox, RunPodSandboxRequest, RunPodSandboxResponse, StartContainerRequest,
};

use super::super::http2::PREFACE;
use super::super::testing::{Encoder, encoded, pod, sandbox};
use super::*;

const RUN: &str = "/runtime.v1.RuntimeService/RunPodSandbox";
const START: &str = "/runtime.v1.RuntimeService/StartContainer";

/// A client and a server that abbreviate whatever they can.
struct Talk {
    connection: Connection,
    requests: Encoder,
    answers: Encoder,
    sender: Sender,
    time: u64,
    news: News,
}

impl Talk {
    fn new() -> Self {
        Self {
            connection: Connection::new(),
            requests: Encoder::default(),
            answers: Encoder::default(),
            sender: Sender {
                pid: 7,
                process: "kubelet".into(),
            },
            time: 0,
            news: News::default(),
        }
    }

    fn begun() -> Self {
        let mut talk = Self::new();
        talk.say(Way::Request, PREFACE);
        talk
    }

    fn say(&mut self, way: Way, bytes: &[u8]) {
        self.say_part(way, bytes, true, 0);
    }

    fn say_part(&mut self, way: Way, bytes: &[u8], is_start: bool, rest: usize) {
        self.time += 1000;
        let said = Said {
            way,
            sender: &self.sender,
            time: self.time,
            bytes,
            is_start,
            rest,
        };
        self.connection.hear(&said, &mut self.news);
    }

    fn request(&mut self, stream: u32, path: &str, message: &[u8]) -> Vec<u8> {
        let headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
        ];
        let block = self.requests.encode(&headers);
        [
            frame(HEADERS, END_HEADERS, stream, &block),
            frame(DATA, END_STREAM, stream, &grpc(message)),
        ]
        .concat()
    }

    /// Without a message only the status is sent, as for failures.
    fn answer(&mut self, stream: u32, message: Option<&[u8]>, trailers: &[(&str, &str)]) -> Vec<u8> {
        let head = [(":status", "200"), ("content-type", "application/grpc")];
        let Some(message) = message else {
            let block = self.answers.encode(&[&head, trailers].concat());
            return frame(HEADERS, END_HEADERS | END_STREAM, stream, &block);
        };
        let block = self.answers.encode(&head);
        let trailers = self.answers.encode(trailers);
        [
            frame(HEADERS, END_HEADERS, stream, &block),
            frame(DATA, 0, stream, &grpc(message)),
            frame(HEADERS, END_HEADERS | END_STREAM, stream, &trailers),
        ]
        .concat()
    }

    fn call(&mut self, stream: u32, path: &str, message: &[u8], answer: &[u8]) {
        let request = self.request(stream, path, message);
        self.say(Way::Request, &request);
        let answer = self.answer(stream, Some(answer), &[("grpc-status", "0")]);
        self.say(Way::Answer, &answer);
    }

    fn ended(&mut self) -> Vec<Ended> {
        mem::take(&mut self.news.ended)
    }

    /// Operation and outcome of what has ended.
    fn ends(&mut self) -> Vec<(&'static str, &'static str)> {
        self.ended()
            .iter()
            .map(|ended| (ended.operation, ended.outcome))
            .collect()
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn grpc(message: &[u8]) -> Vec<u8> {
    [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat()
}

fn run() -> Vec<u8> {
    encoded(&RunPodSandboxRequest {
        config: sandbox(),
        runtime_handler: String::new(),
    })
}

fn made() -> Vec<u8> {
    encoded(&RunPodSandboxResponse {
        pod_sandbox_id: "s1".into(),
    })
}

fn start() -> Vec<u8> {
    encoded(&StartContainerRequest {
        container_id: "c1".into(),
    })
}

#[test]
fn a_call_is_told_with_its_times_its_messages_and_its_client() {
    let mut talk = Talk::begun();
    talk.call(1, RUN, &run(), &made());
    assert_eq!(
        talk.ended(),
        [Ended {
            operation: "RunPodSandbox",
            start: Some(2000),
            end: 3000,
            outcome: "OK",
            message: String::new(),
            client: talk.sender.clone(),
            request: grpc(&run()),
            answer: grpc(&made()),
        }]
    );
    assert_eq!((talk.news.out_of_sync, talk.connection.calls.len()), (0, 0));
}

#[test]
fn calls_run_at_the_same_time_and_end_in_any_order() {
    let mut talk = Talk::begun();
    for stream in [1, 3, 5] {
        let path = if stream == 3 { START } else { RUN };
        let request = talk.request(stream, path, &start());
        talk.say(Way::Request, &request);
    }
    assert_eq!(
        talk.connection.in_flight(|_| true).collect::<Vec<_>>(),
        ["RunPodSandbox", "StartContainer", "RunPodSandbox"]
    );
    assert_eq!(talk.connection.in_flight(|client| client.pid != 7).count(), 0);
    let failure = [("grpc-status", "5"), ("grpc-message", "no such%20thing")];
    let answer = talk.answer(3, None, &failure);
    talk.say(Way::Answer, &answer);
    let ended = talk.ended();
    assert_eq!(
        (ended[0].outcome, ended[0].message.as_str()),
        ("NotFound", "no such thing")
    );
    let answer = talk.answer(1, Some(&made()), &[("grpc-status", "0")]);
    talk.say(Way::Answer, &answer);
    talk.say(Way::Request, &frame(RST_STREAM, 0, 5, &[0, 0, 0, 8]));
    assert_eq!(
        talk.ends(),
        [("RunPodSandbox", "OK"), ("RunPodSandbox", "Cancelled")]
    );
    // The server may still send something for it.
    let late = talk.answer(5, Some(&made()), &[("grpc-status", "0")]);
    talk.say(Way::Answer, &late);
    talk.connection.settle(u64::MAX, &mut talk.news);
    assert_eq!(talk.ends(), []);
}

#[test]
fn an_answer_may_be_heard_before_its_request() {
    let mut talk = Talk::begun();
    let request = talk.request(1, RUN, &run());
    let answer = talk.answer(1, Some(&made()), &[("grpc-status", "0")]);
    talk.say(Way::Answer, &answer);
    talk.connection.settle(talk.time, &mut talk.news);
    assert_eq!(talk.ends(), []);
    talk.say(Way::Request, &request);
    let ended = talk.ended();
    let [call] = &ended[..] else {
        panic!("{ended:?}");
    };
    assert_eq!((call.operation, call.outcome), ("RunPodSandbox", "OK"));
    // It took no time, rather than less.
    assert_eq!(call.start, Some(call.end));
}

#[test]
fn on_an_older_connection_a_name_is_known_by_shape_or_when_it_is_spelt_out() {
    let mut talk = Talk::new();
    // Nobody listens yet.
    for path in [RUN, START] {
        talk.request(1, path, &[]);
    }
    let unheard = talk.answer(1, Some(&[]), &[("grpc-status", "0")]);
    let failure = talk.answer(1, None, &[("grpc-status", "2"), ("grpc-message", "a")]);
    // Their answers are heard, though.
    talk.say(Way::Answer, &unheard);
    talk.say(Way::Answer, &failure);
    talk.connection.settle(talk.time, &mut talk.news);
    assert_eq!(talk.ends(), []);
    talk.connection.settle(talk.time + LATE_NS, &mut talk.news);
    let [ended] = &talk.ended()[..] else {
        panic!("one call has ended")
    };
    assert_eq!(
        (ended.operation, ended.outcome, ended.start),
        (UNKNOWN, "OK", None)
    );
    talk.answers = Encoder::default();
    talk.connection.answers.lose();

    talk.call(3, RUN, &run(), &made());
    talk.call(5, START, &start(), &[]);
    assert_eq!(talk.ends(), [("RunPodSandbox", "OK"), (UNKNOWN, "OK")]);
    // The client has forgotten its abbreviations.
    talk.requests = Encoder::default();
    talk.call(7, START, &start(), &[]);
    talk.call(9, START, &start(), &[]);
    assert_eq!(talk.ends(), [("StartContainer", "OK"); 2]);
}

#[test]
fn on_an_older_connection_a_name_holds_for_all_calls_with_its_abbreviation() {
    const LIST: &str = "/runtime.v1.RuntimeService/ListPodSandbox";
    let mut talk = Talk::new();
    // Nobody listens yet.
    for path in [LIST, START] {
        talk.request(1, path, &[]);
    }
    let list = encoded(&ListPodSandboxResponse {
        items: vec![PodSandbox {
            id: "ab".repeat(32),
            metadata: Some(pod()),
            created_at: 1,
            ..PodSandbox::default()
        }],
    });
    talk.call(3, LIST, &[], &[]);
    talk.call(5, START, &start(), &[]);
    assert_eq!(talk.ends(), [(UNKNOWN, "OK"); 2], "neither has a shape");
    talk.call(7, LIST, &[], &list);
    talk.call(9, START, &start(), &[]);
    talk.call(11, LIST, &[], &[]);
    assert_eq!(
        talk.ends(),
        [
            ("ListPodSandbox", "OK"),
            (UNKNOWN, "OK"),
            ("ListPodSandbox", "OK")
        ]
    );
    let request = talk.request(13, LIST, &[]);
    talk.say(Way::Request, &request);
    assert_eq!(
        talk.connection.in_flight(|_| true).collect::<Vec<_>>(),
        ["ListPodSandbox"]
    );
    // What was missed may have added to the table.
    talk.connection.lose(talk.time, &mut talk.news);
    assert_eq!(talk.ends(), [("ListPodSandbox", "lost")]);
    talk.call(15, LIST, &[], &[]);
    assert_eq!(talk.ends(), [(UNKNOWN, "OK")]);
}

#[test]
fn an_abbreviated_failure_on_an_older_connection_is_one_nonetheless() {
    let mut talk = Talk::new();
    let failure = [("grpc-status", "5"), ("grpc-message", "gone")];
    talk.answer(1, None, &failure);
    let request = talk.request(3, START, &start());
    talk.say(Way::Request, &request);
    let answer = talk.answer(3, None, &failure);
    talk.say(Way::Answer, &answer);
    assert_eq!(talk.ends(), [("StartContainer", "unread")]);
}

#[test]
fn what_is_no_call_of_the_runtime_is_passed_over() {
    let mut talk = Talk::begun();
    talk.call(1, "/containerd.services.images.v1.Images/List", &run(), &made());
    assert_eq!(talk.ends(), []);
    assert!(talk.connection.calls.is_empty());
}

#[test]
fn the_end_of_a_connection_ends_its_calls() {
    let mut talk = Talk::begun();
    let request = talk.request(1, RUN, &run());
    talk.say(Way::Request, &request);
    talk.connection.close(talk.time, &mut talk.news);
    assert_eq!(talk.ends(), [("RunPodSandbox", "disconnected")]);
    // As does the beginning of another one in its place.
    let mut talk = Talk::begun();
    let request = talk.request(1, RUN, &run());
    talk.say(Way::Request, &request);
    talk.say(Way::Request, PREFACE);
    assert_eq!(talk.ends(), [("RunPodSandbox", "disconnected")]);
    talk.requests = Encoder::default();
    talk.call(1, START, &start(), &[]);
    assert_eq!(talk.ends(), [("StartContainer", "OK")]);
}

#[test]
fn after_a_loss_it_finds_back() {
    let mut talk = Talk::begun();
    let request = talk.request(1, RUN, &run());
    talk.say(Way::Request, &request);
    talk.connection.lose(talk.time, &mut talk.news);
    assert_eq!(talk.ends(), [("RunPodSandbox", "lost")]);
    // The abbreviations are those of an older connection now.
    talk.call(3, RUN, &run(), &made());
    talk.call(5, START, &start(), &[]);
    talk.call(7, START, &start(), &[]);
    assert_eq!(
        talk.ends(),
        [
            ("RunPodSandbox", "OK"),
            ("StartContainer", "OK"),
            ("StartContainer", "OK")
        ]
    );
    talk.say(Way::Answer, b"this is no frame at all");
    assert_eq!(talk.news.out_of_sync, 2);
    talk.call(9, START, &start(), &[]);
    assert_eq!(talk.ends(), [("StartContainer", "OK")]);
}

#[test]
fn what_was_not_copied_of_a_long_answer_does_no_harm() {
    let mut talk = Talk::begun();
    let request = talk.request(1, "/runtime.v1.RuntimeService/ListContainers", &[]);
    talk.say(Way::Request, &request);
    let head = talk.answers.encode(&[(":status", "200")]);
    let long = [
        frame(HEADERS, END_HEADERS, 1, &head),
        frame(DATA, 0, 1, &grpc(&vec![8; 16_000])),
    ]
    .concat();
    let (heard, rest) = long.split_at(5000);
    talk.say_part(Way::Answer, heard, true, rest.len());
    let trailers = talk.answers.encode(&[("grpc-status", "0")]);
    talk.say(
        Way::Answer,
        &frame(HEADERS, END_HEADERS | END_STREAM, 1, &trailers),
    );
    assert_eq!(
        (talk.ends(), talk.news.out_of_sync),
        (vec![("ListContainers", "OK")], 0)
    );
}

proptest! {
    /// However the kernel cuts what is sent, the same is heard.
    #[test]
    fn pieces_make_no_difference(cuts in proptest::collection::vec(1_usize..40, 1..40)) {
        let mut talk = Talk::begun();
        let request = talk.request(1, RUN, &run());
        let answer = talk.answer(1, Some(&made()), &[("grpc-status", "0")]);
        for (way, bytes) in [(Way::Request, &request), (Way::Answer, &answer)] {
            let mut at = 0;
            let mut cuts = cuts.iter().cycle();
            while at < bytes.len() {
                // A head is never cut at the beginning of a send.
                let length = cuts.next().map_or(9, |&cut| cut.max(if at == 0 { 9 } else { 1 }));
                let end = (at + length).min(bytes.len());
                talk.say_part(way, &bytes[at..end], at == 0, bytes.len() - end);
                at = end;
            }
        }
        let ended = talk.ended();
        prop_assert_eq!(ended.len(), 1);
        prop_assert_eq!((ended[0].operation, ended[0].outcome), ("RunPodSandbox", "OK"));
        prop_assert_eq!(&ended[0].request, &grpc(&run()));
        prop_assert_eq!(talk.news.out_of_sync, 0);
    }
}

//! A door for the fuzz targets: what is understood of a connection's bytes.

use super::connection::{Connection, Ended, News, Said, Sender, Way};

/// One send on a connection, and where the kernel cut it into pieces.
#[derive(Clone, Debug)]
pub struct Send {
    /// By the runtime's client.
    pub is_request: bool,
    pub bytes: Vec<u8>,
    /// Bytes of each piece but the last one; 0 and what is beyond the end cut nothing.
    pub pieces: Vec<usize>,
}

/// What a call was found to be: its operation, its outcome, the beginnings of what was asked and answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    pub operation: &'static str,
    pub outcome: &'static str,
    pub message: String,
    pub start: Option<u64>,
    pub end: u64,
    pub request: Vec<u8>,
    pub answer: Vec<u8>,
}

/// The calls on a connection that says this and is then closed, and how often the thread was lost.
pub fn listen(sends: &[Send]) -> (Vec<Heard>, u64) {
    let sender = Sender::default();
    let (mut connection, mut news) = (Connection::new(), News::default());
    let mut time = 0;
    for send in sends {
        time += 1;
        let mut rest = send.bytes.as_slice();
        let mut is_start = true;
        let cuts = send.pieces.iter().copied().chain([usize::MAX]);
        for length in cuts {
            let (bytes, after) = rest.split_at(length.min(rest.len()));
            rest = after;
            if bytes.is_empty() {
                continue;
            }
            let said = Said {
                way: if send.is_request {
                    Way::Request
                } else {
                    Way::Answer
                },
                sender: &sender,
                time,
                bytes,
                is_start,
                rest: rest.len(),
            };
            connection.hear(&said, &mut news);
            is_start = false;
        }
    }
    connection.close(time + 1, &mut news);
    (news.ended.into_iter().map(heard).collect(), news.out_of_sync)
}

fn heard(ended: Ended) -> Heard {
    Heard {
        operation: ended.operation,
        outcome: ended.outcome,
        message: ended.message,
        start: ended.start,
        end: ended.end,
        request: ended.request,
        answer: ended.answer,
    }
}

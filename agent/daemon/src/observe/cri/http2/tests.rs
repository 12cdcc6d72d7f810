use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// What was heard, in a form that can be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Note {
    Preface,
    Frame(u8, u8, u32, Vec<u8>),
    OutOfSync,
}

fn note(heard: Heard<'_>) -> Note {
    match heard {
        Heard::Preface => Note::Preface,
        Heard::Frame(frame) => Note::Frame(frame.kind, frame.flags, frame.stream, frame.payload.to_vec()),
        Heard::OutOfSync => Note::OutOfSync,
    }
}

fn push(reader: &mut Reader, bytes: &[u8], is_start: bool) -> Vec<Note> {
    let mut notes = Vec::new();
    reader.push(bytes, is_start, |heard| notes.push(note(heard)));
    notes
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn begin() -> Vec<u8> {
    [
        PREFACE,
        &frame(SETTINGS, 0, 0, &[0; 6]),
        &frame(HEADERS, 5, 1, b"block"),
    ]
    .concat()
}

#[test]
fn a_connection_is_read_from_its_beginning_however_it_is_cut() {
    let bytes = begin();
    let expected = [
        Note::Preface,
        Note::Frame(SETTINGS, 0, 0, vec![0; 6]),
        Note::Frame(HEADERS, 5, 1, b"block".to_vec()),
    ];
    // The kernel copies a send in pieces of a few kilobytes: its first piece holds the whole preface.
    for cut in PREFACE.len()..=bytes.len() {
        let mut reader = Reader::new();
        let mut notes = push(&mut reader, &bytes[..cut], true);
        notes.extend(push(&mut reader, &bytes[cut..], false));
        assert_eq!(notes, expected, "cut at {cut}");
    }
}

#[test]
fn padding_and_priority_are_taken_off() {
    let mut reader = Reader::new();
    let padded = frame(DATA, PADDED, 1, b"\x02data\0\0");
    let with_priority = frame(HEADERS, WITH_PRIORITY | END_HEADERS, 3, b"12345block");
    let both = frame(HEADERS, PADDED | WITH_PRIORITY, 5, b"\x0112345block\0");
    let notes = push(&mut reader, &[padded, with_priority, both].concat(), true);
    let payloads: Vec<_> = notes
        .iter()
        .map(|note| match note {
            Note::Frame(.., payload) => payload.as_slice(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(payloads, [&b"data"[..], b"block", b"block"]);
    let more_padding_than_there_is = frame(DATA, PADDED, 1, b"\x09data");
    assert_eq!(
        push(&mut reader, &more_padding_than_there_is, true),
        [Note::OutOfSync]
    );
}

#[test]
fn who_joins_late_waits_for_a_send_that_begins_with_frames() {
    let mut reader = Reader::new();
    let whole = frame(DATA, 0, 1, &[7; 100]);
    assert_eq!(push(&mut reader, &whole[20..], true), []);
    assert_eq!(push(&mut reader, &whole, false), []);
    assert!(reader.is_searching());
    let ping = frame(PING, 0, 0, &[1; 8]);
    // The first frame is whole, the second one isn't any more.
    assert_eq!(
        push(&mut reader, &[&ping[..], b"no frame's head"].concat(), true),
        []
    );
    assert_eq!(
        push(&mut reader, &ping, true),
        [Note::Frame(PING, 0, 0, vec![1; 8])]
    );
}

#[test]
fn a_reader_that_went_astray_notices_and_finds_back() {
    let mut reader = Reader::new();
    push(&mut reader, &begin(), true);
    assert_eq!(
        push(&mut reader, b"HTTP/1.1 400 Bad Request", true),
        [Note::OutOfSync]
    );
    assert_eq!(push(&mut reader, b"more of it", true), []);
    let ping = frame(PING, 0, 0, &[1; 8]);
    assert_eq!(push(&mut reader, &ping, true).len(), 1);
    // As does one that is told that something is missing.
    reader.lose();
    assert_eq!(push(&mut reader, &ping[3..], true), []);
    assert_eq!(push(&mut reader, &ping, true).len(), 1);
    // A new connection in the old one's place.
    push(&mut reader, &frame(DATA, 0, 1, &[0; 50])[..30], true);
    assert_eq!(push(&mut reader, &begin(), true)[0], Note::Preface);
}

#[test]
fn the_end_of_a_long_message_may_be_passed_over_and_nothing_else() {
    let data = frame(DATA, END_STREAM, 1, &[7; 300]);
    let mut reader = Reader::new();
    assert_eq!(push(&mut reader, &data[..109], true), []);
    let mut notes = Vec::new();
    reader.skip(200, |heard| notes.push(note(heard)));
    assert_eq!(notes, [Note::Frame(DATA, END_STREAM, 1, vec![7; 100])]);
    assert_eq!(push(&mut reader, &data, true).len(), 1);

    for (pushed, skipped) in [(&data[..109], 201), (&data[..4], 1), (&begin()[24..45], 2)] {
        let mut reader = Reader::new();
        push(&mut reader, pushed, true);
        reader.lose();
        reader.state = State::Head;
        push(&mut reader, pushed, false);
        let mut notes = Vec::new();
        reader.skip(skipped, |heard| notes.push(note(heard)));
        assert_eq!(notes, [Note::OutOfSync], "{skipped} bytes after {pushed:?}");
        assert!(reader.is_searching());
    }
}

#[test]
fn of_a_frame_that_is_too_long_the_beginning_is_kept() {
    let mut reader = Reader::new();
    push(&mut reader, &begin(), true);
    let notes = push(&mut reader, &frame(DATA, 0, 1, &vec![7; 3 * KEPT]), true);
    let lengths: Vec<_> = notes
        .iter()
        .map(|note| match note {
            Note::Frame(DATA, 0, 1, payload) => payload.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(lengths, [KEPT]);
    assert_eq!(push(&mut reader, &frame(DATA, 0, 1, b"next"), true).len(), 1);
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let stream = (0_u32..50).prop_map(|number| 2 * number + 1);
    let payload = vec(any::<u8>(), 1..40);
    (0_u8..6, stream, payload).prop_map(|(kind, stream, payload)| match kind {
        0 => frame(DATA, END_STREAM, stream, &payload),
        1 => frame(HEADERS, END_HEADERS, stream, &payload),
        2 => frame(CONTINUATION, 0, stream, &payload),
        3 => frame(PING, 0, 0, &[3; 8]),
        4 => frame(SETTINGS, ACK, 0, &[]),
        _ => frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]),
    })
}

proptest! {
    #[test]
    fn pieces_make_no_difference(frames in vec(any_frame(), 1..20), cuts in vec(1_usize..30, 0..60)) {
        let bytes: Vec<u8> = frames.concat();
        let whole = push(&mut Reader::new(), &bytes, true);
        prop_assert_eq!(whole.len(), frames.len());
        let mut reader = Reader::new();
        // The first head is whole, as in every send.
        let (mut rest, mut notes) = (&bytes[HEAD..], push(&mut reader, &bytes[..HEAD], true));
        for cut in cuts {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            notes.extend(push(&mut reader, piece, false));
            rest = after;
        }
        notes.extend(push(&mut reader, rest, false));
        prop_assert_eq!(notes, whole);
    }

    #[test]
    fn no_bytes_make_it_panic(pieces in vec((vec(any::<u8>(), 0..60), any::<bool>()), 0..20)) {
        let mut reader = Reader::new();
        reader.state = State::Head;
        for (bytes, is_start) in pieces {
            push(&mut reader, &bytes, is_start);
            reader.skip(bytes.len() / 2, |_| {});
        }
    }
}

//! DNS messages, read plainly beside the daemon's reading.

use std::net::IpAddr;

use sabot_abi::{DNS_ANSWER_ROOM, DnsAnswer};
use sabotd::fuzzing;

const A: u16 = 1;
const AAAA: u16 = 28;
const CNAME: u16 = 5;
const INTERNET: u16 = 1;
/// Where a name is that is the question's.
const ABBREVIATION: [u8; 2] = [0xc0, 12];

struct Record<'a> {
    has_question_name: bool,
    kind: u16,
    class: u16,
    seconds: u32,
    data: &'a [u8],
}

/// An answer's names and addresses are what its message has.
pub(super) fn answer(message: &[u8], is_cut: bool) {
    let mut entry = super::entry::<DnsAnswer>(&[]);
    let message = &message[..message.len().min(DNS_ANSWER_ROOM)];
    let length = if is_cut {
        DNS_ANSWER_ROOM + 1
    } else {
        message.len()
    };
    entry[12..16].copy_from_slice(&(length as u32).to_ne_bytes());
    entry[16..16 + message.len()].copy_from_slice(message);
    let message = &entry[16..16 + length.min(DNS_ANSWER_ROOM)];
    let read = fuzzing::answer(&entry).expect("an entry of the right size is read");
    let Ok(Some(answer)) = read else { return };
    if let Some(name) = plain_name(&message[12..])
        && let Some((first, _)) = answer.names.first()
    {
        assert_eq!(*first, name);
    }
    let records = records(message);
    for (address, holds) in &answer.addresses {
        let is_it = |record: &Record<'_>| {
            let seconds = i32::try_from(record.seconds).unwrap_or(0);
            record.address() == Some(*address) && i64::from(seconds) == holds.as_secs() as i64
        };
        assert!(records.iter().any(is_it), "{address} isn't in the message");
    }
    let is_plain = records
        .iter()
        .all(|record| record.has_question_name && record.kind != CNAME);
    if is_plain && !answer.is_partial {
        let addresses = records.iter().filter(|record| record.address().is_some());
        assert_eq!(answer.addresses.len(), addresses.count());
    }
}

impl Record<'_> {
    fn address(&self) -> Option<IpAddr> {
        let of_internet = self.class == INTERNET;
        match self.kind {
            A if of_internet => <[u8; 4]>::try_from(self.data).ok().map(IpAddr::from),
            AAAA if of_internet => <[u8; 16]>::try_from(self.data).ok().map(IpAddr::from),
            _ => None,
        }
    }
}

/// The records of an answer, up to the first that isn't whole.
fn records(message: &[u8]) -> Vec<Record<'_>> {
    let mut records = Vec::new();
    let count = |at| half(message, at).unwrap_or(0);
    let mut at = Some(12);
    for _ in 0..count(4) {
        at = at.and_then(|at| skip_name(message, at)).map(|at| at + 4);
    }
    for _ in 0..count(6) {
        let Some((record, next)) = at.and_then(|at| record(message, at)) else {
            break;
        };
        records.push(record);
        at = Some(next);
    }
    records
}

fn record(message: &[u8], start: usize) -> Option<(Record<'_>, usize)> {
    let at = skip_name(message, start)?;
    let seconds = message.get(at + 4..at + 8)?.try_into().ok()?;
    let end = at + 10 + usize::from(half(message, at + 8)?);
    let record = Record {
        has_question_name: message[start..].starts_with(&ABBREVIATION),
        kind: half(message, at)?,
        class: half(message, at + 2)?,
        seconds: u32::from_be_bytes(seconds),
        data: message.get(at + 10..end)?,
    };
    Some((record, end))
}

fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..64 => at += 1 + usize::from(length),
            _ => return Some(at + 2),
        }
    }
}

fn half(message: &[u8], at: usize) -> Option<u16> {
    let bytes = message.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_be_bytes(bytes))
}

/// A question's name and type are what its bytes say.
pub(super) fn question(bytes: &[u8]) {
    let read = fuzzing::question(bytes);
    let plain = plain_name(bytes);
    let Some(end) = plain.as_ref().and_then(|_| skip_name(bytes, 0)) else {
        return;
    };
    let is_whole = bytes.len() >= end + 4;
    assert_eq!(read.is_some(), is_whole, "{bytes:?}");
    let Some((name, kind)) = read else { return };
    assert_eq!(Some(name), plain);
    match half(bytes, end) {
        Some(A) => assert_eq!(kind, "A"),
        Some(AAAA) => assert_eq!(kind, "AAAA"),
        _ => assert!(!kind.is_empty()),
    }
}

/// A name at the beginning that has only what host names have, and isn't abbreviated.
fn plain_name(bytes: &[u8]) -> Option<String> {
    let mut labels = Vec::new();
    let mut rest = bytes;
    loop {
        let (&length, after) = rest.split_first()?;
        if length == 0 {
            break;
        }
        let (label, after) = after.split_at_checked(length.into()).filter(|_| length < 64)?;
        let text = std::str::from_utf8(label).ok()?.to_ascii_lowercase();
        if !text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        {
            return None;
        }
        labels.push(text);
        rest = after;
    }
    let name = labels.join(".");
    (name.len() <= 253 && !name.is_empty()).then_some(name)
}

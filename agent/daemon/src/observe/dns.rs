//! The addresses that names have, from the DNS answers that arrive at targets.
//!
//! What is watched are whole UDP datagrams from port 53. Answers over TCP or an encrypted transport aren't seen, nor is what
//! a target finds in a hosts file. That an answer belongs to a question of the target isn't checked: whoever can send
//! datagrams from port 53 to a target can have addresses learnt.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use domain::base::iana::{Class, Opcode, Rcode, Rtype};
use domain::base::wire::ParseError;
use domain::base::{Message, ParsedName, Ttl};
use domain::rdata::{A, Aaaa, Cname};
use sabot_abi::DnsAnswer;
use sabot_core::model::BootTime;

use super::event::{EventHub, STREAM_DNS};
use super::ring::{OwnedTask, StreamLoss, consume};
use crate::targets::Names;

/// Names of one chain of aliases that are followed at most; resolvers follow fewer.
const MAX_CHAIN: usize = 16;
/// Times to live are 31 bits long; a greater number means none (RFC 2181, 8).
const GREATEST_TTL: u32 = i32::MAX as u32;

/// The addresses that one answer gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The name that was asked for and the aliases that lead on from it, in lower case and without the last dot, each with
    /// the time for which the way from it to the addresses holds.
    pub names: Vec<(String, Duration)>,
    /// The addresses of the last name.
    pub addresses: Vec<(IpAddr, Duration)>,
    /// There was more than could be read: the sender cut the answer short, or it was too long to be copied whole.
    pub is_partial: bool,
}

/// What a datagram isn't.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a DNS message: {0}")]
pub struct Malformed(&'static str);

/// The task that reads answers; it ends when this is dropped.
pub struct DnsObserver {
    loss: Arc<StreamLoss>,
    task: OwnedTask,
}

/// Begins to read `ring`, the fault object's ring of [`DnsAnswer`], and has `names` learn from it. `lost` reads how many
/// answers the kernel could not copy. Must be called within a tokio runtime.
///
/// # Errors
///
/// When the ring can't be polled.
pub fn start(
    ring: RingBuf<MapData>,
    names: Names,
    hub: EventHub,
    lost: impl Fn() -> u64 + Send + Sync + 'static,
) -> io::Result<DnsObserver> {
    let loss = Arc::new(StreamLoss::new(STREAM_DNS, lost));
    let task = consume(ring, hub, Arc::clone(&loss), move |copied: DnsAnswer| {
        learn(&names, &copied)
    })?;
    Ok(DnsObserver { loss, task })
}

impl DnsObserver {
    /// Answers that were not learnt from, or not wholly: no room in the ring, fragments, more bytes than are copied, cut
    /// short by the sender, malformed, or more addresses than a name may have.
    pub fn lost_answers(&self) -> u64 {
        self.loss.total()
    }

    /// Whether answers are still being read.
    pub fn is_running(&self) -> bool {
        self.task.is_running()
    }
}

/// False when something of the answer was lost.
fn learn(names: &Names, copied: &DnsAnswer) -> bool {
    match read(copied.payload(), copied.is_cut()) {
        Ok(None) => true,
        Ok(Some(answer)) => {
            let kept = names.learn(BootTime(copied.time), &answer);
            kept && !answer.is_partial
        }
        Err(error) => {
            tracing::debug!(target_id = copied.target, length = copied.length, %error, "a DNS answer is ignored");
            false
        }
    }
}

/// What a message answers; `None` when it is no answer, an error, or not about an address. `is_cut`: its end is missing.
///
/// # Errors
///
/// The message breaks its own format.
pub fn read(message: &[u8], is_cut: bool) -> Result<Option<Answer>, Malformed> {
    let message = Message::from_slice(message).map_err(|_| Malformed("it is too short"))?;
    let header = message.header();
    if !header.qr() || header.opcode() != Opcode::QUERY || header.rcode() != Rcode::NOERROR {
        return Ok(None);
    }
    let question = match message.sole_question() {
        Ok(question) => question,
        Err(_) if is_cut => return Ok(Some(partial())),
        Err(_) => return Err(Malformed("it hasn't one question")),
    };
    if question.qclass() != Class::IN || !matches!(question.qtype(), Rtype::A | Rtype::AAAA | Rtype::ANY) {
        return Ok(None);
    }
    let (records, is_whole) = records(message);
    if !is_whole && !is_cut {
        return Err(Malformed("a record can't be read"));
    }
    let mut answer = follow(question.into_qname(), &records);
    answer.is_partial = header.tc() || !is_whole;
    Ok(Some(answer))
}

fn partial() -> Answer {
    Answer {
        is_partial: true,
        ..Answer::default()
    }
}

struct Record<'a> {
    owner: ParsedName<&'a [u8]>,
    ttl: Duration,
    data: Data<'a>,
}

enum Data<'a> {
    Address(IpAddr),
    Alias(ParsedName<&'a [u8]>),
}

/// The records of the answer that matter here, and whether all could be read.
fn records(message: &Message<[u8]>) -> (Vec<Record<'_>>, bool) {
    let mut records = Vec::new();
    let Ok(section) = message.answer() else {
        return (records, false);
    };
    for parsed in section {
        let Ok(parsed) = parsed else {
            return (records, false);
        };
        if parsed.class() != Class::IN {
            continue;
        }
        let data = match parsed.rtype() {
            Rtype::A => data::<A>(&parsed, |a| Data::Address(a.addr().into())),
            Rtype::AAAA => data::<Aaaa>(&parsed, |aaaa| Data::Address(aaaa.addr().into())),
            Rtype::CNAME => data::<Cname<_>>(&parsed, |cname| Data::Alias(cname.into_cname())),
            _ => continue,
        };
        let Ok(Some(data)) = data else {
            return (records, false);
        };
        records.push(Record {
            owner: parsed.owner(),
            ttl: lifetime(parsed.ttl()),
            data,
        });
    }
    (records, true)
}

fn data<'a, D>(
    parsed: &domain::base::record::ParsedRecord<'a, [u8]>,
    meaning: impl FnOnce(D) -> Data<'a>,
) -> Result<Option<Data<'a>>, ParseError>
where
    D: domain::base::rdata::ParseRecordData<'a, [u8]>,
{
    let record = parsed.to_record::<D>()?;
    Ok(record.map(|record| meaning(record.into_data())))
}

fn lifetime(ttl: Ttl) -> Duration {
    let seconds = ttl.as_secs();
    Duration::from_secs(if seconds > GREATEST_TTL { 0 } else { seconds.into() })
}

/// Goes from the name that was asked for to the addresses. The way from a name holds as long as its shortest-lived part.
fn follow(question: ParsedName<&[u8]>, records: &[Record<'_>]) -> Answer {
    let mut answer = Answer::default();
    let mut name = question;
    loop {
        answer.names.push((written(&name), Duration::MAX));
        let alias = records.iter().find_map(|record| match &record.data {
            Data::Alias(next) if record.owner == name => Some((*next, record.ttl)),
            _ => None,
        });
        let Some((next, ttl)) = alias else { break };
        if answer.names.len() == MAX_CHAIN {
            return answer;
        }
        for (_, holds) in &mut answer.names {
            *holds = ttl.min(*holds);
        }
        name = next;
    }
    answer.addresses = records
        .iter()
        .filter_map(|record| match record.data {
            Data::Address(address) if record.owner == name => Some((address, record.ttl)),
            _ => None,
        })
        .collect();
    answer
}

/// As faults name it.
fn written(name: &ParsedName<&[u8]>) -> String {
    name.to_string().trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests;

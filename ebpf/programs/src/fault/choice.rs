//! Which of the packets that a rule names it acts upon.

use sabot_abi::{
    CHOICE_ALL, CHOICE_EVERY, CHOICE_FIRST, CHOICE_FLOWS, CHOICE_GILBERT_ELLIOTT, CHOICE_SHARE,
    INCIDENT_HELPER_FAILED, RULE_HANDSHAKE, RULE_SYN, Rule, STREAM_BAD, STREAM_STEP, mix, random, stream_key,
};

use crate::connections;
use crate::counters::incident;
use crate::packet::{Packet, TCP_ACK, TCP_SYN};
use crate::pipeline::Journey;
use crate::rules::scaled;
use crate::streams::{self, StreamRef};

/// How often a CPU tries to step a chain that other CPUs step at the same time.
const ATTEMPTS: u32 = 16;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    Chosen,
    Spared,
    /// It can't be decided now; an incident was counted.
    Undecided,
}

/// The rule is about packets of this kind; the others it lets on without deciding anything.
#[inline(always)]
pub fn concerns(rule: &Rule, packet: &Packet) -> bool {
    if rule.flags & RULE_SYN != 0 {
        packet.tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN
    } else {
        rule.flags & RULE_HANDSHAKE == 0 || packet.tcp_flags & TCP_SYN != 0
    }
}

/// Decides on a packet. `draw` becomes what it was decided by where that is a share.
#[inline(never)]
pub fn choose(journey: &Journey<'_>, slot: u32, rule: &Rule, draw: &mut u64) -> Choice {
    match rule.choice {
        CHOICE_ALL => return Choice::Chosen,
        CHOICE_FLOWS => {
            let share = scaled(rule, rule.threshold, journey.now);
            return chosen(low(flow_hash(rule.seed, journey.packet)) < share);
        }
        _ => {}
    }
    let Some(stream) = streams::of(slot, journey.target_id, journey.direction) else {
        return Choice::Undecided;
    };
    let key = stream_key(rule.seed, journey.target.identity, journey.direction);
    match rule.choice {
        CHOICE_SHARE => {
            *draw = random(key, stream.next());
            chosen(low(*draw) < scaled(rule, rule.threshold, journey.now))
        }
        CHOICE_EVERY => chosen((stream.next() + 1) % (rule.count.max(1) as u64) == 0),
        CHOICE_GILBERT_ELLIOTT => step_chain(stream, rule, key),
        CHOICE_FIRST => match connections::is_among_first(stream, journey.packet, rule.count as u64) {
            Some(is_among) => chosen(is_among),
            None => Choice::Undecided,
        },
        _ => Choice::Undecided,
    }
}

/// Not one wire packet of this super-packet can be chosen.
#[inline(never)]
pub fn spares_all(journey: &Journey<'_>, slot: u32, rule: &Rule) -> bool {
    rule.choice == CHOICE_FIRST
        && streams::of(slot, journey.target_id, journey.direction)
            .is_some_and(|stream| connections::is_past_start(stream, journey.packet, rule.count as u64))
}

/// One step of the chain. The packet is decided in the state in which the chain was, and then the state may change.
#[inline(always)]
fn step_chain(stream: StreamRef, rule: &Rule, key: u64) -> Choice {
    for _ in 0..ATTEMPTS {
        let before = stream.word();
        let is_bad = before & STREAM_BAD != 0;
        let draw = random(key, before / STREAM_STEP);
        let (loss, change) = if is_bad {
            (rule.threshold_bad, rule.to_good)
        } else {
            (rule.threshold, rule.to_bad)
        };
        let changed = if draw >> 32 < change { STREAM_BAD } else { 0 };
        let after = (before ^ changed).wrapping_add(STREAM_STEP);
        if stream.replace(before, after) {
            return chosen(low(draw) < loss);
        }
    }
    incident(INCIDENT_HELPER_FAILED);
    Choice::Undecided
}

/// A number that a connection has in both directions and at both of its ends.
#[inline(always)]
fn flow_hash(seed: u64, packet: &Packet) -> u64 {
    let (source_port, destination_port) = packet.stable_ports();
    let source = End::new(&packet.source, source_port);
    let destination = End::new(&packet.destination, destination_port);
    let (first, second) = if source.is_before(&destination) {
        (source, destination)
    } else {
        (destination, source)
    };
    let rest = first.port << 48 | second.port << 32 | packet.protocol as u64;
    let mut hash = mix(seed);
    for word in [first.high, first.low, second.high, second.low, rest] {
        hash = mix(hash ^ word);
    }
    hash
}

/// One end of a connection, as numbers.
struct End {
    high: u64,
    low: u64,
    port: u64,
}

impl End {
    #[inline(always)]
    fn new(address: &[u8; 16], port: u16) -> Self {
        let all = u128::from_be_bytes(*address);
        Self {
            high: (all >> 64) as u64,
            low: all as u64,
            port: port as u64,
        }
    }

    #[inline(always)]
    fn is_before(&self, other: &Self) -> bool {
        if self.high != other.high {
            self.high < other.high
        } else if self.low != other.low {
            self.low < other.low
        } else {
            self.port <= other.port
        }
    }
}

#[inline(always)]
fn low(draw: u64) -> u64 {
    draw & 0xffff_ffff
}

#[inline(always)]
fn chosen(is_chosen: bool) -> Choice {
    if is_chosen { Choice::Chosen } else { Choice::Spared }
}

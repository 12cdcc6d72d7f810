//! What the faults' choices fall on, said plainly: one generator, one chain and one list of connections for each fault and
//! direction, all of them in plain memory.

use std::collections::HashMap;
use std::net::IpAddr;

use sabot_core::loss::GilbertElliott;
use sabot_core::model::{LossModel, Percent};
use sabotd::engine::handle::LedgerDirection;

use crate::frame::{Frame, SYN, Transport};

/// What a fault remembers of the packets in a direction.
#[derive(Clone, Debug)]
pub(crate) struct Chances {
    generator: SplitMix64,
    decided: u64,
    is_bad: bool,
    /// The sequence number of the SYN, and the packets since.
    connections: HashMap<Connection, (u32, u32)>,
}

type Connection = (u8, (IpAddr, u16), (IpAddr, u16));

/// A ramp's factor, in units of 2^-16.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Factor(pub u64);

impl Factor {
    pub(crate) const WHOLE: Self = Self(1 << 16);
}

impl Chances {
    pub(crate) fn new(seed: u64, identity: u64, direction: LedgerDirection) -> Self {
        let number = match direction {
            LedgerDirection::Egress => 0,
            LedgerDirection::Ingress => 1,
        };
        let of_target = scramble(seed ^ identity);
        Self {
            generator: SplitMix64 {
                state: scramble(of_target.wrapping_add(number)),
            },
            decided: 0,
            is_bad: false,
            connections: HashMap::new(),
        }
    }

    /// Draws for a packet: the number, and whether it is in the share.
    pub(crate) fn share(&mut self, percent: Percent, factor: Factor) -> (u64, bool) {
        let number = self.draw();
        (number, low(number) < bound(percent.value() / 100.0, factor))
    }

    /// Whether the packet is lost.
    pub(crate) fn loses(&mut self, model: &LossModel, seed: u64, factor: Factor, frame: &Frame) -> bool {
        match model {
            LossModel::Percent(percent) if percent.value() == 100.0 && factor.0 == Factor::WHOLE.0 => true,
            LossModel::Percent(percent) => self.share(*percent, factor).1,
            LossModel::GilbertElliott(chain) => self.step(chain),
            LossModel::EveryNth(n) => {
                self.decided += 1;
                self.decided.is_multiple_of(u64::from(*n))
            }
            LossModel::FirstOfConnection(n) => self.is_among_first(*n, frame),
            LossModel::Flows(percent) => {
                low(flow_number(seed, frame)) < bound(percent.value() / 100.0, factor)
            }
        }
    }

    /// None of the wire packets in a super-packet can be among the first of their connection.
    pub(crate) fn is_past_start(&self, count: u32, frame: &Frame) -> bool {
        match self.connections.get(&connection(frame)) {
            Some((_, packets)) => *packets >= count,
            None => matches!(frame.transport, Transport::Tcp { .. }),
        }
    }

    fn step(&mut self, chain: &GilbertElliott) -> bool {
        let number = self.draw();
        let (loss, turn) = if self.is_bad {
            (chain.loss_bad, chain.r)
        } else {
            (chain.loss_good, chain.p)
        };
        if number >> 32 < bound(turn, Factor::WHOLE) {
            self.is_bad = !self.is_bad;
        }
        low(number) < bound(loss, Factor::WHOLE)
    }

    fn is_among_first(&mut self, count: u32, frame: &Frame) -> bool {
        let connection = connection(frame);
        if matches!(frame.transport, Transport::Tcp { .. }) {
            if frame.flags & SYN != 0 && !frame.is_later_fragment() {
                let known = self.connections.get(&connection);
                if known.is_none_or(|(sequence, _)| *sequence != frame.sequence) {
                    self.connections.insert(connection, (frame.sequence, 0));
                }
            }
        } else {
            self.connections.entry(connection).or_default();
        }
        let Some((_, packets)) = self.connections.get_mut(&connection) else {
            return false;
        };
        let is_first = *packets < count;
        *packets += u32::from(is_first);
        is_first
    }

    fn draw(&mut self) -> u64 {
        self.decided += 1;
        self.generator.next()
    }
}

/// The byte of a payload that a draw changes, counted from the first one that may be, and how.
pub(crate) fn damage(draw: u64, length: usize, bits: u8) -> (usize, u8) {
    let number = SplitMix64 { state: draw }.next();
    let candidates: Vec<u8> = (0..=255_u8)
        .filter(|byte| byte.count_ones() == u32::from(bits))
        .collect();
    (
        part_of(low(number), length),
        candidates[part_of(number >> 32, candidates.len())],
    )
}

/// A number of 32 bits, stretched to one below `length`.
fn part_of(number: u64, length: usize) -> usize {
    ((u128::from(number) * length as u128) >> 32) as usize
}

/// Steele, Lea and Flood's generator, one number after the other.
#[derive(Clone, Debug)]
struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        scramble(self.state)
    }
}

fn scramble(state: u64) -> u64 {
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn low(number: u64) -> u64 {
    u64::from(number as u32)
}

/// Below how many of 2^32 a number must be.
fn bound(probability: f64, factor: Factor) -> u64 {
    let whole = (probability * 4_294_967_296.0).round() as u128;
    ((whole * u128::from(factor.0)) >> 16) as u64
}

fn connection(frame: &Frame) -> Connection {
    let (source, destination) = ports(frame);
    (
        frame.transport.protocol(),
        (frame.source, source),
        (frame.destination, destination),
    )
}

/// What all packets of a connection agree on, fragments among them.
fn ports(frame: &Frame) -> (u16, u16) {
    match frame.transport {
        Transport::Tcp {
            source, destination, ..
        }
        | Transport::Udp {
            source, destination, ..
        }
        | Transport::Sctp { source, destination }
            if frame.is_whole() =>
        {
            (source, destination)
        }
        _ => (0, 0),
    }
}

/// The same for both directions of a connection.
fn flow_number(seed: u64, frame: &Frame) -> u64 {
    let (source, destination) = ports(frame);
    let mut ends = [
        (number_of(frame.source), source),
        (number_of(frame.destination), destination),
    ];
    ends.sort_unstable();
    let [(first, first_port), (second, second_port)] = ends;
    let rest =
        u64::from(first_port) << 48 | u64::from(second_port) << 32 | u64::from(frame.transport.protocol());
    let words = [
        (first >> 64) as u64,
        first as u64,
        (second >> 64) as u64,
        second as u64,
        rest,
    ];
    words
        .iter()
        .fold(scramble(seed), |number, word| scramble(number ^ word))
}

fn number_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[test]
fn the_generator_gives_the_published_numbers() {
    let mut generator = SplitMix64 { state: 1_234_567 };
    let published = [
        6_457_827_717_110_365_317,
        3_203_168_211_198_807_973,
        9_817_491_932_198_370_423,
    ];
    assert_eq!(published.map(|_| generator.next()), published);
}

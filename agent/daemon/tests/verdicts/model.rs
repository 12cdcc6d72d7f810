//! What the classifier should do, said plainly: over a frame's parts and a rule's own words, without tables, keys or
//! bytes.

mod names;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use sabot_abi::{Counters, Tally};
use sabot_core::model::{
    Action, BootTime, Corrupt, CorruptKind, Direction, Duplicate, Handshake, Loss, LossModel, PacketFilter,
    Percent, PortMatch, Pulse, Ramp, Reorder,
};
use sabot_core::plan::PeerPort;
use sabotd::engine::handle::LedgerDirection;

use crate::chances::{Chances, Factor, damage};
use crate::frame::{ACK, Frame, RST, SYN, Transport};
use names::{factor, is_neighbour_discovery, named_lengths, names, weigh, wire_packets};

/// A fault as its rule has it, with its peers beside it.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub action: Action,
    pub direction: Direction,
    pub ports: Vec<PortMatch>,
    pub packets: PacketFilter,
    /// `None`: every other end. Otherwise networks, each of them taken in or left out.
    pub peers: Option<Vec<(IpNet, bool)>>,
    /// Ports of addresses that are peers besides, where there are any peers.
    pub peer_ports: Vec<(IpAddr, PeerPort)>,
    pub spare_node: bool,
    pub pulse: Option<Pulse>,
    pub ramp: Option<Ramp>,
    pub seed: u64,
    pub starts_at: BootTime,
    pub expires_at: BootTime,
}

/// What stands around a packet.
#[derive(Clone, Debug)]
pub(crate) struct Situation {
    pub direction: LedgerDirection,
    pub now: BootTime,
    pub node_addresses: BTreeSet<IpAddr>,
    pub has_line: bool,
    pub has_segmenter: bool,
    pub is_node_device: bool,
    pub mark: u32,
    /// Payload bytes of each wire packet; 0 for a packet that is one.
    pub gso_size: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Passed,
    Dropped,
    Diverted,
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prediction {
    pub fate: Fate,
    /// What each fault counts.
    pub counted: Vec<Counters>,
    /// Places in the frame, and the bits that change there.
    pub flips: Vec<(usize, u8)>,
    pub is_cloned: bool,
}

/// What each fault remembers of the packets that it met in a direction.
pub(crate) type Memory = Vec<Chances>;

/// What becomes of a packet that meets the faults in their order.
pub(crate) fn predict(
    faults: &[Fault],
    memory: &mut Memory,
    situation: &Situation,
    frame: &Frame,
) -> Prediction {
    let mut prediction = Prediction {
        fate: Fate::Passed,
        counted: vec![Counters::default(); faults.len()],
        flips: Vec::new(),
        is_cloned: false,
    };
    if is_neighbour_discovery(frame) {
        return prediction;
    }
    let wire = wire_packets(frame, situation.gso_size);
    for (index, fault) in faults.iter().enumerate() {
        if !names(fault, situation, frame) {
            continue;
        }
        let named = named_lengths(&fault.packets, &wire);
        let mut meeting = Meeting {
            fault,
            situation,
            frame,
            wire: named,
            is_super: wire.len() > 1,
            chances: &mut memory[index],
            prediction: &mut prediction,
            index,
        };
        if named.packets == 0 {
            continue;
        } else if named != weigh(wire.iter()) {
            meeting.take_apart();
        } else {
            meeting.counters().matched = named;
            meeting.act();
        }
        if prediction.fate != Fate::Passed {
            break;
        }
    }
    prediction
}

/// A packet and a fault that names it.
struct Meeting<'a> {
    fault: &'a Fault,
    situation: &'a Situation,
    frame: &'a Frame,
    wire: Tally,
    is_super: bool,
    chances: &'a mut Chances,
    prediction: &'a mut Prediction,
    index: usize,
}

#[derive(Clone, Copy)]
enum Way {
    Line,
    Segmenter,
}

impl Meeting<'_> {
    fn counters(&mut self) -> &mut Counters {
        &mut self.prediction.counted[self.index]
    }

    /// Only some of its wire packets are named: they are counted one by one, later.
    fn take_apart(&mut self) {
        if self.is_open(Way::Segmenter) {
            self.prediction.fate = Fate::Diverted;
        } else {
            let named = self.wire;
            self.counters().matched = named;
            self.counters().bypassed = named;
        }
    }

    fn act(&mut self) {
        match &self.fault.action {
            Action::Partition => self.lose(),
            Action::Reject(_) => self.divert(Way::Line),
            Action::Reset(_) if self.is_tcp_without_reset() => self.divert(Way::Line),
            Action::Reset(_) => self.pass(),
            Action::RateLimit(limit) if self.is_super && self.wire.bytes > u64::from(limit.burst) => {
                self.divert(Way::Segmenter);
            }
            Action::RateLimit(_) => self.divert(Way::Line),
            Action::Delay(delay) if self.is_super && !delay.jitter.is_zero() => self.divert(Way::Segmenter),
            Action::Delay(_) => self.divert(Way::Line),
            Action::Drop(loss) => self.meet_loss(loss),
            Action::Corrupt(corrupt) => self.meet_corruption(corrupt),
            Action::Duplicate(duplicate) => self.meet_duplication(duplicate),
            Action::Reorder(reorder) => self.meet_reordering(reorder),
        }
    }

    fn meet_loss(&mut self, loss: &Loss) {
        let flags = match self.frame.transport {
            Transport::Tcp { .. } if !self.frame.is_later_fragment() => self.frame.flags,
            _ => 0,
        };
        let is_concerned = match loss.only {
            None => true,
            Some(Handshake::Syn) => flags & SYN != 0 && flags & ACK == 0,
            Some(Handshake::Both) => flags & SYN != 0,
        };
        let may_differ = self.fault.ramp.is_some()
            || match loss.model {
                LossModel::Percent(percent) => {
                    percent.value() != 0.0 && (percent.value() != 100.0 || loss.only.is_some())
                }
                LossModel::Flows(percent) => percent.value() != 0.0 && loss.only.is_some(),
                _ => true,
            };
        let is_over = match loss.model {
            LossModel::FirstOfConnection(count) => self.chances.is_past_start(count, self.frame),
            _ => false,
        };
        if !is_concerned || (self.is_super && is_over) {
            self.pass();
        } else if self.is_super && may_differ {
            self.divert(Way::Segmenter);
        } else {
            let factor = self.factor();
            if self
                .chances
                .loses(&loss.model, self.fault.seed, factor, self.frame)
            {
                self.lose();
            } else {
                self.pass();
            }
        }
    }

    fn meet_corruption(&mut self, corrupt: &Corrupt) {
        let happens = corrupt.percent.value() > 0.0;
        if happens && (self.is_super || corrupt.kind == CorruptKind::Wire) {
            return self.divert(Way::Segmenter);
        }
        let factor = self.factor();
        let (draw, is_chosen) = self.chances.share(corrupt.percent, factor);
        let (from, to) = corrupt.offset;
        let payload = 0..self.frame.payload.len();
        let open = (from as usize).min(payload.end)..(to as usize).min(payload.end);
        if is_chosen && has_checksum(self.frame) && !open.is_empty() {
            let (place, flip) = damage(draw, open.len(), corrupt.bits);
            let at = self.frame.payload_at() + open.start + place;
            self.prediction.flips.push((at, flip));
            let wire = self.wire;
            self.counters().corrupted = wire;
        }
        self.pass();
    }

    fn meet_duplication(&mut self, duplicate: &Duplicate) {
        if self.is_super && duplicate.percent.value() > 0.0 {
            return self.divert(Way::Segmenter);
        }
        let is_late = !duplicate.delay.is_zero();
        let way = if is_late { Way::Line } else { Way::Segmenter };
        if !self.is_chosen(duplicate.percent) {
            return self.pass();
        }
        if !self.is_open(way) {
            return self.bypass();
        }
        let copies = u64::from(duplicate.copies);
        let clones = Tally {
            packets: copies * self.wire.packets,
            bytes: copies * self.wire.bytes,
        };
        self.prediction.is_cloned = true;
        let counters = self.counters();
        counters.duplicated = clones;
        if is_late {
            counters.delayed = clones;
        } else {
            counters.segmenting = clones;
        }
        self.pass();
    }

    fn meet_reordering(&mut self, reorder: &Reorder) {
        let happens = reorder.percent.value() > 0.0;
        if self.is_super && happens {
            return self.divert(Way::Segmenter);
        }
        let is_chosen = self.is_chosen(reorder.percent);
        if is_chosen || (happens && reorder.gap.is_some()) {
            self.divert(Way::Line);
        } else {
            self.pass();
        }
    }

    /// Every packet of a whole needs no draw.
    fn is_chosen(&mut self, percent: Percent) -> bool {
        let factor = self.factor();
        percent.value() == 100.0 && self.fault.ramp.is_none() || self.chances.share(percent, factor).1
    }

    fn factor(&self) -> Factor {
        factor(self.fault, self.situation.now)
    }

    fn is_tcp_without_reset(&self) -> bool {
        let is_tcp = matches!(self.frame.transport, Transport::Tcp { .. });
        is_tcp && !self.frame.is_later_fragment() && self.frame.flags & RST == 0
    }

    fn is_open(&self, way: Way) -> bool {
        let situation = self.situation;
        let exists = match way {
            Way::Line => situation.has_line,
            Way::Segmenter => situation.has_segmenter,
        };
        exists && !(situation.is_node_device && situation.mark != 0)
    }

    fn divert(&mut self, way: Way) {
        if !self.is_open(way) {
            return self.bypass();
        }
        let wire = self.wire;
        match way {
            Way::Line => self.counters().delayed = wire,
            Way::Segmenter => self.counters().segmenting = wire,
        }
        self.prediction.fate = Fate::Diverted;
    }

    fn lose(&mut self) {
        let wire = self.wire;
        self.counters().dropped = wire;
        self.prediction.fate = Fate::Dropped;
    }

    fn pass(&mut self) {
        let wire = self.wire;
        self.counters().passed = wire;
    }

    fn bypass(&mut self) {
        let wire = self.wire;
        self.counters().bypassed = wire;
    }
}

/// One that we can mend, over the whole of it.
fn has_checksum(frame: &Frame) -> bool {
    let is_known = !matches!(frame.transport, Transport::Sctp { .. } | Transport::Other(_));
    is_known && frame.is_whole()
}

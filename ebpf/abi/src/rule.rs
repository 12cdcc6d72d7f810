//! Rules: what a slot does to the packets that it matches.

use crate::{assert_layout, pod};

/// Slots, and so faults, that the kernel's tables hold at once.
pub const MAX_SLOTS: u32 = 4096;
/// The map flag for "insert only".
pub const BPF_NOEXIST: u32 = 1;
/// Port blocks and protocols in all rules.
pub const MAX_PORTS: u32 = 1 << 16;

/// Traffic that leaves the target.
pub const DIRECTION_EGRESS: u32 = 0;
/// Traffic that arrives at the target.
pub const DIRECTION_INGRESS: u32 = 1;

pub const ACTION_PARTITION: u32 = 1;
pub const ACTION_DROP: u32 = 2;
/// Changes the payload and mends the checksum.
pub const ACTION_CORRUPT_PAYLOAD: u32 = 3;
pub const ACTION_DELAY: u32 = 4;
/// Changes the payload and leaves the checksum as it was.
pub const ACTION_CORRUPT_WIRE: u32 = 5;
pub const ACTION_DUPLICATE: u32 = 6;
pub const ACTION_REORDER: u32 = 7;
pub const ACTION_RATE_LIMIT: u32 = 8;
pub const ACTION_REJECT: u32 = 9;
pub const ACTION_RESET: u32 = 10;

/// Every packet.
pub const CHOICE_ALL: u32 = 0;
/// Each packet with the probability `threshold`.
pub const CHOICE_SHARE: u32 = 1;
/// Gilbert and Elliott's chain: `threshold` in the good state, `threshold_bad` in the bad one.
pub const CHOICE_GILBERT_ELLIOTT: u32 = 2;
/// Each `count`-th packet.
pub const CHOICE_EVERY: u32 = 3;
/// The first `count` packets of each connection.
pub const CHOICE_FIRST: u32 = 4;
/// All packets of the share `threshold` of the connections.
pub const CHOICE_FLOWS: u32 = 5;

/// The rule covers egress.
pub const RULE_EGRESS: u32 = 1 << 0;
/// The rule covers ingress.
pub const RULE_INGRESS: u32 = 1 << 1;
/// Only packets whose other end is in the rule's peer set match; without it every other end does.
pub const RULE_PEERS: u32 = 1 << 2;
/// The peer set holds exact addresses.
pub const RULE_PEERS_EXACT: u32 = 1 << 3;
/// The peer set holds prefixes.
pub const RULE_PEERS_PREFIX: u32 = 1 << 4;
/// Traffic with the node's own addresses is spared unless the peer set names that address exactly.
pub const RULE_SPARE_NODE: u32 = 1 << 5;

/// Only packets with a port of the rule's port set match (the `PORTS` map).
pub const RULE_PORTS: u32 = 1 << 6;
/// Only packets of a protocol of the rule's port set match; with [`RULE_PORTS`] too, either is enough.
pub const RULE_PROTOCOLS: u32 = 1 << 7;
/// Only packets of the rule's code points match.
pub const RULE_DSCP: u32 = 1 << 8;
/// Only wire packets of the rule's lengths match.
pub const RULE_LENGTHS: u32 = 1 << 9;
/// Only a TCP SYN without ACK is acted upon; other packets pass.
pub const RULE_SYN: u32 = 1 << 10;
/// Only a TCP SYN, with ACK or without, is acted upon; other packets pass.
pub const RULE_HANDSHAKE: u32 = 1 << 11;
/// What is decided is decided for each wire packet: super-packets are segmented first.
pub const RULE_SEGMENT: u32 = 1 << 12;
/// What is chosen goes to the delay line (`duplicate` with a delay of its own).
pub const RULE_LINE: u32 = 1 << 13;
/// Packets that aren't chosen go to the delay line as well (`reorder` by a gap).
pub const RULE_LINE_ALL: u32 = 1 << 14;
/// On the node's own devices the connections that keep it reachable match too; without it none of them does.
pub const RULE_CONTROL_PLANE: u32 = 1 << 15;

/// What a slot does. Bodies are immutable once a slot's state points at them: an edit writes the slot's other body and
/// then swaps the state word, so a packet sees the old rule or the new one, never a mixture.
///
/// Shares and probabilities are in units of 2^-32 (`1 << 32` is all).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// One of `ACTION_*`.
    pub action: u32,
    /// A set of `RULE_*`.
    pub flags: u32,
    /// `CLOCK_BOOTTIME` in ns; the rule is inert before.
    pub starts_at: u64,
    /// `CLOCK_BOOTTIME` in ns; the rule is inert from then on.
    pub expires_at: u64,
    /// From the start on the rule is in force for `pulse_on` ns in each `pulse_period` ns; a period of 0: always.
    pub pulse_on: u64,
    pub pulse_period: u64,
    /// The value moves over so many ns from `ramp_from` of it to `ramp_to`, in units of 2^-16; 0: it is the whole.
    pub ramp_over: u64,
    pub ramp_from: u32,
    pub ramp_to: u32,
    /// The key of the rule's peers in the peer maps.
    pub peer_set: u32,
    /// The key of the rule's ports in the port map.
    pub port_set: u32,
    /// Bit `n` stands for the code point `n`.
    pub dscp: u64,
    /// Lengths of the IP packet, in bytes, both included.
    pub least_length: u32,
    pub greatest_length: u32,
    /// What every choice follows from.
    pub seed: u64,
    pub threshold: u64,
    pub threshold_bad: u64,
    /// The chain's way from good to bad and from bad to good.
    pub to_bad: u64,
    pub to_good: u64,
    /// One of `CHOICE_*`: which matched packets are acted upon.
    pub choice: u32,
    /// `CHOICE_EVERY`, `CHOICE_FIRST`.
    pub count: u32,
    /// `ACTION_RATE_LIMIT`: a super-packet of more wire bytes is segmented first.
    pub segment_above: u32,
    /// `ACTION_DUPLICATE`: clones of a chosen packet.
    pub copies: u32,
    /// `ACTION_CORRUPT_*`: bits changed in one byte, and the payload's bytes among which it is: the first, and the one behind the last.
    pub corrupt_bits: u32,
    pub corrupt_from: u32,
    pub corrupt_to: u32,
    /// One in this many decided packets is reported as an event; 0 reports none.
    pub sample_every: u32,
    /// `ACTION_DELAY`: ns that each packet may wait in the departure queue; 0: only the delay line can do it.
    pub latency: u64,
    /// `CLOCK_MONOTONIC` in ns: between which moments packets leave the departure queue, however long they are to wait. Not before
    /// what came by a longer latency has left, when an edit has made it shorter, so that no packet overtakes an earlier one of
    /// its flow; not after `expires_at`.
    pub not_before: u64,
    pub not_after: u64,
}
assert_layout!(Rule, size = 176, align = 8);

/// The most clones of one packet.
pub const MAX_COPIES: u32 = 10;

/// A block of ports in a port set, and the data part of a key in the trie of ports. A packet matches when one of its
/// ports is in a block of that port's side. Big-endian, since the trie compares bits from the first byte on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortKey {
    port_set: [u8; 4],
    /// The IP protocol number.
    protocol: u8,
    /// One of `SIDE_*`.
    side: u8,
    port: [u8; 2],
}
assert_layout!(PortKey, size = 8, align = 1);

impl PortKey {
    #[inline(always)]
    pub const fn new(port_set: u32, protocol: u8, side: u8, port: u16) -> Self {
        Self {
            port_set: port_set.to_be_bytes(),
            protocol,
            side,
            port: port.to_be_bytes(),
        }
    }
}

/// Bits of a whole [`PortKey`]; a block of 2^n ports has n fewer.
pub const PORT_KEY_BITS: u32 = 64;

/// The packet's source port.
pub const SIDE_SOURCE: u8 = 0;
/// The packet's destination port; of ICMP and ICMPv6, the type (high byte) and the code.
pub const SIDE_DESTINATION: u8 = 1;
/// The whole protocol, with port 0.
pub const SIDE_WHOLE: u8 = 2;

/// A slot's state word: 0 when free, otherwise the index of its rule body plus one. Bodies of slot `s` are `2s` and `2s + 1`.
pub const SLOT_FREE: u32 = 0;

pod!(Rule, PortKey);

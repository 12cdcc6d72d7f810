//! Rules around a packet: what stands in the tables for them, and which packets they name, said plainly.

use aya_ebpf::maps::lpm_trie::Key;
use sabot_abi::{
    DIRECTION_EGRESS, MAX_PEER_LENGTHS, PEER_BUCKET_FULL, PEER_EXCEPTED, PEER_INCLUDED, PEER_PORTS,
    PEER_PREFIX_BASE, PORT_KEY_BITS, PeerKey4, PeerKey6, PeerLengths, PeerPortKey, PortKey, RULE_DSCP,
    RULE_EGRESS, RULE_INGRESS, RULE_LENGTHS, RULE_PEERS, RULE_PEERS_EXACT, RULE_PEERS_PREFIX, RULE_PORTS,
    RULE_PROTOCOLS, RULE_SPARE_NODE, Rule, SIDE_DESTINATION, SIDE_SOURCE, SIDE_WHOLE, peer_cell_value,
    peer_halves, peer_prefix, peer_v4,
};

use crate::filter::{self, Portion};
use crate::model::Seen;
use crate::packet::Packet;
use crate::{peers, ports};

/// Of a rule's peers and ports in the tables.
const SET: u32 = 3;
/// Entries of another rule, which must not be found.
const OTHER_SET: u32 = 4;

/// A rule as it is drawn: addresses and ports are the packet's own with a bit flipped or none, so that they are near it.
#[derive(Clone, Debug, arbitrary::Arbitrary)]
pub struct Drawn {
    is_egress: bool,
    covers: [bool; 2],
    peers: Option<Vec<DrawnPeer>>,
    peer_ports: Vec<(Option<u8>, DrawnPort)>,
    ports: Vec<DrawnPort>,
    protocols: Vec<u8>,
    dscp: Option<u64>,
    lengths: Option<(u16, u16)>,
    /// The packet's other end is one of the node's addresses.
    is_node: bool,
    spares_node: bool,
}

#[derive(Clone, Copy, Debug, arbitrary::Arbitrary)]
struct DrawnPeer {
    flip: Option<u8>,
    length: u8,
    is_included: bool,
    is_of_other_set: bool,
}

#[derive(Clone, Copy, Debug, arbitrary::Arbitrary)]
struct DrawnPort {
    flip: Option<u8>,
    /// The block has 2^so many ports.
    block: u8,
    is_source: bool,
    is_other_protocol: bool,
}

/// A network in the model's words.
#[derive(Clone, Copy, Debug)]
struct Network {
    address: u128,
    /// Of the family's own bits.
    length: u32,
    is_v4: bool,
}

impl Network {
    fn bits(self) -> u32 {
        if self.is_v4 { 32 } else { 128 }
    }

    /// Behind the bits that count, of 128.
    fn host_bits(self) -> u32 {
        self.bits() - self.length
    }

    fn is_whole(self) -> bool {
        self.host_bits() == 0
    }

    fn contains(self, address: u128) -> bool {
        let is_v4 = address >> 32 == 0xffff;
        let shift = |address: u128| address.checked_shr(self.host_bits()).unwrap_or(0);
        is_v4 == self.is_v4 && shift(address) == shift(self.address)
    }
}

/// A rule beside a packet.
pub struct Case<'a> {
    drawn: &'a Drawn,
    seen: Seen,
    other: u128,
    other_port: u16,
    peers: Vec<(Network, bool, u32)>,
}

impl<'a> Case<'a> {
    pub fn new(drawn: &'a Drawn, seen: Seen) -> Self {
        let (source_port, destination_port) = seen.ports.unwrap_or_default();
        let (other, other_port) = if drawn.is_egress {
            (seen.destination, destination_port)
        } else {
            (seen.source, source_port)
        };
        let other = u128::from_be_bytes(other);
        let peers = drawn.peers.iter().flatten().map(|peer| {
            let set = if peer.is_of_other_set { OTHER_SET } else { SET };
            (network(other, peer), peer.is_included, set)
        });
        Self {
            drawn,
            seen,
            other,
            other_port,
            peers: peers.collect(),
        }
    }

    /// What the programs' matcher says, over tables that are filled as the ABI has it.
    pub fn matched(&self, packet: &Packet) -> (bool, Portion) {
        let rule = self.encode();
        let direction = u32::from(!self.drawn.is_egress);
        debug_assert_eq!(direction == DIRECTION_EGRESS, self.drawn.is_egress);
        (
            filter::matches(&rule, packet, direction),
            filter::portion(&rule, packet),
        )
    }

    /// What the rule means.
    pub fn is_named(&self) -> bool {
        let drawn = self.drawn;
        let covered = drawn.covers[usize::from(!drawn.is_egress)];
        let is_code_point = drawn.dscp.is_none_or(|dscp| dscp >> self.seen.dscp & 1 == 1);
        covered && is_code_point && self.is_port_named() && self.is_peer_named()
    }

    /// Which of its wire packets have a length that the rule names: those before the last one, and that.
    pub fn named_lengths(&self) -> (bool, bool) {
        let (first, last) = self.seen.lengths;
        let is_named = |length: u32| match self.drawn.lengths {
            Some((least, greatest)) => (u32::from(least)..=u32::from(greatest)).contains(&length),
            None => true,
        };
        (is_named(first), is_named(last))
    }

    fn is_port_named(&self) -> bool {
        let drawn = self.drawn;
        if drawn.ports.is_empty() && drawn.protocols.is_empty() {
            return true;
        }
        let protocol = self.seen.protocol as u8;
        if drawn.protocols.contains(&protocol) {
            return true;
        }
        drawn.ports.iter().any(|port| {
            let (first, block) = self.block(port);
            let is_in = |number: u16| u32::from(number) >> block == u32::from(first) >> block;
            let of_side = match (self.seen.icmp, self.seen.ports) {
                (Some(kind), _) => (!port.is_source).then_some(kind),
                (None, Some((source, _))) if port.is_source => Some(source),
                (None, Some((_, destination))) => Some(destination),
                (None, None) => None,
            };
            self.protocol(port) == protocol && of_side.is_some_and(is_in)
        })
    }

    fn is_peer_named(&self) -> bool {
        let is_spared = self.drawn.spares_node && self.drawn.is_node;
        if self.drawn.peers.is_none() {
            return !is_spared;
        }
        if self.is_peer_port_named() {
            return true;
        }
        let own = self.peers.iter().filter(|(_, _, set)| *set == SET);
        let around = own.filter(|(network, _, _)| network.contains(self.other));
        // Of several entries for the same network the last one counts.
        match around.max_by_key(|(network, _, _)| network.length) {
            Some((network, is_included, _)) => *is_included && (network.is_whole() || !is_spared),
            None => false,
        }
    }

    fn is_peer_port_named(&self) -> bool {
        self.drawn.peer_ports.iter().any(|(flip, port)| {
            let is_whole = port.block % 2 == 0;
            let number = self.peer_port(port);
            let is_port = is_whole || number != 0 && number == self.other_port;
            flip.is_none() && self.protocol(port) == self.seen.protocol as u8 && (is_port || number == 0)
        })
    }

    fn protocol(&self, port: &DrawnPort) -> u8 {
        (self.seen.protocol as u8) ^ u8::from(port.is_other_protocol)
    }

    /// The first of a block of ports near the packet's own, and how many bits of it don't count.
    fn block(&self, port: &DrawnPort) -> (u16, u32) {
        let (source, destination) = self.seen.ports.unwrap_or_default();
        let own = match (self.seen.icmp, port.is_source) {
            (Some(kind), _) => kind,
            (None, true) => source,
            (None, false) => destination,
        };
        let block = u32::from(port.block % 17);
        let near = own ^ port.flip.map_or(0, |bit| 1 << (bit % 16));
        ((u32::from(near) >> block << block) as u16, block)
    }

    fn peer_port(&self, port: &DrawnPort) -> u16 {
        self.other_port ^ port.flip.map_or(0, |bit| 1 << (bit % 16))
    }

    fn encode(&self) -> Rule {
        let drawn = self.drawn;
        peers::PEERS_V4.clear();
        peers::PEERS_V4_BESIDE.clear();
        peers::PEERS_V6.clear();
        peers::PEERS_TRIE.clear();
        peers::PORTS_OF_PEERS.clear();
        peers::NODE_ADDRESSES.clear();
        ports::PORTS.clear();
        if drawn.is_node {
            peers::NODE_ADDRESSES.insert(self.other.to_be_bytes(), 0);
        }
        let mut flags = self.encode_ports() | self.encode_peers(SET);
        // They are in the tables, and say nothing of this rule.
        self.encode_peers(OTHER_SET);
        for (is_covered, flag) in drawn.covers.into_iter().zip([RULE_EGRESS, RULE_INGRESS]) {
            flags |= if is_covered { flag } else { 0 };
        }
        if drawn.spares_node {
            flags |= RULE_SPARE_NODE;
        }
        if drawn.dscp.is_some() {
            flags |= RULE_DSCP;
        }
        if drawn.lengths.is_some() {
            flags |= RULE_LENGTHS;
        }
        let (least, greatest) = drawn.lengths.unwrap_or_default();
        Rule {
            flags,
            peer_set: SET,
            port_set: SET,
            dscp: drawn.dscp.unwrap_or_default(),
            least_length: u32::from(least),
            greatest_length: u32::from(greatest),
            ..Rule::default()
        }
    }

    fn encode_ports(&self) -> u32 {
        let mut flags = 0;
        for port in &self.drawn.ports {
            let (first, block) = self.block(port);
            let side = if port.is_source && self.seen.icmp.is_none() {
                SIDE_SOURCE
            } else if port.is_source {
                // There is no such thing of ICMP.
                continue;
            } else {
                SIDE_DESTINATION
            };
            let key = PortKey::new(SET, self.protocol(port), side, first);
            ports::PORTS.insert(Key::new(PORT_KEY_BITS - block, key), 0);
        }
        if !self.drawn.ports.is_empty() {
            flags |= RULE_PORTS;
        }
        for &protocol in &self.drawn.protocols {
            let key = PortKey::new(SET, protocol, SIDE_WHOLE, 0);
            ports::PORTS.insert(Key::new(PORT_KEY_BITS, key), 0);
            flags |= RULE_PROTOCOLS;
        }
        flags
    }

    fn encode_peers(&self, set: u32) -> u32 {
        if self.drawn.peers.is_none() {
            return 0;
        }
        let own: Vec<_> = self.peers.iter().filter(|peer| peer.2 == set).collect();
        let prefixes = || own.iter().filter(|(network, _, _)| !network.is_whole());
        let lengths = |is_v4: bool| {
            let of_family = prefixes().filter(|(network, _, _)| network.is_v4 == is_v4);
            of_family.fold(0_u128, |lengths, (network, _, _)| lengths | 1 << network.length)
        };
        let most = MAX_PEER_LENGTHS;
        let in_trie = lengths(true).count_ones() > most || lengths(false).count_ones() > most;
        let mut used = PeerLengths {
            in_trie: u32::from(in_trie),
            ..PeerLengths::default()
        };
        let mut flags = RULE_PEERS;
        for (network, is_included, _) in &own {
            let value = if *is_included {
                PEER_INCLUDED
            } else {
                PEER_EXCEPTED
            };
            if network.is_whole() {
                flags |= RULE_PEERS_EXACT;
                insert_exact(set, network.address, |_| value);
            } else {
                flags |= RULE_PEERS_PREFIX;
                insert_prefix(set, *network, value, &mut used);
            }
        }
        peers::PEER_LENGTHS.set(set, used);
        if set == SET {
            flags |= self.encode_peer_ports();
        }
        flags
    }

    fn encode_peer_ports(&self) -> u32 {
        let mut flags = 0;
        for (flip, port) in &self.drawn.peer_ports {
            let address = self.other ^ flip.map_or(0, |bit| 1 << (bit % 32));
            let number = if port.block % 2 == 0 {
                0
            } else {
                self.peer_port(port)
            };
            let key = PeerPortKey::new(SET, self.protocol(port), number, address.to_be_bytes());
            peers::PORTS_OF_PEERS.insert(key, 0);
            insert_exact(SET, address, |value| value | PEER_PORTS);
            flags |= RULE_PEERS_EXACT;
        }
        flags
    }
}

/// A network near an address.
fn network(near: u128, drawn: &DrawnPeer) -> Network {
    let is_v4 = near >> 32 == 0xffff;
    let bits = if is_v4 { 32 } else { 128 };
    let flipped = near ^ drawn.flip.map_or(0, |bit| 1 << (u32::from(bit) % bits));
    let length = u32::from(drawn.length) % (bits + 1);
    let host_bits = bits - length;
    let address = flipped.checked_shr(host_bits).unwrap_or(0);
    let mut address = address.checked_shl(host_bits).unwrap_or(0);
    if is_v4 {
        address = address & 0xffff_ffff | 0xffff << 32;
    }
    Network {
        address,
        length,
        // Another address may be IPv4-mapped by a bit.
        is_v4: address >> 32 == 0xffff && (is_v4 || length == bits),
    }
    .of_its_family()
}

impl Network {
    /// A whole IPv6 address that is IPv4-mapped is an IPv4 one.
    fn of_its_family(self) -> Self {
        if self.is_v4 && self.length == 128 {
            Self { length: 32, ..self }
        } else {
            self
        }
    }
}

fn insert_exact(set: u32, address: u128, value: impl Fn(u32) -> u32) {
    let halves = peer_halves(address.to_be_bytes());
    match peer_v4(halves) {
        Some(v4) => insert_v4(PeerKey4::exact(set, v4), value),
        None => {
            let key = PeerKey6::exact(set, halves);
            // SAFETY: the former value is copied before the table changes.
            let former = unsafe { peers::PEERS_V6.get(key) }.copied().unwrap_or(0);
            peers::PEERS_V6.insert(key, value(former));
        }
    }
}

/// Into the bucket, or beside it as if that were full if the key is odd: keys of one bucket don't come up by chance.
fn insert_v4(key: PeerKey4, value: impl Fn(u32) -> u32) {
    let mut bucket = peers::PEERS_V4.get(key.bucket()).copied().unwrap_or_default();
    if let Some(cell) = bucket.cells.iter_mut().find(|cell| key.is_in(**cell)) {
        *cell = *cell & PEER_BUCKET_FULL | key.cell(value(peer_cell_value(*cell)));
    } else if key.to_bits() % 2 == 1 {
        // SAFETY: the former value is copied before the table changes.
        let former = unsafe { peers::PEERS_V4_BESIDE.get(key) }.copied().unwrap_or(0);
        peers::PEERS_V4_BESIDE.insert(key, value(former));
        bucket.cells[0] |= PEER_BUCKET_FULL;
    } else {
        let free = bucket
            .cells
            .iter_mut()
            .find(|cell| **cell & !PEER_BUCKET_FULL == 0);
        *free.expect("inputs have few entries") |= key.cell(value(0));
    }
    peers::PEERS_V4.set(key.bucket(), bucket);
}

fn insert_prefix(set: u32, network: Network, value: u32, used: &mut PeerLengths) {
    let bytes = network.address.to_be_bytes();
    if used.in_trie != 0 {
        let length = PEER_PREFIX_BASE + 128 - network.host_bits();
        peers::PEERS_TRIE.insert(Key::new(length, peer_prefix(set, bytes)), value);
    } else if network.is_v4 {
        let marker = PeerKey4::marker(network.length);
        used.v4 |= marker;
        let key = PeerKey4::prefix(set, network.address as u32, marker);
        insert_v4(key, |_| value);
    } else {
        let (high, low) = PeerKey6::marker(network.length);
        (used.v6_high, used.v6_low) = (used.v6_high | high, used.v6_low | low);
        let key = PeerKey6::prefix(set, peer_halves(bytes), (high, low));
        peers::PEERS_V6.insert(key, value);
    }
}

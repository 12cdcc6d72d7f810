//! What a packet weighs on the wire, and between whom it went.

use sabot_abi::{SkbOffsets, TAG_ETHERTYPE, Tally};

use crate::memory::{offset, read, read_pointer};

#[unsafe(no_mangle)]
pub static SKB: SkbOffsets = SkbOffsets {
    head: 0,
    data: 0,
    end: 0,
    len: 0,
    dev: 0,
    sk: 0,
    dst: 0,
    classifier_words: 0,
    skb_iif: 0,
    vlan_tci: 0,
    protocol: 0,
    mac_header: 0,
    network_header: 0,
    transport_header: 0,
    gso_size: 0,
    gso_segs: 0,
    dst_dev: 0,
    device_name: 0,
};

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
const UDP: u8 = 17;
const UDP_HEADER: u32 = 8;
/// The EtherType's place in a frame, and the bytes of a tag before it.
const ETHERTYPE_OFFSET: u32 = 12;
const TAG_LENGTH: u32 = 4;
/// What is ours in a frame for the delay line: the stamp, and the tag once the kernel has put it in.
const MOST_TAGS: u32 = 2;
/// A header that nobody has found in the packet yet.
const UNSET: u16 = u16::MAX;
const LEAST_IPV4_HEADER: u8 = 5;
const LATER_FRAGMENT: u16 = 0x1fff;

/// Whether it is a packet and no message between processes.
#[inline(always)]
pub fn is_ip(skb: u64) -> bool {
    matches!(
        u16::from_be(read(skb, offset!(SKB.protocol)).unwrap_or(0)),
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6
    )
}

pub struct Packet {
    pub wire: Tally,
    pub protocol: u8,
    /// IPv4 addresses are IPv4-mapped.
    pub source: [u8; 16],
    pub destination: [u8; 16],
    pub source_port: u16,
    pub destination_port: u16,
}

impl Packet {
    /// Whatever can be read of it. What is stamped is on its way to the delay line, and has bytes of ours behind its MAC
    /// addresses.
    #[inline(always)]
    pub fn of(skb: u64, is_stamped: bool) -> Self {
        let mut packet = Self {
            wire: Tally { packets: 1, bytes: 0 },
            protocol: 0,
            source: [0; 16],
            destination: [0; 16],
            source_port: 0,
            destination_port: 0,
        };
        let Some(head) = read_pointer(skb, offset!(SKB.head)) else {
            return packet;
        };
        let ours = if is_stamped { ours(skb, head) } else { 0 };
        let payload = packet.parse(skb, head, ours);
        packet.weigh(skb, head, payload);
        packet.wire.bytes = packet
            .wire
            .bytes
            .saturating_sub(packet.wire.packets * ours as u64);
        packet
    }

    /// Returns where the payload begins, from the head on; 0 where that isn't known.
    #[inline(always)]
    fn parse(&mut self, skb: u64, head: u64, ours: u32) -> u32 {
        // The kernel takes what is ours for the packet's protocol, and looks for its header there.
        let (network, ethertype) = if ours > 0 {
            let at = mac_header(skb) + ETHERTYPE_OFFSET + ours;
            (at + 2, read(head, at))
        } else {
            let network = read::<u16>(skb, offset!(SKB.network_header)).unwrap_or(0);
            (network as u32, read(skb, offset!(SKB.protocol)))
        };
        let transport = match u16::from_be(ethertype.unwrap_or(0)) {
            ETHERTYPE_IPV4 => self.parse_ipv4(head, network),
            ETHERTYPE_IPV6 => self.parse_ipv6(head, network),
            _ => None,
        };
        let Some(transport) = transport else {
            return 0;
        };
        if self.protocol != TCP && self.protocol != UDP {
            return 0;
        }
        let Some([source, destination]) = read::<[u16; 2]>(head, transport) else {
            return 0;
        };
        self.source_port = u16::from_be(source);
        self.destination_port = u16::from_be(destination);
        if self.protocol == UDP {
            return transport + UDP_HEADER;
        }
        let words = read::<u8>(head, transport + 12).unwrap_or(0) >> 4;
        transport + words as u32 * 4
    }

    /// Returns where the transport header begins, where there is one.
    #[inline(always)]
    fn parse_ipv4(&mut self, head: u64, network: u32) -> Option<u32> {
        let header = read::<[u8; 12]>(head, network)?;
        let words = header[0] & 0x0f;
        if header[0] >> 4 != 4 || words < LEAST_IPV4_HEADER {
            return None;
        }
        let [source, destination] = read::<[u32; 2]>(head, network + 12)?;
        self.source = mapped(source);
        self.destination = mapped(destination);
        self.protocol = header[9];
        let is_first = u16::from_be_bytes([header[6], header[7]]) & LATER_FRAGMENT == 0;
        is_first.then_some(network + words as u32 * 4)
    }

    /// Behind extension headers no ports are looked for.
    #[inline(always)]
    fn parse_ipv6(&mut self, head: u64, network: u32) -> Option<u32> {
        let header = read::<[u8; 8]>(head, network)?;
        if header[0] >> 4 != 6 {
            return None;
        }
        self.source = read(head, network + 8)?;
        self.destination = read(head, network + 24)?;
        self.protocol = header[6];
        Some(network + 40)
    }

    /// The bytes from the outermost header on that the packet has had so far; what the stack has gone past counts too. A
    /// super-packet weighs as much as the wire packets that it stands for.
    #[inline(always)]
    fn weigh(&mut self, skb: u64, head: u64, payload: u32) {
        let len = read::<u32>(skb, offset!(SKB.len)).unwrap_or(0);
        let data = read::<u64>(skb, offset!(SKB.data))
            .unwrap_or(head)
            .wrapping_sub(head) as u32;
        let mac = read::<u16>(skb, offset!(SKB.mac_header)).unwrap_or(UNSET);
        let network = read::<u16>(skb, offset!(SKB.network_header)).unwrap_or(UNSET);
        let start = if mac != UNSET && mac as u32 <= data {
            mac as u32
        } else if network != UNSET && network as u32 <= data {
            network as u32
        } else {
            data
        };
        let bytes = len.wrapping_add(data - start) as u64;
        self.wire.bytes = bytes;
        let end = read::<u32>(skb, offset!(SKB.end)).unwrap_or(0);
        let info = head.wrapping_add(end as u64);
        let segment = read::<u16>(info, offset!(SKB.gso_size)).unwrap_or(0) as u64;
        if segment == 0 || payload <= start {
            return;
        }
        let headers = (payload - start) as u64;
        let content = bytes.saturating_sub(headers);
        let segments = read::<u16>(info, offset!(SKB.gso_segs)).unwrap_or(0) as u64;
        // What came through a TAP doesn't know its number of segments.
        let packets = if segments == 0 {
            content.div_ceil(segment).max(1)
        } else {
            segments
        };
        self.wire = Tally {
            packets,
            bytes: content + packets * headers,
        };
    }
}

/// Bytes of ours in a frame for the delay line.
#[inline(always)]
fn ours(skb: u64, head: u64) -> u32 {
    let start = mac_header(skb) + ETHERTYPE_OFFSET;
    let mut length = 0;
    for _ in 0..MOST_TAGS {
        if read::<u16>(head, start + length).map(u16::from_be) != Some(TAG_ETHERTYPE) {
            break;
        }
        length += TAG_LENGTH;
    }
    length
}

#[inline(always)]
fn mac_header(skb: u64) -> u32 {
    read::<u16>(skb, offset!(SKB.mac_header)).unwrap_or(0) as u32
}

#[inline(always)]
fn mapped(v4: u32) -> [u8; 16] {
    let [a, b, c, d] = v4.to_ne_bytes();
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

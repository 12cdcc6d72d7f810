//! What the engine needs to know of a frame: its tag, its flow, and how many wire packets it stands for.
//!
//! A frame as the TAP hands it out: vnet header, destination MAC, source MAC, our tag and our stamp (EtherType and 16 bits
//! each), then the EtherType and the packet as they were. Nothing in here trusts a length.

use std::ops::Range;

use sabot_abi::{Role, Stamp, TAG_ETHERTYPE, Tag};

/// Bytes of our tag and our stamp in the frame; they never were on the wire.
pub(super) const OURS_LENGTH: usize = 2 * VLAN_LENGTH;
pub(super) const TAG_OFFSET: usize = 12;
const STAMP_OFFSET: usize = TAG_OFFSET + VLAN_LENGTH;
/// An EtherType and 16 bits.
const VLAN_LENGTH: usize = 4;
/// The shortest vnet header: flags, type of GSO, header length, GSO size, checksum start and offset.
const VNET_HEADER_MIN: usize = 10;

const VNET_NEEDS_CSUM: u8 = 1;
const VNET_GSO_TCP4: u8 = 1;
const VNET_GSO_TCP6: u8 = 4;
const VNET_GSO_UDP_L4: u8 = 5;
/// A flag in the type of GSO: TCP with ECN.
const VNET_GSO_ECN: u8 = 0x80;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;
/// VLAN tags of the packet's own that are looked behind.
const INNER_TAGS_MAX: usize = 2;
/// IPv6 extension headers that are looked behind.
const EXTENSIONS_MAX: usize = 8;

/// Packets as a NIC would send them, and their bytes: L2 without FCS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wire {
    pub(super) packets: u32,
    pub(super) bytes: u32,
}

/// A frame with our tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tagged {
    pub(super) tag: Tag,
    pub(super) stamp: Stamp,
    pub(super) wire: Wire,
    /// A hash over addresses, protocol and ports, or what there is of them. Fragments leave out the ports, which only the
    /// first one has: all fragmented datagrams between two addresses are one flow.
    pub(super) flow: u64,
}

/// Reads a frame with a vnet header of `vnet_header` bytes before it. `key` makes the flow hash unpredictable. `None`
/// when the frame doesn't carry our tag, or one that only we give.
pub(super) fn parse(bytes: &[u8], vnet_header: usize, key: u64) -> Option<Tagged> {
    let (vnet, frame) = bytes.split_at_checked(vnet_header)?;
    if be16(frame, TAG_OFFSET)? != TAG_ETHERTYPE || be16(frame, STAMP_OFFSET)? != TAG_ETHERTYPE {
        return None;
    }
    let tag = Tag::from_tci(be16(frame, TAG_OFFSET + 2)?);
    if tag.role == Role::Reply {
        return None;
    }
    let network = network(frame);
    Some(Tagged {
        tag,
        stamp: Stamp::from_tci(be16(frame, STAMP_OFFSET + 2)?),
        wire: wire(vnet, frame, network.as_ref()),
        flow: flow(frame, network.as_ref(), key),
    })
}

/// Where a packet's headers and its addresses are, as offsets into the frame.
pub(super) struct Network {
    pub(super) ipv6: bool,
    /// The IP header.
    pub(super) start: usize,
    addresses: Range<usize>,
    pub(super) protocol: u8,
    /// The transport header, where the frame is long enough for one.
    pub(super) transport: usize,
    fragment: bool,
    /// A fragment other than the first, which has no transport header.
    pub(super) later_fragment: bool,
}

/// Looks at a frame without its vnet header. `None` unless it is an IP packet.
pub(super) fn network(frame: &[u8]) -> Option<Network> {
    let mut offset = TAG_OFFSET + OURS_LENGTH;
    let mut ethertype = be16(frame, offset)?;
    for _ in 0..INNER_TAGS_MAX {
        if ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_SERVICE_VLAN {
            offset += VLAN_LENGTH;
            ethertype = be16(frame, offset)?;
        }
    }
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(frame, offset + 2),
        ETHERTYPE_IPV6 => ipv6(frame, offset + 2),
        _ => None,
    }
}

fn ipv4(frame: &[u8], start: usize) -> Option<Network> {
    let header = frame.get(start..start + 20)?;
    let fragment = be16(header, 6)?;
    Some(Network {
        ipv6: false,
        start,
        addresses: start + 12..start + 20,
        protocol: header[9],
        transport: start + usize::from(header[0] & 0x0f) * 4,
        // More fragments, or an offset.
        fragment: fragment & 0x3fff != 0,
        later_fragment: fragment & 0x1fff != 0,
    })
}

fn ipv6(frame: &[u8], start: usize) -> Option<Network> {
    let header = frame.get(start..start + 40)?;
    let mut protocol = header[6];
    let mut transport = start + 40;
    let mut fragment = false;
    let mut later_fragment = false;
    for _ in 0..EXTENSIONS_MAX {
        let length = match (i32::from(protocol), frame.get(transport + 1)) {
            (libc::IPPROTO_HOPOPTS | libc::IPPROTO_ROUTING | libc::IPPROTO_DSTOPTS, Some(&units)) => {
                8 + usize::from(units) * 8
            }
            (libc::IPPROTO_FRAGMENT, Some(_)) => {
                fragment = true;
                later_fragment = be16(frame, transport + 2).is_none_or(|field| field & 0xfff8 != 0);
                8
            }
            _ => break,
        };
        protocol = frame[transport];
        transport += length;
        if fragment {
            break;
        }
    }
    Some(Network {
        ipv6: true,
        start,
        addresses: start + 8..start + 40,
        protocol,
        transport,
        fragment,
        later_fragment,
    })
}

/// A super-packet is its headers once and the payload of all its segments.
fn wire(vnet: &[u8], frame: &[u8], network: Option<&Network>) -> Wire {
    let length = frame.len() - OURS_LENGTH;
    segments(vnet, frame, network).unwrap_or(Wire {
        packets: 1,
        bytes: length as u32,
    })
}

/// `None` for a frame that is one packet.
fn segments(vnet: &[u8], frame: &[u8], network: Option<&Network>) -> Option<Wire> {
    if vnet.len() < VNET_HEADER_MIN {
        return None;
    }
    // TUN's vnet header is in the machine's byte order unless asked otherwise.
    let field = |offset: usize| usize::from(u16::from_ne_bytes([vnet[offset], vnet[offset + 1]]));
    // Counted from the start of the frame, our tag included. (`hdr_len` is no substitute: it tells how much of the
    // packet was linear.)
    let transport = if vnet[0] & VNET_NEEDS_CSUM != 0 {
        field(6)
    } else {
        network?.transport
    };
    let transport_header = match vnet[1] & !VNET_GSO_ECN {
        VNET_GSO_TCP4 | VNET_GSO_TCP6 => usize::from(frame.get(transport + 12)? >> 4) * 4,
        VNET_GSO_UDP_L4 => 8,
        _ => return None,
    };
    let gso_size = field(4);
    let headers = transport + transport_header;
    let payload = frame.len().checked_sub(headers)?;
    if gso_size == 0 {
        return None;
    }
    let packets = payload.div_ceil(gso_size).max(1);
    let headers_on_wire = headers.checked_sub(OURS_LENGTH)?;
    Some(Wire {
        packets: packets as u32,
        bytes: (payload + packets * headers_on_wire) as u32,
    })
}

fn flow(frame: &[u8], network: Option<&Network>, key: u64) -> u64 {
    let Some(network) = network else {
        // The MAC addresses and, where the frame is long enough, its EtherType.
        let rest = frame.get(TAG_OFFSET + OURS_LENGTH..TAG_OFFSET + OURS_LENGTH + 2);
        return hash(rest.unwrap_or_default(), hash(&frame[..TAG_OFFSET], key));
    };
    let mut value = hash(
        &frame[network.addresses.clone()],
        key ^ u64::from(network.protocol),
    );
    if !network.fragment && has_ports(network.protocol) {
        let ports = frame.get(network.transport..network.transport + 4);
        value = hash(ports.unwrap_or_default(), value);
    }
    value
}

fn has_ports(protocol: u8) -> bool {
    matches!(
        i32::from(protocol),
        libc::IPPROTO_TCP
            | libc::IPPROTO_UDP
            | libc::IPPROTO_DCCP
            | libc::IPPROTO_SCTP
            | libc::IPPROTO_UDPLITE
    )
}

/// A multiplicative hash; it needs to be quick and well spread, no more: flows that collide are kept in order together.
fn hash(bytes: &[u8], seed: u64) -> u64 {
    bytes
        .chunks(8)
        .fold(mix(seed, bytes.len() as u64), |value, chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            mix(value, u64::from_ne_bytes(word))
        })
}

/// Folds `word` into `value`.
pub(super) fn mix(value: u64, word: u64) -> u64 {
    let product = u128::from(value ^ 0x9e37_79b9_7f4a_7c15) * u128::from(word ^ 0xd1b5_4a32_d192_ed03);
    (product as u64) ^ (product >> 64) as u64
}

fn be16(bytes: &[u8], offset: usize) -> Option<u16> {
    let field = bytes.get(offset..offset + 2)?;
    Some(u16::from_be_bytes([field[0], field[1]]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sabot_abi::{DIRECTION_EGRESS, DIRECTION_INGRESS, Role};

    use super::*;
    use crate::delayline::test_frames::{FrameSpec, HEADER, Transport};

    const VNET: usize = 12;

    fn parsed(spec: &FrameSpec) -> Tagged {
        parse(&spec.build(VNET), VNET, 7).expect("the frame is tagged")
    }

    #[test]
    fn reads_slot_and_direction() {
        for direction in [DIRECTION_EGRESS, DIRECTION_INGRESS] {
            let tag = Tag {
                slot: 4095,
                direction,
                role: Role::Chosen,
            };
            let spec = FrameSpec {
                tag,
                ..FrameSpec::default()
            };
            assert_eq!(parsed(&spec).tag, tag);
        }
    }

    #[test]
    fn a_frame_without_our_tag_is_not_ours() {
        let mut bytes = FrameSpec::default().build(VNET);
        bytes[VNET + 12] = 0x86;
        assert_eq!(parse(&bytes, VNET, 7), None);
        let answer = Tag {
            role: Role::Reply,
            ..FrameSpec::default().tag
        };
        let answer = FrameSpec {
            tag: answer,
            ..FrameSpec::default()
        };
        assert_eq!(parse(&answer.build(VNET), VNET, 7), None);
        assert_eq!(parse(&bytes[..VNET + 13], VNET, 7), None);
        assert_eq!(parse(&[], VNET, 7), None);
    }

    #[test]
    fn counts_plain_frames_without_the_tag() {
        let spec = FrameSpec {
            payload: 100,
            ..FrameSpec::default()
        };
        let expected = Wire {
            packets: 1,
            bytes: 14 + 20 + 8 + 100,
        };
        assert_eq!(parsed(&spec).wire, expected);
    }

    #[test]
    fn counts_the_segments_of_super_packets() {
        for (transport, ipv6, headers) in [
            (Transport::Tcp, false, 14 + 20 + 32),
            (Transport::Tcp, true, 14 + 40 + 32),
            (Transport::Udp, false, 14 + 20 + 8),
            (Transport::Udp, true, 14 + 40 + 8),
        ] {
            for (payload, segments) in [(1, 1), (1448, 1), (1449, 2), (60_000, 42), (0, 1)] {
                let spec = FrameSpec {
                    transport,
                    ipv6,
                    payload,
                    gso_size: 1448,
                    ..FrameSpec::default()
                };
                let expected = Wire {
                    packets: segments,
                    bytes: payload as u32 + segments * headers,
                };
                assert_eq!(
                    parsed(&spec).wire,
                    expected,
                    "{transport:?} ipv6={ipv6} payload={payload}"
                );
            }
        }
    }

    #[test]
    fn a_super_packet_whose_checksum_is_done_is_counted_by_its_own_headers() {
        let spec = FrameSpec {
            transport: Transport::Tcp,
            payload: 2000,
            gso_size: 1000,
            ..FrameSpec::default()
        };
        let mut bytes = spec.build(VNET);
        bytes[0] = 0;
        bytes[6..8].fill(0);
        let wire = parse(&bytes, VNET, 7).expect("the frame is tagged").wire;
        assert_eq!(wire.packets, 2);
    }

    #[test]
    fn flows_differ_by_every_part_of_their_identity() {
        let base = FrameSpec {
            transport: Transport::Udp,
            ..FrameSpec::default()
        };
        let variants = [
            FrameSpec {
                transport: Transport::Tcp,
                ..base
            },
            FrameSpec {
                source_port: 1,
                ..base
            },
            FrameSpec {
                destination_port: 1,
                ..base
            },
            FrameSpec { host: 77, ..base },
            FrameSpec { ipv6: true, ..base },
        ];
        for variant in variants {
            assert_ne!(parsed(&base).flow, parsed(&variant).flow, "{variant:?}");
        }
        assert_eq!(
            parsed(&base).flow,
            parsed(&FrameSpec { payload: 999, ..base }).flow
        );
    }

    #[test]
    fn fragments_of_a_datagram_are_one_flow() {
        let mut first = FrameSpec::default().build(VNET);
        let mut second = FrameSpec {
            source_port: 9,
            destination_port: 8,
            ..FrameSpec::default()
        }
        .build(VNET);
        let fragment_field = VNET + HEADER + 6;
        first[fragment_field] = 0x20;
        second[fragment_field + 1] = 0xb9;
        assert_eq!(
            parse(&first, VNET, 7).map(|t| t.flow),
            parse(&second, VNET, 7).map(|t| t.flow)
        );
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..200, vnet in 0usize..14) {
            let _ = parse(&bytes, vnet, 7);
            let mut frame = FrameSpec { ipv6: true, payload: 60, gso_size: 10, ..FrameSpec::default() }.build(VNET);
            for (index, byte) in bytes.iter().enumerate().filter(|(_, byte)| **byte > 200) {
                if index < frame.len() && !(VNET + 12..VNET + 20).contains(&index) {
                    frame[index] = *byte;
                }
            }
            frame.truncate(cut.max(VNET + 20));
            let length = frame.len();
            let tagged = parse(&frame, VNET, 7).expect("the tag was left alone");
            prop_assert!(tagged.wire.packets >= 1);
            prop_assert!(tagged.wire.bytes as usize + OURS_LENGTH + VNET >= length);
        }
    }
}

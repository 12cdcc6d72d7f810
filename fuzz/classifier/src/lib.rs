//! The packet parser and the matcher of the fault programs, built for user space as they are, and a plain model of both.

#[path = "../../../ebpf/programs/src/fault/filter.rs"]
pub mod filter;
#[path = "../../../ebpf/programs/src/fault/headers.rs"]
pub mod headers;
#[path = "../../../ebpf/programs/src/fault/packet.rs"]
pub mod packet;
#[path = "../../../ebpf/programs/src/fault/peers.rs"]
pub mod peers;
#[path = "../../../ebpf/programs/src/fault/ports.rs"]
pub mod ports;

pub mod model;
pub mod rule;

use arbitrary::{Arbitrary, Unstructured};
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::programs::TcContext;
use sabot_abi::{TARGET_MAC_HEADER, Tally};

use self::model::{Seen, Unread};
use self::packet::{Packet, ParseError};

/// The context as the helpers want it.
fn raw(ctx: &TcContext) -> *mut __sk_buff {
    ctx.as_ptr()
}

/// A packet as the kernel shows it to a program.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Its device's frames begin with a MAC header.
    pub has_mac_header: bool,
    /// As it stands in the frame, for devices without one.
    pub ethertype: [u8; 2],
    pub gso_size: u16,
    pub frame: Vec<u8>,
}

/// All that is left is the frame, byte for byte: derived, every byte would come behind one that says that there is one, and
/// neither words nor numbers of a frame would stand in an input.
impl<'a> Arbitrary<'a> for Shown {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(Self {
            has_mac_header: u.arbitrary()?,
            ethertype: u.arbitrary()?,
            gso_size: u.arbitrary()?,
            frame: u.bytes(u.len())?.to_vec(),
        })
    }
}

/// Parses by the programs' own code; the packet is valid until the next one. So many bytes of its beginning, or all there are,
/// lie in one piece.
///
/// # Errors
///
/// No fault names it, or it breaks its format.
pub fn parse(shown: &Shown, first_piece: usize) -> Result<&'static Packet, Unread> {
    let mut skb = __sk_buff {
        len: u32::try_from(shown.frame.len()).expect("a frame is short"),
        gso_size: u32::from(shown.gso_size),
        protocol: u32::from(u16::from_ne_bytes(shown.ethertype)),
        first_piece: first_piece.min(shown.frame.len()),
        frame: shown.frame.clone(),
    };
    let ctx = TcContext::new(&raw mut skb);
    let flags = if shown.has_mac_header {
        TARGET_MAC_HEADER
    } else {
        0
    };
    Packet::parse(&ctx, flags).map_err(|error| match error {
        ParseError::NotIp => Unread::NotIp,
        ParseError::Malformed => Unread::Malformed,
    })
}

/// What the programs have read, in the model's words.
pub fn seen(packet: &Packet) -> Seen {
    Seen {
        source: packet.source,
        destination: packet.destination,
        protocol: packet.protocol,
        ports: packet
            .has_ports
            .then_some((packet.source_port, packet.destination_port)),
        tcp_flags: packet.tcp_flags,
        icmp: packet.icmp,
        dscp: packet.dscp,
        is_fragment: packet.fragment,
        payload: packet.payload,
        end: packet.end,
        lengths: (packet.ip_length, packet.last_ip_length),
        wire: Tally {
            packets: packet.wire.packets,
            bytes: packet.wire.bytes,
        },
    }
}

//! "Destination unreachable".

use sabot_core::action::RejectCode;

use super::End;
use super::packet::{Packet, Sum};

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_ICMPV6: u8 = 58;
const TYPE_UNREACHABLE: u8 = 3;
const TYPE_UNREACHABLE_V6: u8 = 1;
const HEADER: usize = 8;
/// Bytes of an IPv4 datagram that every host takes, and of an IPv6 packet that every link takes, without the headers.
const QUOTE_MAX: usize = 576 - 20 - HEADER;
const QUOTE_MAX_V6: usize = 1280 - 40 - HEADER;
/// The precedence of "internetwork control", as routers give it to errors (RFC 1812).
const CLASS: u8 = 0xc0;

pub(super) fn unreachable(packet: &Packet<'_>, code: RejectCode, out: &mut Vec<u8>) -> bool {
    if is_error(packet) {
        return false;
    }
    let (protocol, kind, code, class, quote_max) = if packet.is_ipv6() {
        let code = code_v6(code);
        (PROTOCOL_ICMPV6, TYPE_UNREACHABLE_V6, code, 0, QUOTE_MAX_V6)
    } else {
        (PROTOCOL_ICMP, TYPE_UNREACHABLE, code_v4(code), CLASS, QUOTE_MAX)
    };
    let quote = &packet.network[..packet.network.len().min(quote_max)];
    packet.write_ethernet(End::Sender, out);
    let pseudo = packet.write_network(End::Sender, protocol, class, HEADER + quote.len(), out);
    // ICMP's checksum is over the message alone.
    let mut sum = if packet.is_ipv6() { pseudo } else { Sum::default() };
    let start = out.len();
    out.extend_from_slice(&[kind, code, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(quote);
    sum.add(&out[start..]);
    out[start + 2..start + 4].copy_from_slice(&sum.checksum());
    true
}

/// Errors aren't answered by errors; what may be one isn't either.
fn is_error(packet: &Packet<'_>) -> bool {
    let kind = packet.transport.first().copied();
    match (packet.is_ipv6(), packet.protocol) {
        // Unreachable, source quench, redirect, time exceeded, parameter problem.
        (false, PROTOCOL_ICMP) => kind.is_none_or(|kind| matches!(kind, 3 | 4 | 5 | 11 | 12)),
        // All errors, and the redirect.
        (true, PROTOCOL_ICMPV6) => kind.is_none_or(|kind| kind < 128 || kind == 137),
        _ => false,
    }
}

fn code_v4(code: RejectCode) -> u8 {
    match code {
        RejectCode::NetUnreachable => 0,
        RejectCode::HostUnreachable => 1,
        RejectCode::PortUnreachable => 3,
        RejectCode::AdminProhibited => 13,
    }
}

/// No route, administratively prohibited, address unreachable, port unreachable.
fn code_v6(code: RejectCode) -> u8 {
    match code {
        RejectCode::NetUnreachable => 0,
        RejectCode::AdminProhibited => 1,
        RejectCode::HostUnreachable => 3,
        RejectCode::PortUnreachable => 4,
    }
}

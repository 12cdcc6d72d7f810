//! Resets that a connection's ends accept (RFC 9293, RFC 5961): their sequence number is the one that the end waits for.

use super::End;
use super::packet::Packet;

const PROTOCOL_TCP: u8 = 6;
const HEADER: usize = 20;
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// What a segment says.
struct Segment {
    ports: [u8; 4],
    sequence: u32,
    acknowledged: u32,
    flags: u8,
    /// What it takes of the sequence space.
    length: u32,
}

pub(super) fn reset(packet: &Packet<'_>, end: End, out: &mut Vec<u8>) -> bool {
    let Some(segment) = Segment::parse(packet) else {
        return false;
    };
    let Some((sequence, acknowledged, flags)) = segment.answer(end) else {
        return false;
    };
    let [a, b, c, d] = segment.ports;
    let ports = match end {
        End::Sender => [c, d, a, b],
        End::Receiver => [a, b, c, d],
    };
    packet.write_ethernet(end, out);
    let mut sum = packet.write_network(end, PROTOCOL_TCP, 0, HEADER, out);
    let start = out.len();
    out.extend_from_slice(&ports);
    out.extend_from_slice(&sequence.to_be_bytes());
    out.extend_from_slice(&acknowledged.to_be_bytes());
    out.extend_from_slice(&[(HEADER as u8 / 4) << 4, flags, 0, 0, 0, 0, 0, 0]);
    sum.add(&out[start..]);
    out[start + 16..start + 18].copy_from_slice(&sum.checksum());
    true
}

impl Segment {
    fn parse(packet: &Packet<'_>) -> Option<Self> {
        if packet.protocol != PROTOCOL_TCP {
            return None;
        }
        let header = packet.transport.get(..HEADER)?;
        let header_length = usize::from(header[12] >> 4) * 4;
        if header_length < HEADER {
            return None;
        }
        let payload = packet.transport.len().checked_sub(header_length)?;
        let flags = header[13];
        let word =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        Some(Self {
            ports: [header[0], header[1], header[2], header[3]],
            sequence: word(4),
            acknowledged: word(8),
            flags,
            length: payload as u32 + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0),
        })
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Sequence number, acknowledgement and flags of the reset. A reset gets none, and neither does who is yet to learn of
    /// the connection.
    fn answer(&self, end: End) -> Option<(u32, u32, u8)> {
        if self.has(RST) {
            return None;
        }
        match end {
            End::Sender if self.has(ACK) => Some((self.acknowledged, 0, RST)),
            End::Sender => Some((0, self.sequence.wrapping_add(self.length), RST | ACK)),
            End::Receiver if self.has(ACK) => Some((self.sequence, self.acknowledged, RST | ACK)),
            End::Receiver if self.has(SYN) => None,
            End::Receiver => Some((self.sequence, 0, RST)),
        }
    }
}

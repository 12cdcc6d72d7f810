//! Answers to packets: ICMP and ICMPv6 errors, and TCP resets. Pure functions over the bytes of a frame, which trust no
//! length in it.
//!
//! A frame is one that carries our tag, without a vnet header; so is the answer, whose tag says which way it goes: towards
//! the packet's sender against the packet's direction, towards its receiver with it. Of a super-packet only the headers are
//! looked at. Nothing is answered that names no single host as its sender and its receiver, and no later fragment.

mod icmp;
mod packet;
mod tcp;

#[cfg(test)]
mod tests;

use sabot_abi::DIRECTION_EGRESS;
use sabot_core::action::{RejectCode, ResetTo};

use self::packet::Packet;

/// One of a packet's two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Sender,
    Receiver,
}

impl End {
    /// The ends, of a packet in this direction, that a reset is for.
    pub(super) fn chosen(to: ResetTo, direction: u32) -> [Option<Self>; 2] {
        let (target, peer) = if direction == DIRECTION_EGRESS {
            (Self::Sender, Self::Receiver)
        } else {
            (Self::Receiver, Self::Sender)
        };
        match to {
            ResetTo::Target => [Some(target), None],
            ResetTo::Peer => [Some(peer), None],
            ResetTo::Both => [Some(target), Some(peer)],
        }
    }
}

/// Appends to `out` the error that tells the packet's sender that it can't be delivered (RFC 792, RFC 4443). False, with
/// nothing appended, when none is in order, as in answer to another error.
pub(super) fn unreachable(frame: &[u8], code: RejectCode, out: &mut Vec<u8>) -> bool {
    Packet::parse(frame).is_some_and(|packet| icmp::unreachable(&packet, code, out))
}

/// Appends to `out` the reset that ends a TCP packet's connection for one of its ends. False, with nothing appended, when
/// there is no connection to end there.
pub(super) fn reset(frame: &[u8], end: End, out: &mut Vec<u8>) -> bool {
    Packet::parse(frame).is_some_and(|packet| tcp::reset(&packet, end, out))
}

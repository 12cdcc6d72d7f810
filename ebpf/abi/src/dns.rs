//! Copies of the DNS answers that arrive at targets.

use crate::{assert_layout, pod};

/// UDP datagrams from this port are taken for DNS answers.
pub const DNS_PORT: u16 = 53;
/// As much of an answer as is copied: more than a datagram holds that isn't a fragment on a link of 1,500 bytes. A power of
/// two, for the verifier.
pub const DNS_ANSWER_ROOM: usize = 2048;

/// The payload of one datagram that arrived from [`DNS_PORT`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DnsAnswer {
    /// `CLOCK_BOOTTIME`, ns.
    pub time: u64,
    /// The target that it arrived at.
    pub target: u32,
    /// Of the payload, in bytes; where it is more than [`DNS_ANSWER_ROOM`] the rest was left out.
    pub length: u32,
    /// What lies behind `length` has no meaning.
    pub payload: [u8; DNS_ANSWER_ROOM],
}
assert_layout!(DnsAnswer, size = 16 + DNS_ANSWER_ROOM, align = 8);

impl DnsAnswer {
    /// What was copied of the payload.
    pub fn payload(&self) -> &[u8] {
        let length = (self.length as usize).min(DNS_ANSWER_ROOM);
        &self.payload[..length]
    }

    /// A part of the payload was left out.
    pub fn is_cut(&self) -> bool {
        self.length as usize > DNS_ANSWER_ROOM
    }
}

pod!(DnsAnswer);

//! What travels with a packet that is away from its path, in a VLAN tag's 16 bits.

use crate::{DIRECTION_EGRESS, DIRECTION_INGRESS};

/// The EtherType of our tag (802.1Q: the only one that keeps super-packets whole through a TAP).
pub const TAG_ETHERTYPE: u16 = 0x8100;
const INGRESS_BIT: u16 = 1 << 15;

/// The slot that sent a packet away and the direction in which it goes on afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    pub slot: u32,
    pub direction: u32,
}

impl Tag {
    #[inline(always)]
    pub const fn from_tci(tci: u16) -> Self {
        let direction = if tci & INGRESS_BIT != 0 {
            DIRECTION_INGRESS
        } else {
            DIRECTION_EGRESS
        };
        Self {
            slot: (tci & !INGRESS_BIT) as u32,
            direction,
        }
    }

    #[inline(always)]
    pub const fn tci(self) -> u16 {
        let direction = if self.direction == DIRECTION_INGRESS {
            INGRESS_BIT
        } else {
            0
        };
        (self.slot as u16 & !INGRESS_BIT) | direction
    }
}

const _: () = assert!(crate::MAX_SLOTS <= INGRESS_BIT as u32);
const _: () = {
    let tag = Tag {
        slot: 4095,
        direction: DIRECTION_INGRESS,
    };
    let back = Tag::from_tci(tag.tci());
    assert!(back.slot == tag.slot && back.direction == tag.direction);
};

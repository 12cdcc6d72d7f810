//! What travels with a packet that is away from its path, in a VLAN tag's 16 bits.

use crate::{DIRECTION_EGRESS, DIRECTION_INGRESS};

/// The EtherType of our tag (802.1Q: the only one that keeps super-packets whole through a TAP).
pub const TAG_ETHERTYPE: u16 = 0x8100;
const SLOT_BITS: u32 = 12;
const SLOT_MASK: u16 = (1 << SLOT_BITS) - 1;
const REPLY_BIT: u16 = 1 << 12;
const CHOSEN_BIT: u16 = 1 << 13;
const COPY_BIT: u16 = 1 << 14;
const INGRESS_BIT: u16 = 1 << 15;

/// What a packet that is away is to its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Itself, and the slot's choice didn't fall on it.
    Plain,
    /// Itself, and chosen. On the way through the segmenter: the slot names only some of the super-packet's wire packets,
    /// has counted none of them, and looks at each when it is back.
    Chosen,
    /// A clone of a packet that went on.
    Copy,
    /// Made by the delay line in answer to a packet.
    Reply,
}

/// The slot that sent a packet away, what it is, and the direction in which it goes on afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    pub slot: u32,
    pub direction: u32,
    pub role: Role,
}

impl Tag {
    #[inline(always)]
    pub const fn from_tci(tci: u16) -> Self {
        let direction = if tci & INGRESS_BIT != 0 {
            DIRECTION_INGRESS
        } else {
            DIRECTION_EGRESS
        };
        let role = if tci & REPLY_BIT != 0 {
            Role::Reply
        } else if tci & COPY_BIT != 0 {
            Role::Copy
        } else if tci & CHOSEN_BIT != 0 {
            Role::Chosen
        } else {
            Role::Plain
        };
        Self {
            slot: (tci & SLOT_MASK) as u32,
            direction,
            role,
        }
    }

    #[inline(always)]
    pub const fn tci(self) -> u16 {
        let direction = if self.direction == DIRECTION_INGRESS {
            INGRESS_BIT
        } else {
            0
        };
        let role = match self.role {
            Role::Plain => 0,
            Role::Chosen => CHOSEN_BIT,
            Role::Copy => COPY_BIT,
            Role::Reply => REPLY_BIT,
        };
        (self.slot as u16 & SLOT_MASK) | direction | role
    }
}

const _: () = assert!(crate::MAX_SLOTS <= 1 << SLOT_BITS);
const _: () = {
    let tag = Tag {
        slot: 4095,
        direction: DIRECTION_INGRESS,
        role: Role::Reply,
    };
    let back = Tag::from_tci(tag.tci());
    assert!(back.slot == tag.slot && back.direction == tag.direction && matches!(back.role, Role::Reply));
};

//! What travels with a packet that is away from its path, in the 16 bits of a VLAN tag each.

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

/// Log2 of the ns that a stamp counts in.
const STAMP_SHIFT: u32 = 10;
/// Tells a stamp from none.
const STAMPED: u16 = 1;
/// A stamp counts so many of its units, and then begins anew: some 33 ms.
const STAMP_CYCLE: u64 = 1 << 15;

/// When a packet was sent to the delay line, whose thread learns of it only once it runs. Behind our tag stands a second one
/// of the same EtherType with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(u16);

impl Stamp {
    /// Of a packet whose time doesn't matter.
    pub const NONE: Self = Self(0);

    /// `now` in ns.
    #[inline(always)]
    pub const fn at(now: u64) -> Self {
        Self(((now >> STAMP_SHIFT) as u16) << 1 | STAMPED)
    }

    #[inline(always)]
    pub const fn from_tci(tci: u16) -> Self {
        Self(tci)
    }

    #[inline(always)]
    pub const fn tci(self) -> u16 {
        self.0
    }

    /// When it was made, seen from `now`, by the same clock in ns: never earlier than it was, and no later than now. What is
    /// older than a cycle counts as younger by whole ones.
    pub const fn time(self, now: u64) -> u64 {
        if self.0 & STAMPED == 0 {
            return now;
        }
        let unit = now >> STAMP_SHIFT;
        let age = unit.wrapping_sub((self.0 >> 1) as u64) % STAMP_CYCLE;
        let end = (unit.saturating_sub(age) + 1) << STAMP_SHIFT;
        if end < now { end } else { now }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_says_when_it_was_made_and_never_less() {
        for made in [0, 1, 1023, 1024, 33_554_431, 33_554_432, 86_400_000_000_123] {
            for age in [0, 1, 500, 1024, 70_000, 20_000_000, 33_550_000] {
                let time = Stamp::at(made).time(made + age);
                assert!((made..=made + 1024).contains(&time), "{made} after {age}: {time}");
                assert!(time <= made + age, "{made} after {age}: {time} is still to come");
            }
        }
    }

    #[test]
    fn one_that_is_older_than_a_cycle_counts_as_younger() {
        let time = Stamp::at(1_000_000).time(101_000_000);
        assert!((67_446_400..=101_000_000).contains(&time), "{time}");
    }

    #[test]
    fn without_one_it_is_now() {
        assert_eq!(Stamp::NONE.time(123_456_789), 123_456_789);
        assert_eq!(Stamp::from_tci(Stamp::at(5_000).tci()), Stamp::at(5_000));
    }
}

//! Which of a target's slots are worth a visit.
//!
//! A visit costs a look-up in the peers. On a target with many slots, most of which have other peers, an index says at once
//! which of them a packet may concern.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use sabot_abi::{DIRECTION_EGRESS, MAX_TARGETS, PeerIndex, TARGET_NO_INDEX, Target, peer_halves};

use crate::packet::Packet;

/// By the number that a target's body has.
#[map]
static PEER_INDEXES: HashMap<u32, PeerIndex> = HashMap::with_max_entries(2 * MAX_TARGETS, BPF_F_NO_PREALLOC);

const EVERY: u64 = u64::MAX;

/// The places in the list, from `first` on, of the slots that may name the packet that was parsed last on this CPU.
#[inline(always)]
pub fn candidates(target: &Target, direction: u32, first: u32) -> u64 {
    let named = if target.index == TARGET_NO_INDEX {
        EVERY
    } else {
        fault_candidates(target.index, direction)
    };
    named & below(target.slot_count) & !below(first)
}

/// The places before this one.
#[inline(always)]
fn below(place: u32) -> u64 {
    if place >= u64::BITS {
        EVERY
    } else {
        (1 << place) - 1
    }
}

/// A global function in the verifier's sense, which follows it once and goes on from any number.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn fault_candidates(index: u32, direction: u32) -> u64 {
    // SAFETY: an entry's words are aligned, and outlive the program's run as a counter does.
    let (Some(packet), Some(index)) = (Packet::current(), unsafe { PEER_INDEXES.get(index) }) else {
        return EVERY;
    };
    let other_end = if direction == DIRECTION_EGRESS {
        &packet.destination
    } else {
        &packet.source
    };
    index.slots(peer_halves(*other_end))
}

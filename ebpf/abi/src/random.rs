//! Randomness that can be repeated: the n-th draw of a stream follows from the stream's key and n alone.
//!
//! What a draw decides: its low 32 bits are compared with a share; its high 32 bits with the probability of a change of
//! state. What else has to be drawn for a packet (the byte to change) comes from the stream that has the draw as its key.

use crate::{assert_layout, pod};

/// Steele, Lea and Flood's SplitMix64: the step between states, and what is made of a state.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Every bit of the result depends on every bit of the argument.
#[inline(always)]
pub const fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The draw `n` (from 0 on) of the stream `key`: what SplitMix64 seeded with it gives after `n` others.
#[inline(always)]
pub const fn random(key: u64, n: u64) -> u64 {
    mix(key.wrapping_add(STEP.wrapping_mul(n.wrapping_add(1))))
}

/// The key of the stream of a fault's seed on a target in a direction (`DIRECTION_*`).
#[inline(always)]
pub const fn stream_key(seed: u64, identity: u64, direction: u32) -> u64 {
    mix(mix(seed ^ identity).wrapping_add(direction as u64))
}

/// How far a slot has come with its decisions on a target in a direction. All CPUs share it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// Packets decided so far, times two, plus [`STREAM_BAD`].
    pub word: u64,
    /// No stream before it had the same, so that nothing that was remembered for those is taken for this one's.
    pub id: u64,
}
assert_layout!(Stream, size = 16, align = 8);

/// The chain is in its bad state.
pub const STREAM_BAD: u64 = 1;
/// What one decided packet adds to a stream's word.
pub const STREAM_STEP: u64 = 2;

pod!(Stream);

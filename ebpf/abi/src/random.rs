//! Randomness that can be repeated: the n-th draw of a stream follows from the stream's key and n alone.

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

//! Rules by slot.

use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use sabot_abi::{MAX_SLOTS, Rule, SLOT_FREE};

use crate::filter;
use crate::packet::Packet;

/// The fractional bits of a ramp's factors.
const FACTOR_BITS: u32 = 16;
const RAMP_SHIFT: u32 = 10;
/// How often a packet looks whether a rule names it, while things go.
const LOOKS: usize = 2;

/// By slot: which of its two bodies is valid.
#[map]
static SLOT_STATE: Array<u32> = Array::with_max_entries(MAX_SLOTS, 0);
#[map]
static RULES: Array<Rule> = Array::with_max_entries(2 * MAX_SLOTS, 0);

/// Counted on before peers or ports that packets may look for go, and after what takes their place has come.
#[map]
static REMOVALS: Array<u64> = Array::with_max_entries(1, 0);

#[inline(always)]
pub fn get(slot: u32) -> Option<&'static Rule> {
    let state = *SLOT_STATE.get(slot)?;
    if state == SLOT_FREE {
        return None;
    }
    RULES.get(state - 1)
}

/// The slot's rule, if that names the packet, whatever its length.
///
/// What only a former rule had, its peers and its ports, goes as soon as there is another one. A packet that finds none of it
/// while that goes looks once more, so that it meets what there was before or what there is now, and nothing in between.
#[inline(always)]
pub fn naming(slot: u32, packet: &Packet, direction: u32) -> Option<&'static Rule> {
    let mut before = removals();
    for _ in 0..LOOKS {
        let rule = get(slot)?;
        if filter::matches(rule, packet, direction) {
            return Some(rule);
        }
        let now = removals();
        if now == before {
            return None;
        }
        before = now;
    }
    None
}

/// How often the daemon has begun to take something away.
#[inline(always)]
fn removals() -> u64 {
    // SAFETY: the pointer is the entry's, which the daemon changes as one at any time.
    REMOVALS
        .get_ptr(0)
        .map_or(0, |count| unsafe { count.read_volatile() })
}

/// The rule's time has come and isn't over, and its pulse is on.
#[inline(always)]
pub fn in_force(rule: &Rule, now: u64) -> bool {
    if now < rule.starts_at || now >= rule.expires_at {
        return false;
    }
    rule.pulse_period == 0 || (now - rule.starts_at) % rule.pulse_period < rule.pulse_on
}

/// A share as far as the rule's ramp has come. The share is `1 << 32` at most, the ramp's factors fit 32 bits, so that
/// their product fits 64.
#[inline(always)]
pub fn scaled(rule: &Rule, share: u64, now: u64) -> u64 {
    if rule.ramp_over == 0 {
        return share;
    }
    let (from, to) = (rule.ramp_from as u64, rule.ramp_to as u64);
    let elapsed = now.saturating_sub(rule.starts_at);
    let factor = if elapsed >= rule.ramp_over {
        to
    } else {
        // In microseconds or so, for the products to fit.
        let (done, all) = (elapsed >> RAMP_SHIFT, (rule.ramp_over >> RAMP_SHIFT).max(1));
        if to >= from {
            from + (to - from) * done / all
        } else {
            from - (from - to) * done / all
        }
    };
    (share * factor) >> FACTOR_BITS
}

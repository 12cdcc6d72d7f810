//! Rules by slot.

use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use sabot_abi::{MAX_SLOTS, Rule, SLOT_FREE};

/// The fractional bits of a ramp's factors.
const FACTOR_BITS: u32 = 16;
const RAMP_SHIFT: u32 = 10;

/// By slot: which of its two bodies is valid.
#[map]
static SLOT_STATE: Array<u32> = Array::with_max_entries(MAX_SLOTS, 0);
#[map]
static RULES: Array<Rule> = Array::with_max_entries(2 * MAX_SLOTS, 0);

#[inline(always)]
pub fn get(slot: u32) -> Option<&'static Rule> {
    let state = *SLOT_STATE.get(slot)?;
    if state == SLOT_FREE {
        return None;
    }
    RULES.get(state - 1)
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

//! Rules by slot.

use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use sabot_abi::{MAX_SLOTS, Rule, SLOT_FREE};

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

/// The rule's time has come and isn't over.
#[inline(always)]
pub fn in_force(rule: &Rule, now: u64) -> bool {
    now >= rule.starts_at && now < rule.expires_at
}

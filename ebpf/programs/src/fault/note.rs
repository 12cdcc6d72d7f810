//! A note in a packet that is about to be dropped, for the program that counts what the node drops.
//!
//! The kernel frees the packet right after the verdict, and leaves the words alone that a classifier may use, whether it is
//! told to drop it or finds no device to send it to.

use aya_ebpf::Global;
use aya_ebpf::programs::TcContext;
use sabot_abi::{DROP_NOTE, DROP_NOTE_BOUND, DROP_NOTE_INCIDENT, drop_note_kind};

use crate::packet::Packet;
use crate::raw;

/// Drawn by the daemon at start, without the bits of the kinds.
#[unsafe(no_mangle)]
static DROP_MARK: Global<u32> = Global::new(0);

/// A fault drops the packet that was parsed last, as the wire packets that it is counted as; `is_lost` where that isn't what it
/// decided, but for want of room.
#[inline(always)]
pub fn of_fault(ctx: &TcContext, direction: u32, is_lost: bool) {
    let Some(packet) = Packet::current() else {
        return;
    };
    let lost = if is_lost { DROP_NOTE_BOUND } else { 0 };
    let skb = raw(ctx);
    // SAFETY: the context is valid while the program runs.
    unsafe {
        (*skb).cb[DROP_NOTE] = DROP_MARK.load() | drop_note_kind(direction) | lost;
        (*skb).cb[DROP_NOTE + 1] = packet.wire.packets as u32;
        (*skb).cb[DROP_NOTE + 2] = packet.wire.bytes as u32;
    }
}

/// What is dropped is counted as an incident.
#[inline(always)]
pub fn of_incident(ctx: &TcContext) {
    // SAFETY: as above.
    unsafe { (*raw(ctx)).cb[DROP_NOTE] = DROP_MARK.load() | DROP_NOTE_INCIDENT };
}

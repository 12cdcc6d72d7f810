//! Copies of the DNS answers that arrive at a target, from which the daemon learns the addresses of names.
//!
//! Only whole datagrams over UDP are watched. An answer is copied when it arrives, before any fault decides about it, so that
//! the addresses are known as early as can be.

use aya_ebpf::helpers::bpf_skb_load_bytes;
use aya_ebpf::macros::map;
use aya_ebpf::maps::RingBuf;
use aya_ebpf::programs::TcContext;
use sabot_abi::{DNS_ANSWER_ROOM, DNS_PORT, DnsAnswer, INCIDENT_DNS_LOST, TARGET_WATCH_DNS, Target};

use crate::counters::incident;
use crate::packet::{Packet, UDP};
use crate::{clock, raw, targets};

/// Room for some 500 answers.
#[map]
static DNS_ANSWERS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// The packet is an answer that the daemon wants to see.
#[inline(always)]
pub fn is_watched(target: &Target, packet: &Packet) -> bool {
    target.flags & TARGET_WATCH_DNS != 0
        && packet.protocol == UDP
        && packet.source_port == DNS_PORT
        && packet.payload < packet.end
}

/// Hands the packet's payload to the daemon.
#[inline(never)]
pub fn copy(ctx: &TcContext, packet: &Packet) {
    if packet.fragment || packet.super_packet {
        incident(INCIDENT_DNS_LOST);
        return;
    }
    let Some(mut entry) = DNS_ANSWERS.reserve::<DnsAnswer>(0) else {
        incident(INCIDENT_DNS_LOST);
        return;
    };
    let length = packet.end - packet.payload;
    let answer = entry.as_mut_ptr();
    // SAFETY: the entry is as large as the answer, aligned for it, and ours until it is submitted.
    unsafe {
        (&raw mut (*answer).time).write(clock::now());
        (&raw mut (*answer).target).write(targets::id_of(ctx));
        (&raw mut (*answer).length).write(length);
    }
    // SAFETY: as above; what the helper writes fits into the payload's array.
    let copied = unsafe { load(ctx, packet.payload, (&raw mut (*answer).payload).cast(), length) };
    if copied {
        entry.submit(0);
    } else {
        entry.discard(0);
        incident(INCIDENT_DNS_LOST);
    }
}

/// Copies as much of `length` bytes as an answer has room for.
///
/// # Safety
/// [`DNS_ANSWER_ROOM`] bytes are writable at `to`, and `length` isn't 0.
#[inline(always)]
unsafe fn load(ctx: &TcContext, offset: u32, to: *mut core::ffi::c_void, length: u32) -> bool {
    const ROOM: u32 = DNS_ANSWER_ROOM as u32;
    const _: () = assert!(ROOM.is_power_of_two());
    let length = if length >= ROOM {
        ROOM
    } else {
        // The same number. The compiler knows that too, and must not drop what tells the verifier both bounds.
        (core::hint::black_box(length - 1) & (ROOM - 1)) + 1
    };
    // SAFETY: the context is valid while the program runs, and the destination has room by this function's contract.
    unsafe { bpf_skb_load_bytes(raw(ctx).cast(), offset, to, length) == 0 }
}

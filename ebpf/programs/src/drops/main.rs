//! Packets that the kernel drops: whose they are, in which direction they went, and why.
//!
//! `kfree_skb` is where the kernel frees a packet that was not delivered. What a fault drops ends there too, and is told
//! apart by the note that the classifier leaves in it.
#![no_std]
#![no_main]

mod counts;
mod dropped;
mod events;
mod packet;

#[path = "../common/cgroups.rs"]
mod cgroups;
#[path = "../common/devices.rs"]
mod devices;
#[path = "../common/memory.rs"]
mod memory;
#[path = "../common/owners.rs"]
mod owners;
#[path = "../common/waking.rs"]
mod waking;

use aya_ebpf::Global;
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use sabot_abi::DROP_REASON_UNKNOWN;

use crate::dropped::Drop;

/// 1 where the tracepoint says why: since Linux 5.17.
#[unsafe(no_mangle)]
static HAS_REASON: Global<u32> = Global::new(0);
/// 1 where the tracepoint names the receiving socket: since Linux 6.11.
#[unsafe(no_mangle)]
static HAS_RECEIVER: Global<u32> = Global::new(0);

/// A packet is freed: `(struct sk_buff *skb, void *location, enum skb_drop_reason reason, struct sock *rx_sk)`.
#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn kfree_skb(context: RawTracePointContext) -> i32 {
    let reason = if HAS_REASON.load() != 0 {
        context.arg::<u32>(2)
    } else {
        DROP_REASON_UNKNOWN
    };
    let receiver = if HAS_RECEIVER.load() != 0 {
        context.arg::<u64>(3)
    } else {
        0
    };
    let drop = Drop {
        skb: context.arg::<u64>(0),
        reason,
        receiver,
    };
    if let Err(loss) = dropped::record(&drop) {
        counts::lose(loss);
    }
    0
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

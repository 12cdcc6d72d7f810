//! What the node's pods ask DNS servers over UDP and TCP, and what they get for an answer.
//!
//! A query is seen where its socket's packet leaves the IP layer, before any fault on the pod's devices, and an answer where
//! its socket takes it, behind all of them: what is measured is what the client sees. At the tracepoints of the devices an
//! answer that a fault drops would pass for received, and a query that a fault holds back would seem to begin late.
//!
//! Over TCP a message may begin anywhere in a segment. Those are seen that are the first in theirs and end there, as queries
//! and most answers are; all else on the DNS port is counted as unread.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod answers;
mod counts;
mod datagram;
mod open;

#[path = "../common/cgroup_skb.rs"]
mod cgroup_skb;
#[path = "../common/cgroups.rs"]
mod cgroups;
#[path = "../common/memory.rs"]
mod memory;
#[path = "../common/owners.rs"]
mod owners;
#[path = "../common/waking.rs"]
mod waking;

use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;

use crate::counts::Loss;

/// A socket sends a packet.
#[cgroup_skb]
pub fn dns_egress(context: SkBuffContext) -> i32 {
    finish(open::try_send(&context))
}

/// A socket takes a packet.
#[cgroup_skb]
pub fn dns_ingress(context: SkBuffContext) -> i32 {
    finish(answers::try_receive(&context))
}

/// Observation never changes what it observes: whatever went wrong is counted, and the packet goes on.
fn finish(result: Result<(), Loss>) -> i32 {
    const PASS: i32 = 1;
    if let Err(loss) = result {
        counts::lose(loss);
    }
    PASS
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

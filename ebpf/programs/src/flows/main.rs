//! The datagrams of the node's pods by their ends, while somebody asks.
//!
//! One that is sent is seen where its socket's packet leaves the IP layer, before any fault on the pod's devices, and one that
//! arrives where its socket takes it, behind all of them: whole, even if the way between was in fragments.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod datagram;
mod table;

#[path = "../common/atomic.rs"]
mod atomic;
#[path = "../common/cgroup_skb.rs"]
mod cgroup_skb;
#[path = "../common/memory.rs"]
mod memory;
#[path = "../common/owners.rs"]
mod owners;

use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;

use crate::datagram::Way;
use crate::table::NoRoom;

/// A socket sends a packet.
#[cgroup_skb]
pub fn udp_egress(context: SkBuffContext) -> i32 {
    finish(table::try_count(&context, Way::Sent))
}

/// A socket takes a packet.
#[cgroup_skb]
pub fn udp_ingress(context: SkBuffContext) -> i32 {
    finish(table::try_count(&context, Way::Received))
}

/// Observation never changes what it observes: whatever went wrong is counted, and the packet goes on.
fn finish(result: Result<(), NoRoom>) -> i32 {
    const PASS: i32 = 1;
    if let Err(no_room) = result {
        table::lose(no_room);
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

//! What the node's pods ask DNS servers over UDP, and what they get for an answer.
//!
//! A query is seen where its socket hands it to the IP layer, before any fault on the pod's devices, and an answer where it
//! is put into the socket's queue, behind all of them: what is measured is what the client sees. On the devices'
//! tracepoints an answer that a fault drops would pass for received.
//!
//! Queries over TCP are not seen.
#![no_std]
#![no_main]

mod answers;
mod counts;
mod datagram;
mod open;

#[path = "../shared/memory.rs"]
mod memory;
#[path = "../shared/owners.rs"]
mod owners;

use aya_ebpf::macros::fentry;
use aya_ebpf::programs::FEntryContext;

use crate::counts::Loss;

/// A socket sends an IPv4 packet: `(struct net *net, struct sk_buff *skb)`. TCP goes another way.
#[fentry(function = "ip_send_skb")]
pub fn ip_send_skb(context: FEntryContext) -> i32 {
    finish(open::try_send(context.arg::<u64>(1), open::SCRATCH_IPV4))
}

/// A socket sends an IPv6 packet: `(struct sk_buff *skb)`.
#[fentry(function = "ip6_send_skb")]
pub fn ip6_send_skb(context: FEntryContext) -> i32 {
    finish(open::try_send(context.arg::<u64>(0), open::SCRATCH_IPV6))
}

/// A datagram of either family is put into a socket's queue: `(struct sock *sk, struct sk_buff *skb)`.
#[fentry(function = "__udp_enqueue_schedule_skb")]
pub fn udp_enqueue(context: FEntryContext) -> i32 {
    finish(answers::try_receive(context.arg::<u64>(0), context.arg::<u64>(1)))
}

/// Observation never changes what it observes: whatever went wrong is counted, and the datagram goes on.
fn finish(result: Result<(), Loss>) -> i32 {
    if let Err(loss) = result {
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

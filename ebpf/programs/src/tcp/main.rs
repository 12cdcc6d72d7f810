//! What the TCP connections of every known owner on the node go through: a pod, or the node itself.
//!
//! Everything is read from the kernel's own sockets at its tracepoints, so that connections which are older than the
//! observer are seen like all others. The kernel's counters are read, not imitated: what a socket's counter has grown by
//! since it was last looked at is added to its owner's.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod events;
mod losses;
mod owners;
mod peers;
mod recent;
mod sock;
mod sockets;
mod states;
mod stats;

#[path = "../common/atomic.rs"]
mod atomic;
#[path = "../common/waking.rs"]
mod waking;

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;

use crate::losses::Loss;
use crate::sock::{Buffer, Sock};

/// A connection's state changes: `(const struct sock *sk, const int oldstate, const int newstate)`.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn inet_sock_set_state(context: RawTracePointContext) -> i32 {
    let sock = Sock::new(context.arg(0));
    finish(states::try_change(sock, context.arg(1), context.arg(2)))
}

/// A segment arrived on an established connection and is about to be handled: `(struct sock *sk, struct sk_buff *skb)`.
#[raw_tracepoint(tracepoint = "tcp_probe")]
pub fn tcp_probe(context: RawTracePointContext) -> i32 {
    finish(sockets::try_arrival(Sock::new(context.arg(0))))
}

/// Segments were sent again: `(const struct sock *sk, const struct sk_buff *skb)`.
#[raw_tracepoint(tracepoint = "tcp_retransmit_skb")]
pub fn tcp_retransmit_skb(context: RawTracePointContext) -> i32 {
    let sock = Sock::new(context.arg(0));
    finish(sockets::try_retransmit(sock, Buffer::new(context.arg(1)), 0))
}

/// The same where the kernel, since 6.17, also tells of the attempts that failed, and why: `(.., int err)`.
#[raw_tracepoint(tracepoint = "tcp_retransmit_skb")]
pub fn tcp_retransmit_skb_result(context: RawTracePointContext) -> i32 {
    let sock = Sock::new(context.arg(0));
    let result = context.arg::<i32>(2);
    finish(sockets::try_retransmit(sock, Buffer::new(context.arg(1)), result))
}

/// A SYN-ACK was sent again: `(const struct sock *sk, const struct request_sock *req)`.
#[raw_tracepoint(tracepoint = "tcp_retransmit_synack")]
pub fn tcp_retransmit_synack(context: RawTracePointContext) -> i32 {
    finish(sockets::try_synack(Sock::new(context.arg(0))))
}

/// The congestion control changes its state: `(struct sock *sk, const u8 ca_state)`.
#[raw_tracepoint(tracepoint = "tcp_cong_state_set")]
pub fn tcp_cong_state_set(context: RawTracePointContext) -> i32 {
    let state = context.arg::<u64>(1) as u8;
    finish(sockets::try_congestion(Sock::new(context.arg(0)), state))
}

/// A reset is being sent: `(const struct sock *sk, const struct sk_buff *skb, ..)`; the socket may be none.
#[raw_tracepoint(tracepoint = "tcp_send_reset")]
pub fn tcp_send_reset(context: RawTracePointContext) -> i32 {
    let sock = Sock::new(context.arg(0));
    finish(sockets::try_reset_sent(sock, Buffer::new(context.arg(1))))
}

/// A valid reset arrived: `(struct sock *sk)`.
#[raw_tracepoint(tracepoint = "tcp_receive_reset")]
pub fn tcp_receive_reset(context: RawTracePointContext) -> i32 {
    finish(sockets::try_reset_received(Sock::new(context.arg(0))))
}

/// A socket is no more: `(struct sock *sk)`.
#[raw_tracepoint(tracepoint = "tcp_destroy_sock")]
pub fn tcp_destroy_sock(context: RawTracePointContext) -> i32 {
    sockets::forget(Sock::new(context.arg(0)));
    0
}

/// Observation never changes what it observes: whatever went wrong is counted, and the packet goes on.
fn finish(result: Result<(), Loss>) -> i32 {
    if let Err(loss) = result {
        losses::count(loss);
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

//! What the container runtime and its clients say to each other: the data on connections to the runtime's socket, either
//! way, whoever made the connection and however old it is.
//!
//! Everything is read in the clients' processes, where a request has been sent and where an answer has been received: the
//! runtime itself pays for nothing. The programs sit where data goes through sockets, so that other system calls don't pay
//! either.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod calls;
mod chunks;
mod losses;
mod senders;
mod sockets;

#[path = "../common/waking.rs"]
mod waking;

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use sabot_abi::{CRI_ANSWER, CRI_REQUEST};

/// Something was sent: `(struct sock *sk, int ret, int flags)`.
#[raw_tracepoint(tracepoint = "sock_send_length")]
pub fn cri_sent(context: RawTracePointContext) -> i32 {
    finish(calls::try_transfer(
        context.arg::<u64>(0),
        context.arg::<i32>(1),
        CRI_REQUEST,
    ))
}

/// Something was received: as above.
#[raw_tracepoint(tracepoint = "sock_recv_length")]
pub fn cri_received(context: RawTracePointContext) -> i32 {
    /// What is only looked at is received once more.
    const MSG_PEEK: i32 = 2;
    if context.arg::<i32>(2) & MSG_PEEK != 0 {
        return 0;
    }
    finish(calls::try_transfer(
        context.arg::<u64>(0),
        context.arg::<i32>(1),
        CRI_ANSWER,
    ))
}

/// Observation never changes what it observes: whatever went wrong is counted, and the call goes on.
fn finish(result: Result<(), losses::Lost>) -> i32 {
    if let Err(losses::Lost) = result {
        losses::count();
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

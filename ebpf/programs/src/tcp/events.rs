//! What is rare enough to be told one by one.

use aya_ebpf::macros::map;
use aya_ebpf::maps::RingBuf;
use sabot_abi::TcpEvent;

use crate::losses::{self, Loss};
use crate::sock::Ends;
use crate::waking;

/// The daemon sets the size.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);

/// A full ring is counted.
#[inline(always)]
pub fn emit(time: u64, owner: u32, kind: u32, errno: u32, ends: &Ends) {
    let Some(mut entry) = EVENTS.reserve::<TcpEvent>(0) else {
        losses::count(Loss::Event);
        return;
    };
    entry.write(TcpEvent {
        time,
        local: ends.local,
        remote: ends.remote,
        cgroup: ends.cgroup,
        owner,
        kind,
        errno,
        local_port: ends.local_port,
        remote_port: ends.remote_port,
    });
    entry.submit(waking::flags(&EVENTS));
}

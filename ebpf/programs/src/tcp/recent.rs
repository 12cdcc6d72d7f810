//! Which connections this CPU has looked at in the kernel's present tick.

use aya_ebpf::helpers::generated::bpf_jiffies64;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;

use crate::sock::Sock;

/// A power of two.
const PLACES: u32 = 256;
/// No two sockets begin within that many bits of an address.
const ALIGNMENT: u32 = 6;

/// A socket and the tick in which it was looked at.
#[derive(Clone, Copy)]
#[repr(C)]
struct Look {
    sock: u64,
    tick: u64,
}

/// By some bits of the socket's address. Two that share a place only cost each other a look.
#[map]
static LOOKS: PerCpuArray<Look> = PerCpuArray::with_max_entries(PLACES, 0);

/// Whether this is its first time in this tick, a millisecond or some, on this CPU.
#[inline(always)]
pub fn is_first(sock: Sock) -> bool {
    // SAFETY: the helper takes nothing and only reads a counter.
    let tick = unsafe { bpf_jiffies64() };
    let place = (sock.address() >> ALIGNMENT) as u32 & (PLACES - 1);
    let Some(look) = LOOKS.get_ptr_mut(place) else {
        return true;
    };
    // SAFETY: the entry is this CPU's own. What interrupts the program here may write it too: then one look more or less
    // is taken.
    let look = unsafe { &mut *look };
    if look.sock == sock.address() && look.tick == tick {
        return false;
    }
    *look = Look {
        sock: sock.address(),
        tick,
    };
    true
}

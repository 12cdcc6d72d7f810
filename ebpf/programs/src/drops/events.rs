//! Single drops, as many as their bound allows.

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{PerCpuArray, RingBuf};
use sabot_abi::{DropEvent, DropKey};

use crate::counts::Loss;
use crate::packet::Packet;
use crate::waking;

/// The daemon sets the size.
#[map]
static DROP_EVENTS: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);

/// Of this CPU: since when events are counted against the bound, and how many there were.
#[map]
static WINDOW: PerCpuArray<[u64; 2]> = PerCpuArray::with_max_entries(1, 0);

/// Events in a second on each CPU.
#[unsafe(no_mangle)]
static EVENT_RATE: Global<u64> = Global::new(0);

const SECOND: u64 = 1_000_000_000;

/// # Errors
///
/// [`Loss::Suppressed`] beyond the bound, [`Loss::Event`] when the ring is full.
#[inline(always)]
pub fn emit(key: &DropKey, packet: &Packet, cgroup: u64) -> Result<(), Loss> {
    // SAFETY: the helper takes nothing and only reads a clock.
    let time = unsafe { bpf_ktime_get_boot_ns() };
    if !is_within_bound(time) {
        return Err(Loss::Suppressed);
    }
    let mut entry = DROP_EVENTS.reserve::<DropEvent>(0).ok_or(Loss::Event)?;
    entry.write(DropEvent {
        time,
        owner: key.owner,
        reason: key.reason,
        direction: key.direction,
        wire_packets: packet.wire.packets as u32,
        wire_bytes: packet.wire.bytes as u32,
        protocol: packet.protocol as u32,
        source: packet.source,
        destination: packet.destination,
        cgroup,
        source_port: packet.source_port,
        destination_port: packet.destination_port,
        reserved: 0,
    });
    entry.submit(waking::flags(&DROP_EVENTS));
    Ok(())
}

#[inline(always)]
fn is_within_bound(now: u64) -> bool {
    let Some(window) = WINDOW.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: the entry is this CPU's own, and the kernel doesn't run the program inside itself.
    let [since, count] = unsafe { &mut *window };
    if now.wrapping_sub(*since) >= SECOND {
        *since = now;
        *count = 0;
    }
    *count += 1;
    *count <= EVENT_RATE.load()
}

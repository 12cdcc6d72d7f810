//! Flows, and what each did.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, PerCpuArray};
use aya_ebpf::programs::SkBuffContext;
use sabot_abi::{FlowCounts, FlowKey};

use crate::atomic;
use crate::datagram::{Datagrams, Way};

/// The daemon sets the size. Nothing is removed as long as the programs are there.
#[map]
static FLOWS: HashMap<FlowKey, FlowCounts> = HashMap::with_max_entries(16_384, 0);

/// Packets of flows that the table had no room for.
#[map]
static NO_ROOM: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Nothing yet.
static EMPTY: FlowCounts = FlowCounts {
    packets_sent: 0,
    packets_received: 0,
    bytes_sent: 0,
    bytes_received: 0,
};

/// The table is full of other flows.
pub struct NoRoom {
    packets: u64,
}

#[inline(always)]
pub fn lose(no_room: NoRoom) {
    if let Some(count) = NO_ROOM.get_ptr_mut(0) {
        // SAFETY: the entry is there as long as the program.
        atomic::add(unsafe { &mut *count }, no_room.packets);
    }
}

/// # Errors
///
/// [`NoRoom`] for a flow that isn't counted.
#[inline(always)]
pub fn try_count(ctx: &SkBuffContext, way: Way) -> Result<(), NoRoom> {
    let Some(datagrams) = Datagrams::of(ctx, way) else {
        return Ok(());
    };
    let Some(counts) = entry(&datagrams.flow) else {
        return Err(NoRoom {
            packets: datagrams.count,
        });
    };
    let (packets, bytes) = match way {
        Way::Sent => (&mut counts.packets_sent, &mut counts.bytes_sent),
        Way::Received => (&mut counts.packets_received, &mut counts.bytes_received),
    };
    atomic::add(packets, datagrams.count);
    atomic::add(bytes, datagrams.bytes);
    Ok(())
}

#[inline(always)]
fn entry(flow: &FlowKey) -> Option<&'static mut FlowCounts> {
    if let Some(counts) = known(flow) {
        return Some(counts);
    }
    let empty: &'static FlowCounts = &EMPTY;
    // It fails as well where another CPU was faster.
    let _ = FLOWS.insert(flow, empty, BPF_NOEXIST.into());
    known(flow)
}

#[inline(always)]
fn known(flow: &FlowKey) -> Option<&'static mut FlowCounts> {
    // SAFETY: an entry is never removed, and is changed by atomic additions only.
    FLOWS.get_ptr_mut(flow).map(|counts| unsafe { &mut *counts })
}

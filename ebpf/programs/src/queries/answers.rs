//! Answers as they reach the sockets that wait for them.

use aya_ebpf::Global;
use aya_ebpf::macros::map;
use aya_ebpf::maps::RingBuf;
use aya_ebpf::programs::SkBuffContext;
use sabot_abi::{
    DNS_RCODE_NOERROR, DNS_RCODE_NXDOMAIN, QUERY_UNANSWERED, Query, QueryCounts, QueryEvent, QueryKey,
    log_linear_bucket,
};

use crate::counts::{self, Loss, increase};
use crate::datagram::{Seen, Server};
use crate::{open, waking};

/// The daemon sets the size.
#[map]
static QUERY_EVENTS: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);

/// An answer that takes longer is slow, ns.
#[unsafe(no_mangle)]
static SLOW_THRESHOLD: Global<u64> = Global::new(0);

/// # Errors
///
/// What could not be recorded.
#[inline(always)]
pub fn try_receive(ctx: &SkBuffContext) -> Result<(), Loss> {
    let Some(Seen { key, message, .. }) = Seen::of(ctx, Server::Source)? else {
        return Ok(());
    };
    let Some(counts) = counts::of(key.owner) else {
        return Ok(());
    };
    let Some(query) = open::get(&key) else {
        increase(&mut counts.unmatched, 1);
        return Ok(());
    };
    if query.state == QUERY_UNANSWERED {
        increase(&mut counts.late, 1);
        open::remove(&key);
        return Ok(());
    }
    let time = open::now();
    let latency = time.saturating_sub(query.time);
    let emitted = if is_notable(latency, message.rcode) {
        emit(&key, query, time, latency, message.rcode)
    } else {
        Ok(())
    };
    if open::remove(&key) {
        count(counts, latency, message.rcode);
    } else {
        increase(&mut counts.unmatched, 1);
    }
    emitted
}

#[inline(always)]
fn count(counts: &mut QueryCounts, latency: u64, rcode: u32) {
    if let Some(count) = counts.responses.get_mut(rcode as usize) {
        increase(count, 1);
    }
    increase(&mut counts.latency.sum, latency);
    if let Some(bucket) = counts.latency.buckets.get_mut(log_linear_bucket(latency)) {
        *bucket += 1;
    }
}

/// That a name doesn't exist is an answer like others.
#[inline(always)]
fn is_notable(latency: u64, rcode: u32) -> bool {
    latency >= SLOW_THRESHOLD.load() || !matches!(rcode, DNS_RCODE_NOERROR | DNS_RCODE_NXDOMAIN)
}

#[inline(always)]
fn emit(key: &QueryKey, query: &Query, time: u64, latency: u64, rcode: u32) -> Result<(), Loss> {
    let mut entry = QUERY_EVENTS.reserve::<QueryEvent>(0).ok_or(Loss::Event)?;
    let event = entry.as_mut_ptr();
    // SAFETY: the entry has room for an event, all of whose members are written; it is too large to be made on the stack
    // first.
    unsafe {
        (*event).time = time;
        (*event).latency_ns = latency;
        (*event).cgroup = query.cgroup;
        (*event).key = *key;
        (*event).rcode = rcode;
        (*event).length = query.length;
        (*event).question = query.question;
    }
    entry.submit(waking::flags(&QUERY_EVENTS));
    Ok(())
}

//! Queries that have been sent and not been answered.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use aya_ebpf::programs::SkBuffContext;
use sabot_abi::{DNS_QUESTION_ROOM, QUERY_OPEN, Query, QueryKey};

use crate::counts::{self, Loss, increase};
use crate::datagram::{Seen, Server};

/// The daemon sets the size, and removes what nobody answers.
#[map]
static OPEN: HashMap<QueryKey, Query> = HashMap::with_max_entries(8192, 0);

/// No query is older than this one.
static EMPTY: Query = Query {
    time: u64::MAX,
    cgroup: 0,
    state: QUERY_OPEN,
    length: 0,
    question: [0; DNS_QUESTION_ROOM],
};

#[inline(always)]
pub fn get(key: &QueryKey) -> Option<&'static Query> {
    // SAFETY: the kernel reuses a removed entry's memory at once, so that a reader may see the next query's bytes; a
    // program reads it only before it removes it, and two answers at once to one query are worth no more care.
    OPEN.get_ptr(key).map(|query| unsafe { &*query })
}

/// Whether it was there.
#[inline(always)]
pub fn remove(key: &QueryKey) -> bool {
    OPEN.remove(key).is_ok()
}

/// # Errors
///
/// What could not be recorded.
#[inline(always)]
pub fn try_send(ctx: &SkBuffContext) -> Result<(), Loss> {
    let Some(Seen { key, client, message }) = Seen::of(ctx, Server::Destination)? else {
        return Ok(());
    };
    let counts = counts::of(key.owner);
    let before = entry(&key);
    let was_open = before.as_ref().is_some_and(|query| query.state == QUERY_OPEN);
    if was_open && before.as_ref().is_some_and(|query| message.asks(ctx, query)) {
        if let Some(counts) = counts {
            increase(&mut counts.retries, 1);
        }
        return Ok(());
    }
    if let Some(counts) = counts {
        increase(&mut counts.queries, 1);
        if was_open {
            increase(&mut counts.replaced, 1);
        }
    }
    // It is filled in where it stands: the programs' stack has no room for it.
    let query = match before {
        Some(query) => query,
        None => {
            let empty: &'static Query = &EMPTY;
            OPEN.insert(&key, empty, BPF_NOEXIST.into())
                .map_err(|_| Loss::Open)?;
            entry(&key).ok_or(Loss::Open)?
        }
    };
    query.time = now();
    query.cgroup = client.cgroup();
    query.state = QUERY_OPEN;
    query.length = message.copy_question(ctx, &mut query.question);
    Ok(())
}

#[inline(always)]
fn entry(key: &QueryKey) -> Option<&'static mut Query> {
    // SAFETY: as in [`get`]; a client doesn't send two queries with one id at once.
    OPEN.get_ptr_mut(key).map(|query| unsafe { &mut *query })
}

#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper takes nothing and only reads a clock.
    unsafe { bpf_ktime_get_boot_ns() }
}

//! Queries that have been sent and not been answered.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use aya_ebpf::programs::SkBuffContext;
use sabot_abi::{DNS_QUESTION_ROOM, QUERY_OPEN, Query, QueryKey};

use crate::counts::{self, Loss, increase};
use crate::datagram::{Datagram, Server, owner};
use crate::owners;

/// The daemon sets the size, and removes what nobody answers.
#[map]
static OPEN: HashMap<QueryKey, Query> = HashMap::with_max_entries(8192, 0);

const WORDS: usize = DNS_QUESTION_ROOM / size_of::<u64>();

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
    let Some(datagram) = Datagram::of(ctx, Server::Destination) else {
        return Ok(());
    };
    let Some(message) = datagram.message(ctx, Server::Destination)? else {
        return Ok(());
    };
    let Some(owner) = owner(ctx) else {
        owners::count_unresolved();
        return Ok(());
    };
    let key = QueryKey {
        server: datagram.server,
        owner,
        port: datagram.client_port,
        id: message.id,
    };
    // What is compared with the question of a retry includes the room behind it.
    let mut query = Query {
        time: now(),
        state: QUERY_OPEN,
        length: 0,
        question: [0; DNS_QUESTION_ROOM],
    };
    query.length = message.copy_question(ctx, &mut query.question);
    note(&key, &query)
}

#[inline(always)]
fn note(key: &QueryKey, query: &Query) -> Result<(), Loss> {
    let counts = counts::of(key.owner);
    match get(key) {
        None => {
            if let Some(counts) = counts {
                increase(&mut counts.queries, 1);
            }
            OPEN.insert(key, query, BPF_NOEXIST.into())
                .map_err(|_| Loss::Open)
        }
        Some(before) if before.state == QUERY_OPEN && is_same(before, query) => {
            if let Some(counts) = counts {
                increase(&mut counts.retries, 1);
            }
            Ok(())
        }
        Some(before) => {
            if let Some(counts) = counts {
                increase(&mut counts.queries, 1);
                if before.state == QUERY_OPEN {
                    increase(&mut counts.replaced, 1);
                }
            }
            OPEN.insert(key, query, 0).map_err(|_| Loss::Open)
        }
    }
}

/// Whether both ask the same.
#[inline(always)]
fn is_same(one: &Query, other: &Query) -> bool {
    // SAFETY: both are plain bytes, as long as that many words, and stand behind two words and two half words.
    let (one, other) = unsafe {
        (
            &*one.question.as_ptr().cast::<[u64; WORDS]>(),
            &*other.question.as_ptr().cast::<[u64; WORDS]>(),
        )
    };
    let mut differences = 0;
    for index in 0..WORDS {
        differences |= one[index] ^ other[index];
    }
    differences == 0
}

#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper takes nothing and only reads a clock.
    unsafe { bpf_ktime_get_boot_ns() }
}

//! Queries that have been sent and not been answered.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_probe_read_kernel};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, PerCpuArray};
use sabot_abi::{DNS_QUESTION_ROOM, QUERY_OPEN, Query, QueryKey};

use crate::counts::{self, Loss};
use crate::datagram::{Datagram, Message, Server, sock_of};
use crate::owners;

/// The daemon sets the size, and removes what nobody answers.
#[map]
static OPEN: HashMap<QueryKey, Query> = HashMap::with_max_entries(8192, 0);

/// The query that this CPU looks at now: it is too large for a program's stack. The programs for both families may
/// interrupt each other, so that each has its own.
#[map]
static SCRATCH: PerCpuArray<Query> = PerCpuArray::with_max_entries(2, 0);

pub const SCRATCH_IPV4: u32 = 0;
pub const SCRATCH_IPV6: u32 = 1;

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
pub fn try_send(skb: u64, scratch: u32) -> Result<(), Loss> {
    let Some(datagram) = Datagram::of(skb, Server::Destination) else {
        return Ok(());
    };
    let Some(server) = datagram.server() else {
        return Ok(());
    };
    let Some(message) = datagram.message()? else {
        return Ok(());
    };
    let Some(sock) = sock_of(skb) else {
        owners::count_unresolved();
        return Ok(());
    };
    let Some(owner) = owners::net_of_sock(sock).and_then(|net| owners::of(net, sock)) else {
        owners::count_unresolved();
        return Ok(());
    };
    let key = QueryKey {
        server,
        owner,
        port: datagram.client_port,
        id: message.id,
    };
    let query = SCRATCH.get_ptr_mut(scratch).ok_or(Loss::Unread)?;
    // SAFETY: the entry is this CPU's own, and nobody else uses it before the program has ended.
    let query = unsafe { &mut *query };
    fill(query, &message);
    note(&key, query)
}

#[inline(always)]
fn fill(query: &mut Query, message: &Message) {
    query.time = now();
    query.state = QUERY_OPEN;
    // What is compared with the question of a retry includes the room behind it.
    query.question = [0; DNS_QUESTION_ROOM];
    query.length = copy(&mut query.question, message);
}

/// Returns how much of the question there is. What stands behind it in the message (EDNS) is copied too.
#[inline(always)]
fn copy(to: &mut [u8; DNS_QUESTION_ROOM], message: &Message) -> u32 {
    let length = message.question_room.min(DNS_QUESTION_ROOM as u32);
    // SAFETY: the length is within the room, and the helper checks the address that it reads from.
    let result =
        unsafe { bpf_probe_read_kernel(to.as_mut_ptr().cast(), length, message.question as *const _) };
    if result == 0 { length } else { 0 }
}

#[inline(always)]
fn note(key: &QueryKey, query: &Query) -> Result<(), Loss> {
    let counts = counts::of(key.owner);
    match get(key) {
        None => {
            if let Some(counts) = counts {
                counts.queries += 1;
            }
            OPEN.insert(key, query, BPF_NOEXIST.into())
                .map_err(|_| Loss::Open)
        }
        Some(before) if before.state == QUERY_OPEN && is_same(before, query) => {
            if let Some(counts) = counts {
                counts.retries += 1;
            }
            Ok(())
        }
        Some(before) => {
            if let Some(counts) = counts {
                counts.queries += 1;
                if before.state == QUERY_OPEN {
                    counts.replaced += 1;
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

//! Whose a socket is.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use sabot_abi::{CGROUP_DEPTH, MAX_OWNERS, NODE_OWNER, OwnerKey};

use crate::sock::Sock;

/// The daemon writes it.
#[map]
static OWNERS: HashMap<OwnerKey, u32> = HashMap::with_max_entries(MAX_OWNERS, BPF_F_NO_PREALLOC);

/// The owner of what happens in the network namespace with this cookie.
#[inline(always)]
pub fn of_namespace(cookie: u64) -> Option<u32> {
    find(cookie, 0)
}

/// The owner of a socket: its network namespace's, or among those that share the node's, its cgroup's.
#[inline(always)]
pub fn of(sock: Sock) -> Option<u32> {
    let cookie = sock.namespace();
    let owner = find(cookie, 0)?;
    if owner != NODE_OWNER {
        return Some(owner);
    }
    Some(on_node(cookie, sock))
}

/// The pod in whose cgroup, however deep, a socket of the node's own network is; the node without one.
#[inline(never)]
fn on_node(cookie: u64, sock: Sock) -> u32 {
    let mut group = sock.group();
    for _ in 0..CGROUP_DEPTH {
        if !group.exists() {
            break;
        }
        if let Some(pod) = find(cookie, group.id()) {
            return pod;
        }
        group = group.parent();
    }
    NODE_OWNER
}

#[inline(always)]
fn find(cookie: u64, cgroup: u64) -> Option<u32> {
    let key = OwnerKey { cookie, cgroup };
    // SAFETY: the map isn't preallocated, so that an entry which is removed meanwhile keeps its value until the program ends.
    unsafe { OWNERS.get(key) }.copied()
}

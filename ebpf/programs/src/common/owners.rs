//! Whose a network namespace or a socket is.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, PerCpuArray};
use sabot_abi::{CGROUP_DEPTH, MAX_OWNERS, NO_OFFSET, NODE_OWNER, NetOffsets, OwnerKey};

use crate::memory::{offset, read, read_pointer};

/// The daemon writes the owners that live.
#[map]
static OWNERS: HashMap<OwnerKey, u32> = HashMap::with_max_entries(MAX_OWNERS, 0);

/// Packets of network namespaces that nobody owns.
#[map]
static UNRESOLVED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

#[unsafe(no_mangle)]
pub static NET: NetOffsets = NetOffsets {
    net_cookie: 0,
    net_loopback: 0,
    device_net: 0,
    sock_net: 0,
    sock_family: 0,
    sock_state: 0,
    sock_cgroup: 0,
    cgroup_node: 0,
    node_id: 0,
    cgroup_parent: NO_OFFSET,
};

/// States in which a socket is only the stub of one, without a cgroup.
const TIME_WAIT: u8 = 6;
const NEW_SYN_RECV: u8 = 12;

/// The owner of a network namespace and, where that is the node's own, of a socket in it (0 for none).
#[inline(always)]
pub fn of(net: u64, sock: u64) -> Option<u32> {
    let cookie = read::<u64>(net, offset!(NET.net_cookie))?;
    let owner = get(cookie, 0)?;
    if owner != NODE_OWNER {
        return Some(owner);
    }
    Some(on_node(cookie, sock))
}

/// The pod in whose cgroup, however deep, a socket of the node's own network is; the node without one.
#[inline(never)]
fn on_node(cookie: u64, sock: u64) -> u32 {
    let mut group = group(sock);
    for _ in 0..CGROUP_DEPTH {
        let Some(this) = group else {
            break;
        };
        if let Some(pod) = id(this).and_then(|id| get(cookie, id)) {
            return pod;
        }
        group = match offset!(NET.cgroup_parent) {
            NO_OFFSET => None,
            parent => read_pointer(this, parent),
        };
    }
    NODE_OWNER
}

#[inline(always)]
fn get(cookie: u64, cgroup: u64) -> Option<u32> {
    // SAFETY: a value is a number that is replaced as a whole.
    unsafe { OWNERS.get(OwnerKey { cookie, cgroup }) }.copied()
}

/// A socket's cgroup (v2); `None` where it has none, or there is no socket.
#[inline(always)]
pub fn group(sock: u64) -> Option<u64> {
    if sock == 0 || offset!(NET.sock_cgroup) == NO_OFFSET {
        return None;
    }
    let state = read::<u8>(sock, offset!(NET.sock_state))?;
    if state == TIME_WAIT || state == NEW_SYN_RECV {
        return None;
    }
    read_pointer(sock, offset!(NET.sock_cgroup))
}

#[inline(always)]
pub fn id(group: u64) -> Option<u64> {
    let node = read_pointer(group, offset!(NET.cgroup_node))?;
    read(node, offset!(NET.node_id))
}

#[inline(always)]
pub fn net_of_sock(sock: u64) -> Option<u64> {
    read_pointer(sock, offset!(NET.sock_net))
}

#[inline(always)]
pub fn count_unresolved() {
    if let Some(count) = UNRESOLVED.get_ptr_mut(0) {
        // SAFETY: the entry is this CPU's own.
        unsafe { *count += 1 };
    }
}

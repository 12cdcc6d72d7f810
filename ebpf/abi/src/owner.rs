//! Whose network namespace, or whose cgroup, something happens in.

use crate::{assert_layout, pod};

/// What the daemon knows an owner by.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnerKey {
    /// The network namespace's cookie; no other namespace gets it until the machine restarts.
    pub cookie: u64,
    /// On the node's own network: the id of the cgroup whose sockets the owner has; 0: all others.
    pub cgroup: u64,
}
assert_layout!(OwnerKey, size = 16, align = 8);

/// The owner that is the node itself.
pub const NODE_OWNER: u32 = 0;
/// Entries that the tables of owners hold: a node's pods, and the cgroups of those on its own network.
pub const MAX_OWNERS: u32 = 2048;

/// How deep inside a pod's cgroup, itself counted, a socket's cgroup is still known to be in it.
pub const CGROUP_DEPTH: u32 = 8;

pod!(OwnerKey);

//! The cgroup of a socket, by which its container is known.

use crate::owners::{group, id};

/// Its id (v2); 0 where it has none, or there is no socket.
#[inline(always)]
pub fn of(sock: u64) -> u64 {
    group(sock).and_then(id).unwrap_or(0)
}

//! What the TCP observer counts.

use crate::{Histogram, assert_layout, pod};

/// Addresses and prefixes by which peers are told apart.
pub const MAX_PEER_PREFIXES: u32 = 1 << 14;

/// Who the other end of a connection is. The numbers are the values of the trie that the daemon fills.
pub const PEER_POD: u32 = 0;
pub const PEER_SERVICE: u32 = 1;
pub const PEER_NODE: u32 = 2;
pub const PEER_PRIVATE: u32 = 3;
pub const PEER_PUBLIC: u32 = 4;
pub const PEER_LOOPBACK: u32 = 5;
pub const PEER_CLASSES: usize = 6;
/// By their numbers.
pub const PEER_CLASS_NAMES: [&str; PEER_CLASSES] =
    ["pod", "service", "node", "private", "public", "loopback"];

/// What became of a connection: the owner asked for it, ..
pub const CONNECTION_OPENED: usize = 0;
/// .. a peer asked and the handshake was completed, ..
pub const CONNECTION_ACCEPTED: usize = 1;
/// .. it was established and has ended, ..
pub const CONNECTION_CLOSED: usize = 2;
/// .. or the owner asked and it was never established.
pub const CONNECTION_FAILED: usize = 3;
pub const CONNECTION_OUTCOMES: usize = 4;
/// By their numbers.
pub const CONNECTION_OUTCOME_NAMES: [&str; CONNECTION_OUTCOMES] = ["opened", "accepted", "closed", "failed"];

/// Why a connect failed, as far as the causes are told apart: the errno of each place. The first one has none, for the
/// application gave up before there was an answer; the last place stands for every other errno.
pub const CONNECT_ERRNOS: [u32; 12] = [
    0,   // the application closed the socket
    1,   // EPERM
    13,  // EACCES
    92,  // ENOPROTOOPT
    99,  // EADDRNOTAVAIL
    101, // ENETUNREACH
    103, // ECONNABORTED
    104, // ECONNRESET
    110, // ETIMEDOUT
    111, // ECONNREFUSED
    113, // EHOSTUNREACH
    u32::MAX,
];

/// The place of an errno in [`CONNECT_ERRNOS`].
#[inline(always)]
pub const fn connect_errno_place(errno: u32) -> usize {
    match errno {
        0 => 0,
        1 => 1,
        13 => 2,
        92 => 3,
        99 => 4,
        101 => 5,
        103 => 6,
        104 => 7,
        110 => 8,
        111 => 9,
        113 => 10,
        _ => CONNECT_ERRNOS.len() - 1,
    }
}
const _: () = {
    let mut place = 0;
    while place < CONNECT_ERRNOS.len() {
        assert!(connect_errno_place(CONNECT_ERRNOS[place]) == place);
        place += 1;
    }
};

/// What one owner's connections did.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpStats {
    /// By the peer's class and the outcome.
    pub connections: [[u64; CONNECTION_OUTCOMES]; PEER_CLASSES],
    /// Failed connects by [`connect_errno_place`].
    pub connect_errors: [u64; CONNECT_ERRNOS.len()],
    /// Connections that were established and ended by an error.
    pub lost: u64,
    /// Segments.
    pub retransmits: u64,
    /// SYN-ACKs.
    pub synack_retransmits: u64,
    /// Times that the retransmission timer ran out.
    pub rtos: u64,
    pub resets_sent: u64,
    pub resets_received: u64,
    /// Of payload, and acknowledged by the peer.
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub handshakes: Histogram,
    /// The smoothed round-trip time of each connection, once in each of the kernel's ticks in which a segment arrived on it,
    /// if new data was acknowledged since the last one.
    pub rtts: Histogram,
}
assert_layout!(
    TcpStats,
    size = 8 * (CONNECTION_OUTCOMES * PEER_CLASSES + CONNECT_ERRNOS.len() + 8) + 2 * size_of::<Histogram>(),
    align = 8
);

impl TcpStats {
    pub const EMPTY: Self = Self {
        connections: [[0; CONNECTION_OUTCOMES]; PEER_CLASSES],
        connect_errors: [0; CONNECT_ERRNOS.len()],
        lost: 0,
        retransmits: 0,
        synack_retransmits: 0,
        rtos: 0,
        resets_sent: 0,
        resets_received: 0,
        bytes_sent: 0,
        bytes_received: 0,
        handshakes: Histogram::EMPTY,
        rtts: Histogram::EMPTY,
    };
}

/// When something first happened to one of an owner's connections since the daemon last wrote zeros here:
/// `CLOCK_BOOTTIME`, ns; 0: not yet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFirsts {
    pub retransmit: u64,
    pub rto: u64,
    /// Sent or received.
    pub reset: u64,
    pub connect_failure: u64,
    /// An established connection ended by an error.
    pub loss: u64,
}
assert_layout!(TcpFirsts, size = 40, align = 8);

/// The owner of a socket that nobody is known for.
pub const NO_OWNER: u32 = u32::MAX;

/// A connection. The kernel's own counters of it, as they were when they were last added to its owner's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpSocket {
    /// When the owner asked for it, `CLOCK_BOOTTIME`, ns; 0 for one that was accepted, or is older than the observer.
    pub asked: u64,
    pub bytes_acked: u64,
    pub bytes_received: u64,
    /// IPv4 addresses are IPv4-mapped.
    pub local: [u8; 16],
    pub remote: [u8; 16],
    /// The id of the socket's cgroup (v2); 0 where it isn't known.
    pub cgroup: u64,
    /// [`NO_OWNER`] until it is known.
    pub owner: u32,
    /// `PEER_*`.
    pub peer: u32,
    /// Segments.
    pub retransmits: u32,
    pub rtos: u32,
    pub segments_sent: u32,
    pub segments_received: u32,
    /// Smoothed, us.
    pub srtt: u32,
    /// Host byte order.
    pub local_port: u16,
    pub remote_port: u16,
}
assert_layout!(TcpSocket, size = 96, align = 8);

/// What an event tells: a connect failed, ..
pub const TCP_CONNECT_FAILED: u32 = 1;
/// .. an established connection ended by an error, ..
pub const TCP_LOST: u32 = 2;
/// .. a reset was sent or received, ..
pub const TCP_RESET_SENT: u32 = 3;
pub const TCP_RESET_RECEIVED: u32 = 4;
/// .. or the retransmission timer ran out.
pub const TCP_RTO: u32 = 5;

/// Something that happened to a connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpEvent {
    /// `CLOCK_BOOTTIME`, ns.
    pub time: u64,
    /// IPv4 addresses are IPv4-mapped; all zeros for a reset without a connection.
    pub local: [u8; 16],
    pub remote: [u8; 16],
    /// The id of the socket's cgroup (v2); 0 where it isn't known.
    pub cgroup: u64,
    pub owner: u32,
    /// `TCP_*`.
    pub kind: u32,
    /// 0 without one.
    pub errno: u32,
    /// Host byte order.
    pub local_port: u16,
    pub remote_port: u16,
}
assert_layout!(TcpEvent, size = 64, align = 8);

/// Index into the per-CPU array of what the TCP programs could not record: events, for want of room in the ring, ..
pub const TCP_LOSS_EVENT: u32 = 0;
/// .. connections that began, for want of room in the table, ..
pub const TCP_LOSS_SOCKET: u32 = 1;
/// .. sightings of connections whose owner is not known, ..
pub const TCP_LOSS_UNRESOLVED: u32 = 2;
/// .. and sightings of connections that are in no table, have begun before, and find no room there now.
pub const TCP_LOSS_SIGHTING: u32 = 3;
pub const TCP_LOSS_COUNT: u32 = 4;

/// Where the kernel that runs keeps what the programs read, in bytes from the beginning of each structure.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpOffsets {
    // `struct sock`.
    pub family: u32,
    pub state: u32,
    pub net: u32,
    pub v4_remote: u32,
    pub v4_local: u32,
    pub v6_remote: u32,
    pub v6_local: u32,
    pub remote_port: u32,
    pub local_port: u32,
    pub protocol: u32,
    pub error: u32,
    pub cgroup: u32,
    // `struct net`.
    pub cookie: u32,
    // `struct cgroup` and `struct kernfs_node`.
    pub cgroup_node: u32,
    pub node_id: u32,
    // `struct inet_connection_sock`.
    pub unanswered: u32,
    // `struct tcp_sock`.
    pub bytes_acked: u32,
    pub bytes_received: u32,
    pub retransmits: u32,
    /// [`crate::NO_OFFSET`] where the kernel has no such counter.
    pub rtos: u32,
    pub segments_sent: u32,
    pub segments_received: u32,
    pub srtt: u32,
    pub send_window: u32,
    // `struct sk_buff` and what TCP keeps in it.
    pub segments: u32,
    pub device: u32,
    // `struct net_device`.
    pub device_net: u32,
    /// Keeps the size a multiple of 8 bytes.
    /// `cgroup.self.parent`, which points to the parent's `self`, where the parent itself begins; or [`NO_OFFSET`].
    pub cgroup_parent: u32,
}
assert_layout!(TcpOffsets, size = 112, align = 4);

pod!(TcpStats, TcpFirsts, TcpSocket, TcpEvent, TcpOffsets);

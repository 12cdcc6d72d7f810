//! What goes over connections to the container runtime's socket.

use crate::{COMM_LENGTH, assert_layout, pod};

/// A socket's file, by which connections to it are told; without an inode none is observed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketFile {
    pub inode: u64,
    /// The device of its file system as the kernel numbers it.
    pub device: u64,
}
assert_layout!(SocketFile, size = 16, align = 8);

/// Sent by a client.
pub const CRI_REQUEST: u32 = 0;
/// Received from the runtime.
pub const CRI_ANSWER: u32 = 1;
/// The runtime has closed the connection.
pub const CRI_CLOSED: u32 = 2;

/// Bytes of a small chunk and of a large one; the ring holds both, each behind a [`CriChunk`].
pub const CRI_SMALL_CHUNK: usize = 448;
pub const CRI_LARGE_CHUNK: usize = 4032;
/// Chunks that one call's data is copied in at most, and segments that it is gathered from, together; what is beyond them is
/// known by its length alone. gRPC's C core gathers the first request of a connection from some thirty segments.
pub const CRI_MAX_CHUNKS: usize = 96;

/// A part of what one system call sent or received.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CriChunk {
    /// `CLOCK_BOOTTIME` when the call ended, ns.
    pub time: u64,
    /// Tells connections apart, of those that exist at one time.
    pub connection: u64,
    /// Chunks that could not be recorded until now.
    pub losses: u64,
    /// `CRI_*`.
    pub kind: u32,
    /// The client, in the daemon's pid namespace; 0 for one outside of it.
    pub pid: u32,
    /// Bytes that the whole call sent or received.
    pub total: u32,
    /// Where the chunk's bytes are among them.
    pub offset: u32,
    /// How many bytes the chunk has.
    pub length: u32,
    pub reserved: u32,
    /// The calling thread's name.
    pub comm: [u8; COMM_LENGTH],
}
assert_layout!(CriChunk, size = 64, align = 8);

pod!(SocketFile, CriChunk);

//! Which sockets belong to connections with the runtime.
//!
//! The sockets that a listener's accept makes share its file, so that a connection is told by the file of the other end,
//! whenever it was made.

use aya_ebpf::Global;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use sabot_abi::SocketFile;

/// The runtime's socket; the daemon follows it when it is made anew.
#[map]
static RUNTIME: Array<SocketFile> = Array::with_max_entries(1, 0);

// Offsets of members in this kernel's structures.
#[unsafe(no_mangle)]
static SOCK_FAMILY: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static UNIX_DENTRY: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static UNIX_PEER: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static DENTRY_INODE: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static INODE_NUMBER: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static INODE_SUPER: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SUPER_DEVICE: Global<u32> = Global::new(0);

/// The connection of which a `struct sock` is the client's end, by the address of the runtime's end; `None` for all others.
#[inline(always)]
pub fn connection(sock: u64) -> Option<u64> {
    /// Of the sockets that have files.
    const AF_UNIX: u16 = 1;
    let runtime = RUNTIME.get(0).filter(|file| file.inode != 0)?;
    if read::<u16>(sock, &SOCK_FAMILY)? != AF_UNIX {
        return None;
    }
    let peer = pointer(sock, &UNIX_PEER)?;
    is_of(peer, runtime).then_some(peer)
}

#[inline(always)]
fn is_of(sock: u64, runtime: &SocketFile) -> bool {
    inode(sock)
        .filter(|&inode| read::<u64>(inode, &INODE_NUMBER) == Some(runtime.inode))
        .and_then(|inode| pointer(inode, &INODE_SUPER))
        .and_then(|superblock| read::<u32>(superblock, &SUPER_DEVICE))
        .is_some_and(|device| u64::from(device) == runtime.device)
}

/// Most sockets have no file.
#[inline(always)]
fn inode(sock: u64) -> Option<u64> {
    pointer(pointer(sock, &UNIX_DENTRY)?, &DENTRY_INODE)
}

#[inline(always)]
fn pointer(base: u64, offset: &Global<u32>) -> Option<u64> {
    read::<u64>(base, offset).filter(|&pointer| pointer != 0)
}

#[inline(always)]
pub fn read<T>(base: u64, offset: &Global<u32>) -> Option<T> {
    let place = base + u64::from(offset.load());
    // SAFETY: the helper checks the address and fails where nothing can be read; what it reads are integers.
    unsafe { bpf_probe_read_kernel(place as *const T) }.ok()
}

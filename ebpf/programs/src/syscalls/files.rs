//! From a descriptor of the current thread to its file, and to the socket behind it.

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_probe_read_kernel, bpf_probe_read_kernel_str};
use sabot_abi::{
    FILE_OFFSETS_FILE, FILE_OFFSETS_NAME, FILE_OFFSETS_PROGRAM, FILE_OFFSETS_SOCKET, FILE_OFFSETS_UNIX,
    FileOffsets, SYSCALL_TEXT_LENGTH, SYSCALL_UNIX_OWN, SYSCALL_UNIX_PEER, SyscallEvent,
};

use crate::details::kernel;

const NONE: FileOffsets = FileOffsets {
    known: 0,
    task_files: 0,
    files_fdt: 0,
    fdt_max_fds: 0,
    fdt_fd: 0,
    file_inode: 0,
    inode_mode: 0,
    file_dentry: 0,
    dentry_name: 0,
    file_private: 0,
    socket_type: 0,
    socket_sock: 0,
    sock_family: 0,
    sock_local_port: 0,
    sock_peer_port: 0,
    sock_local: 0,
    sock_peer: 0,
    sock_local6: 0,
    sock_peer6: 0,
    unix_address: 0,
    unix_peer: 0,
    unix_length: 0,
    unix_name: 0,
    binprm_filename: 0,
};

/// The daemon takes them from the running kernel's own description of its types.
#[unsafe(no_mangle)]
static FILE_OFFSETS: Global<FileOffsets> = Global::new(NONE);

const TYPE_MASK: u32 = 0o170_000;
const SOCKET: u32 = 0o140_000;
const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
/// The longest address of a Unix socket, rounded up to a mask.
const ADDRESS_MASK: u32 = 127;

/// What isn't known on this kernel, or isn't there any more, stays zero.
#[inline(always)]
pub fn read(event: &mut SyscallEvent, descriptor: u64) {
    let offsets = FILE_OFFSETS.load();
    if offsets.known & FILE_OFFSETS_FILE == 0 {
        return;
    }
    // A process's table is never replaced under its thread by another one.
    let Some(file) = file(&offsets, descriptor as u32) else {
        return;
    };
    let mode =
        field::<u64>(file, offsets.file_inode).and_then(|inode| field::<u16>(inode, offsets.inode_mode));
    let mode = u32::from(mode.unwrap_or(0));
    event.file.mode = mode;
    if mode & TYPE_MASK == SOCKET {
        if offsets.known & FILE_OFFSETS_SOCKET != 0 {
            socket(event, &offsets, file);
        }
    } else if offsets.known & FILE_OFFSETS_NAME != 0 {
        name(event, &offsets, file);
    }
}

#[inline(always)]
fn file(offsets: &FileOffsets, descriptor: u32) -> Option<u64> {
    // SAFETY: the helper takes nothing.
    let task = unsafe { bpf_get_current_task() };
    let files = field::<u64>(task, offsets.task_files)?;
    let table = field::<u64>(files, offsets.files_fdt)?;
    if descriptor >= field::<u32>(table, offsets.fdt_max_fds)? {
        return None;
    }
    let entries = field::<u64>(table, offsets.fdt_fd)?;
    let file = kernel::<u64>(entries + u64::from(descriptor) * size_of::<u64>() as u64)?;
    (file != 0).then_some(file)
}

/// The last part of its path; `[eventpoll]` and the like for what has none.
#[inline(always)]
fn name(event: &mut SyscallEvent, offsets: &FileOffsets, file: u64) {
    let Some(name) =
        field::<u64>(file, offsets.file_dentry).and_then(|dentry| field::<u64>(dentry, offsets.dentry_name))
    else {
        return;
    };
    event.text_lengths[1] = string(&mut event.texts[1], name);
}

/// The path by which a program was called, into the first text; `program` is the address of the `struct linux_binprm`.
#[inline(always)]
pub fn program(event: &mut SyscallEvent, program: u64) {
    let offsets = FILE_OFFSETS.load();
    if offsets.known & FILE_OFFSETS_PROGRAM != 0
        && let Some(path) = field::<u64>(program, offsets.binprm_filename)
    {
        event.text_lengths[0] = string(&mut event.texts[0], path);
    }
}

/// The length with its NUL; 0 where it can't be read.
#[inline(always)]
fn string(text: &mut [u8; SYSCALL_TEXT_LENGTH], address: u64) -> u32 {
    // SAFETY: the helper writes no more bytes than the text has; it takes any address.
    let length = unsafe {
        bpf_probe_read_kernel_str(
            text.as_mut_ptr().cast(),
            SYSCALL_TEXT_LENGTH as u32,
            address as *const _,
        )
    };
    length.max(0) as u32
}

#[inline(always)]
fn socket(event: &mut SyscallEvent, offsets: &FileOffsets, file: u64) {
    let Some(socket) = field::<u64>(file, offsets.file_private) else {
        return;
    };
    event.file.socket_type = field(socket, offsets.socket_type).unwrap_or(0);
    let Some(sock) = field::<u64>(socket, offsets.socket_sock) else {
        return;
    };
    let family = field::<u16>(sock, offsets.sock_family).unwrap_or(0);
    event.file.family = family;
    if family == AF_INET || family == AF_INET6 {
        event.file.local_port = field(sock, offsets.sock_local_port).unwrap_or(0);
        event.file.peer_port = u16::from_be(field(sock, offsets.sock_peer_port).unwrap_or(0));
    }
    if family == AF_INET {
        let local = field::<[u8; 4]>(sock, offsets.sock_local).unwrap_or_default();
        let peer = field::<[u8; 4]>(sock, offsets.sock_peer).unwrap_or_default();
        event.file.local[..4].copy_from_slice(&local);
        event.file.peer[..4].copy_from_slice(&peer);
    } else if family == AF_INET6 {
        event.file.local = field(sock, offsets.sock_local6).unwrap_or_default();
        event.file.peer = field(sock, offsets.sock_peer6).unwrap_or_default();
    } else if family == AF_UNIX && offsets.known & FILE_OFFSETS_UNIX != 0 {
        unix(event, offsets, sock);
    }
}

/// A client has no address and knows its server's; a server's socket has the one that it listens on.
#[inline(always)]
fn unix(event: &mut SyscallEvent, offsets: &FileOffsets, sock: u64) {
    let peer = field::<u64>(sock, offsets.unix_peer).unwrap_or(0);
    let of_peer = if peer == 0 {
        0
    } else {
        field::<u64>(peer, offsets.unix_address).unwrap_or(0)
    };
    let (address, whose) = if of_peer == 0 {
        (
            field::<u64>(sock, offsets.unix_address).unwrap_or(0),
            SYSCALL_UNIX_OWN,
        )
    } else {
        (of_peer, SYSCALL_UNIX_PEER)
    };
    if address == 0 {
        return;
    }
    let length = field::<u32>(address, offsets.unix_length).unwrap_or(0) & ADDRESS_MASK;
    // SAFETY: the helper writes no more bytes than the mask allows; it takes any address.
    let result = unsafe {
        bpf_probe_read_kernel(
            event.texts[1].as_mut_ptr().cast(),
            length,
            (address + u64::from(offsets.unix_name)) as *const _,
        )
    };
    if result == 0 {
        event.text_lengths[1] = length;
        event.file.unix = whose;
    }
}

#[inline(always)]
fn field<T: Copy + Default>(base: u64, offset: u32) -> Option<T> {
    kernel(base + u64::from(offset))
}

//! What an event says of its call: which of its arguments are read, and what they mean.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use sabot_abi::{
    SYSCALL_DETAIL_CLONE, SYSCALL_TEXT_LENGTH, SYSCALL_UNIX_OWN, SYSCALL_UNIX_PEER, SyscallDetail,
    SyscallEvent, SyscallFile,
};

use super::flags::Flags;
use crate::observe::names::{syscall_name, syscall_number};

/// A detail's name and its value.
pub type Detail = (&'static str, String);

/// What is said of a syscall.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// Whether the first argument is a descriptor that the call works on.
    is_file: bool,
    /// Arguments that are strings, with what they are.
    texts: [Option<(u8, &'static str)>; 2],
    /// The argument that is a socket's address.
    address: Option<u8>,
    /// The argument that holds flags; `None` beside `Flags::Clone`: they are in memory.
    flags: Option<(Option<u8>, Flags)>,
}

const NOTHING: Shape = Shape {
    is_file: false,
    texts: [None; 2],
    address: None,
    flags: None,
};
const FILE: Shape = Shape {
    is_file: true,
    ..NOTHING
};

const fn path(argument: u8) -> Shape {
    Shape {
        texts: [Some((argument, "path")), None],
        ..NOTHING
    }
}

const fn two(one: (u8, &'static str), other: (u8, &'static str)) -> Shape {
    Shape {
        texts: [Some(one), Some(other)],
        ..NOTHING
    }
}

const fn address(argument: u8) -> Shape {
    Shape {
        address: Some(argument),
        ..FILE
    }
}

impl Shape {
    const fn flags(self, argument: u8, flags: Flags) -> Self {
        Self {
            flags: Some((Some(argument), flags)),
            ..self
        }
    }

    /// As the programs are told.
    fn detail(self) -> SyscallDetail {
        let place = |argument: Option<u8>| argument.map_or(0, |argument| argument + 1);
        let memory = match self.flags {
            Some((None, _)) => 1 | SYSCALL_DETAIL_CLONE,
            _ => place(self.address),
        };
        SyscallDetail {
            file: u8::from(self.is_file),
            texts: self.texts.map(|text| place(text.map(|(argument, _)| argument))),
            memory,
        }
    }
}

/// `None` for a syscall of which nothing is read.
fn shape(syscall: &str) -> Option<Shape> {
    Some(match syscall {
        "open" => path(0).flags(1, Flags::Open),
        "openat" => path(1).flags(2, Flags::Open),
        "unlinkat" => path(1).flags(2, Flags::Unlink),
        "umount2" => path(0).flags(1, Flags::Unmount),
        "access" | "acct" | "chdir" | "chmod" | "chown" | "chroot" | "creat" | "execve" | "getxattr"
        | "lchown" | "lgetxattr" | "listxattr" | "llistxattr" | "lremovexattr" | "lsetxattr" | "lstat"
        | "mkdir" | "mknod" | "readlink" | "removexattr" | "rmdir" | "setxattr" | "stat" | "statfs"
        | "swapoff" | "swapon" | "truncate" | "unlink" | "utime" | "utimes" => path(0),
        "execveat" | "faccessat" | "faccessat2" | "fchmodat" | "fchmodat2" | "fchownat" | "fspick"
        | "futimesat" | "inotify_add_watch" | "mkdirat" | "mknodat" | "name_to_handle_at" | "newfstatat"
        | "open_tree" | "openat2" | "readlinkat" | "statx" | "utimensat" => path(1),
        "rename" => two((0, "from"), (1, "to")),
        "renameat" => two((1, "from"), (3, "to")),
        "renameat2" => two((1, "from"), (3, "to")).flags(4, Flags::Rename),
        "move_mount" => two((1, "from"), (3, "to")),
        "link" => two((0, "target"), (1, "path")),
        "linkat" => two((1, "target"), (3, "path")),
        "symlink" => two((0, "target"), (1, "path")),
        "symlinkat" => two((0, "target"), (2, "path")),
        "mount" => two((0, "source"), (1, "target")).flags(3, Flags::Mount),
        "pivot_root" => two((0, "new_root"), (1, "put_old")),
        "clone" | "unshare" => NOTHING.flags(0, Flags::Clone),
        "clone3" => Shape {
            flags: Some((None, Flags::Clone)),
            ..NOTHING
        },
        "setns" => NOTHING.flags(1, Flags::Clone),
        "bind" | "connect" => address(1),
        "sendto" => address(4),
        "accept" | "accept4" | "close" | "copy_file_range" | "epoll_ctl" | "epoll_pwait" | "epoll_pwait2"
        | "epoll_wait" | "fallocate" | "fchdir" | "fchmod" | "fchown" | "fcntl" | "fdatasync" | "flock"
        | "fstat" | "fstatfs" | "fsync" | "ftruncate" | "getdents" | "getdents64" | "getpeername"
        | "getsockname" | "getsockopt" | "ioctl" | "listen" | "lseek" | "pread64" | "preadv" | "preadv2"
        | "pwrite64" | "pwritev" | "pwritev2" | "read" | "readahead" | "readv" | "recvfrom" | "recvmmsg"
        | "recvmsg" | "sendfile" | "sendmmsg" | "sendmsg" | "setsockopt" | "shutdown" | "splice"
        | "sync_file_range" | "syncfs" | "tee" | "vmsplice" | "write" | "writev" => FILE,
        _ => return None,
    })
}

/// What the programs read of each syscall, by its number.
pub(super) fn table() -> Vec<(u32, SyscallDetail)> {
    (0..sabot_abi::SYSCALL_DETAILS as u32)
        .filter_map(|number| Some((number, shape(syscall_name(number))?.detail())))
        .collect()
}

/// What was read, by name; what could not be read is left out.
pub(crate) fn decode(event: &SyscallEvent) -> Vec<Detail> {
    let syscall = syscall_name(event.syscall);
    // A call that became another program has left nothing to read; its event has the program's name.
    let became = event.result == 0 && event.arguments == [0; sabot_abi::SYSCALL_ARGUMENTS];
    let Some(shape) = shape(syscall).filter(|_| !became) else {
        return Vec::new();
    };
    let mut details = Vec::new();
    for ((text, &length), named) in event.texts.iter().zip(&event.text_lengths).zip(shape.texts) {
        if let Some((_, name)) = named
            && let Some(text) = string(text, length)
        {
            details.push((name, text));
        }
    }
    if let Some((argument, flags)) = shape.flags {
        let value = match argument {
            Some(argument) => event.arguments.get(usize::from(argument)).copied(),
            None => number(&event.texts[0], event.text_lengths[0]),
        };
        details.extend(value.map(|value| ("flags", flags.text(value))));
    }
    if shape.address.is_some() {
        let length = event.text_lengths[0] as usize;
        let address = event.texts[0].get(..length).and_then(socket_address);
        details.extend(address.map(|address| ("address", address)));
    }
    if shape.is_file {
        details.push(("fd", (event.arguments[0] as i32).to_string()));
        file(event, &mut details);
    }
    details
}

fn file(event: &SyscallEvent, details: &mut Vec<Detail>) {
    let SyscallFile {
        mode,
        socket_type,
        family,
        local_port,
        peer_port,
        unix,
        local,
        peer,
    } = event.file;
    let Some(kind) = kind(mode, family, socket_type) else {
        return;
    };
    details.push(("fd_type", kind.to_owned()));
    let text = string(&event.texts[1], event.text_lengths[1]);
    match i32::from(family) {
        0 => details.extend(text.filter(|name| name != "/").map(|name| ("file", name))),
        libc::AF_UNIX => {
            let length = event.text_lengths[1] as usize;
            let path = event.texts[1].get(..length).and_then(socket_address);
            let whose = match unix {
                SYSCALL_UNIX_OWN => "local",
                SYSCALL_UNIX_PEER => "peer",
                _ => return,
            };
            details.extend(path.map(|path| (whose, path)));
        }
        libc::AF_INET | libc::AF_INET6 => {
            details.extend(endpoint(family, local, local_port).map(|end| ("local", end)));
            details.extend(endpoint(family, peer, peer_port).map(|end| ("peer", end)));
        }
        _ => {}
    }
}

fn kind(mode: u32, family: u16, socket_type: u16) -> Option<&'static str> {
    if mode == 0 {
        return None;
    }
    Some(match mode & libc::S_IFMT {
        libc::S_IFREG => "file",
        libc::S_IFDIR => "directory",
        libc::S_IFIFO => "pipe",
        libc::S_IFCHR => "character device",
        libc::S_IFBLK => "block device",
        libc::S_IFSOCK => match (i32::from(family), i32::from(socket_type)) {
            (libc::AF_INET | libc::AF_INET6, libc::SOCK_STREAM) => "tcp",
            (libc::AF_INET | libc::AF_INET6, libc::SOCK_DGRAM) => "udp",
            (libc::AF_UNIX, _) => "unix",
            (libc::AF_NETLINK, _) => "netlink",
            (libc::AF_PACKET, _) => "packet",
            _ => "socket",
        },
        // What has no place in a file system: an event counter, an epoll instance. Its name says which.
        _ => "anonymous",
    })
}

/// `None` for a socket without that end.
fn endpoint(family: u16, address: [u8; 16], port: u16) -> Option<String> {
    let address = if i32::from(family) == libc::AF_INET {
        let [a, b, c, d, ..] = address;
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    } else {
        IpAddr::V6(Ipv6Addr::from(address)).to_canonical()
    };
    (port != 0).then(|| SocketAddr::new(address, port).to_string())
}

/// A `sockaddr` as text: `10.0.0.1:443`, `[fd00::1]:443`, the path of a Unix socket or `@` and its abstract name.
fn socket_address(bytes: &[u8]) -> Option<String> {
    let (family, rest) = bytes.split_first_chunk::<2>()?;
    let port = || Some(u16::from_be_bytes(*rest.first_chunk::<2>()?));
    match i32::from(u16::from_ne_bytes(*family)) {
        libc::AF_INET => {
            let address: [u8; 4] = rest.get(2..6)?.try_into().ok()?;
            Some(SocketAddr::new(IpAddr::from(address), port()?).to_string())
        }
        libc::AF_INET6 => {
            let address: [u8; 16] = rest.get(6..22)?.try_into().ok()?;
            Some(SocketAddr::new(IpAddr::from(address), port()?).to_string())
        }
        libc::AF_UNIX => match rest {
            [] => None,
            [0, name @ ..] => Some(format!("@{}", String::from_utf8_lossy(name).replace('\0', "@"))),
            path => {
                let end = path.iter().position(|&byte| byte == 0).unwrap_or(path.len());
                Some(String::from_utf8_lossy(&path[..end]).into_owned())
            }
        },
        family => Some(format!("family {family}")),
    }
}

/// `length` counts the NUL. A text that is full may have been cut.
fn string(text: &[u8; SYSCALL_TEXT_LENGTH], length: u32) -> Option<String> {
    let bytes = text.get(..(length as usize).checked_sub(1)?)?;
    let mut string = String::from_utf8_lossy(bytes).into_owned();
    if length as usize == SYSCALL_TEXT_LENGTH {
        string.push('…');
    }
    Some(string)
}

fn number(text: &[u8; SYSCALL_TEXT_LENGTH], length: u32) -> Option<u64> {
    let bytes = text.get(..length as usize)?;
    Some(u64::from_ne_bytes(*bytes.first_chunk()?))
}

/// Numbers of the syscalls of these names that this architecture has.
pub(super) fn numbers(names: &[&str]) -> Vec<u32> {
    names.iter().filter_map(|name| syscall_number(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(syscall: &str, arguments: [u64; 6], texts: [&[u8]; 2]) -> SyscallEvent {
        let mut event = SyscallEvent {
            time: 0,
            duration_ns: 0,
            pid: 1,
            tid: 1,
            process: 1,
            syscall: syscall_number(syscall).expect("it exists"),
            cgroup: 0,
            result: -1,
            comm: [0; 16],
            arguments,
            file: SyscallFile::default(),
            text_lengths: [0; 2],
            texts: [[b'x'; SYSCALL_TEXT_LENGTH]; 2],
        };
        for (index, text) in texts.into_iter().enumerate() {
            event.text_lengths[index] = text.len() as u32;
            event.texts[index][..text.len()].copy_from_slice(text);
        }
        event
    }

    fn said(event: &SyscallEvent) -> String {
        let details: Vec<_> = decode(event)
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        details.join(" ")
    }

    #[test]
    fn paths_and_flags_are_named() {
        let open = event(
            "openat",
            [u64::MAX, 1, libc::O_WRONLY as u64, 0, 0, 0],
            [b"/a\0", b""],
        );
        assert_eq!(said(&open), "path=/a flags=O_WRONLY");
        let mount = event("mount", [1, 1, 1, libc::MS_BIND, 0, 0], [b"/a\0", b"/b\0"]);
        assert_eq!(said(&mount), "source=/a target=/b flags=MS_BIND");
        let unread = event("openat", [1, 1, 0, 0, 0, 0], [b"", b""]);
        assert_eq!(said(&unread), "flags=O_RDONLY");
        let clone = event(
            "clone3",
            [1; 6],
            [&(libc::CLONE_NEWNET as u64).to_ne_bytes(), b""],
        );
        assert_eq!(said(&clone), "flags=CLONE_NEWNET");
    }

    #[test]
    fn a_cut_path_says_so() {
        let mut cut = event("stat", [1; 6], [&[b'a'; SYSCALL_TEXT_LENGTH], b""]);
        cut.syscall = syscall_number("statx").expect("it exists");
        let text = said(&cut);
        assert!(text.starts_with("path=aaa") && text.ends_with("a…"), "{text}");
    }

    #[test]
    fn addresses_are_read_by_their_family() {
        let inet = [2, 0, 1, 187, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(socket_address(&inet).as_deref(), Some("10.0.0.1:443"));
        let mut inet6 = vec![10, 0, 0, 53, 0, 0, 0, 0];
        inet6.extend(Ipv6Addr::LOCALHOST.octets());
        inet6.extend([0; 4]);
        assert_eq!(socket_address(&inet6).as_deref(), Some("[::1]:53"));
        assert_eq!(socket_address(b"\x01\x00/run/x\0\0").as_deref(), Some("/run/x"));
        assert_eq!(
            socket_address(b"\x01\x00\0abstract").as_deref(),
            Some("@abstract")
        );
        assert_eq!(socket_address(b"\x01\x00"), None);
        assert_eq!(socket_address(b"\x10\x00rest").as_deref(), Some("family 16"));
        assert_eq!(socket_address(b"\x02\x00\x01"), None);
    }

    #[test]
    fn a_descriptor_is_its_files_type_and_peer() {
        let mut read = event("read", [5, 0, 0, 0, 0, 0], [b"", b""]);
        assert_eq!(said(&read), "fd=5");
        read.file = SyscallFile {
            mode: libc::S_IFSOCK | 0o777,
            socket_type: libc::SOCK_STREAM as u16,
            family: libc::AF_INET as u16,
            local_port: 40_000,
            peer_port: 443,
            ..SyscallFile::default()
        };
        read.file.peer[..4].copy_from_slice(&[10, 0, 0, 1]);
        assert_eq!(
            said(&read),
            "fd=5 fd_type=tcp local=0.0.0.0:40000 peer=10.0.0.1:443"
        );

        let mut sync = event("fsync", [3, 0, 0, 0, 0, 0], [b"", b"db\0"]);
        sync.file.mode = libc::S_IFREG | 0o644;
        assert_eq!(said(&sync), "fd=3 fd_type=file file=db");
    }

    #[test]
    fn the_table_says_what_to_read() {
        let table = table();
        let of = |name| {
            let number = syscall_number(name).expect("it exists");
            let found = table.iter().find(|(known, _)| *known == number);
            found.map(|(_, detail)| *detail)
        };
        assert_eq!(of("openat").map(|detail| detail.texts), Some([2, 0]));
        assert_eq!(
            of("sendto").map(|detail| (detail.file, detail.memory)),
            Some((1, 5))
        );
        assert_eq!(
            of("clone3").map(|detail| detail.memory),
            Some(1 | SYSCALL_DETAIL_CLONE)
        );
        assert_eq!(of("getpid"), None);
        // A descriptor's name goes into the second text.
        assert!(
            table
                .iter()
                .all(|(_, detail)| detail.file == 0 || detail.texts == [0; 2])
        );
    }
}

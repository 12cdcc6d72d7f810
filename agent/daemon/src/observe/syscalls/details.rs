//! What an event says of its call: which of its arguments are read, and what they mean.

#[cfg(test)]
mod tests;

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
    /// The argument that leads to memory, and what is there.
    memory: Option<(u8, Memory)>,
    /// The argument that holds flags.
    flags: Option<(u8, Flags)>,
}

/// What an argument points to. Its length is the next argument, where nothing else is said. It takes the place of the first
/// string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    /// Of a socket.
    Address,
    /// `struct clone_args`, of which the first eight bytes are read.
    CloneArguments,
    /// `struct open_how`.
    OpenHow,
    /// `struct mount_attr`.
    MountAttributes,
}

const NOTHING: Shape = Shape {
    is_file: false,
    texts: [None; 2],
    memory: None,
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
        memory: Some((argument, Memory::Address)),
        ..FILE
    }
}

/// A path, and how it is meant.
const fn path_and(path: u8, argument: u8, memory: Memory) -> Shape {
    Shape {
        texts: [None, Some((path, "path"))],
        memory: Some((argument, memory)),
        ..NOTHING
    }
}

impl Shape {
    const fn flags(self, argument: u8, flags: Flags) -> Self {
        Self {
            flags: Some((argument, flags)),
            ..self
        }
    }

    /// As the programs are told.
    fn detail(self) -> SyscallDetail {
        let place = |argument: Option<u8>| argument.map_or(0, |argument| argument + 1);
        let first_bytes = match self.memory {
            Some((_, Memory::CloneArguments)) => SYSCALL_DETAIL_CLONE,
            _ => 0,
        };
        let memory = place(self.memory.map(|(argument, _)| argument)) | first_bytes;
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
        "execveat" | "faccessat" | "faccessat2" | "fchmodat" | "fchmodat2" | "fchownat" | "futimesat"
        | "inotify_add_watch" | "mkdirat" | "mknodat" | "name_to_handle_at" | "newfstatat" | "readlinkat"
        | "statx" | "utimensat" => path(1),
        "openat2" => path_and(1, 2, Memory::OpenHow),
        "fsopen" => Shape {
            texts: [Some((0, "filesystem")), None],
            ..NOTHING
        }
        .flags(1, Flags::FsOpen),
        "fsconfig" => two((2, "key"), (3, "value")).flags(1, Flags::FsConfig),
        "fsmount" => FILE.flags(2, Flags::MountAttributes),
        "fspick" => path(1).flags(2, Flags::FsPick),
        "open_tree" => path(1).flags(2, Flags::OpenTree),
        "mount_setattr" => path_and(1, 3, Memory::MountAttributes).flags(2, Flags::At),
        "rename" => two((0, "from"), (1, "to")),
        "renameat" => two((1, "from"), (3, "to")),
        "renameat2" => two((1, "from"), (3, "to")).flags(4, Flags::Rename),
        "move_mount" => two((1, "from"), (3, "to")).flags(4, Flags::MoveMount),
        "link" => two((0, "target"), (1, "path")),
        "linkat" => two((1, "target"), (3, "path")),
        "symlink" => two((0, "target"), (1, "path")),
        "symlinkat" => two((0, "target"), (2, "path")),
        "mount" => two((0, "source"), (1, "target")).flags(3, Flags::Mount),
        "pivot_root" => two((0, "new_root"), (1, "put_old")),
        "clone" => NOTHING.flags(0, Flags::Clone),
        "unshare" => NOTHING.flags(0, Flags::Namespaces),
        "clone3" => Shape {
            memory: Some((0, Memory::CloneArguments)),
            ..NOTHING
        },
        "setns" => NOTHING.flags(1, Flags::Namespaces),
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
    let mut details = Vec::new();
    // A call that became another program has left nothing to read but which one.
    if event.result == 0 && event.arguments == [0; sabot_abi::SYSCALL_ARGUMENTS] {
        let program = string(&event.texts[0], event.text_lengths[0]);
        details.extend(program.map(|path| ("path", path)));
        return details;
    }
    let Some(shape) = shape(syscall) else {
        return details;
    };
    for ((text, &length), named) in event.texts.iter().zip(&event.text_lengths).zip(shape.texts) {
        if let Some((_, name)) = named
            && let Some(text) = string(text, length)
        {
            details.push((name, text));
        }
    }
    if syscall == "fsconfig" {
        configuration(event, &mut details);
    }
    if let Some((argument, flags)) = shape.flags {
        let value = event.arguments.get(usize::from(argument)).copied();
        let name = if flags == Flags::FsConfig {
            "command"
        } else {
            "flags"
        };
        details.extend(value.map(|value| (name, flags.text(value))));
    }
    if let Some((_, memory)) = shape.memory {
        let length = event.text_lengths[0] as usize;
        let bytes = event.texts[0].get(..length).unwrap_or_default();
        memory.decode(bytes, &mut details);
    }
    if shape.is_file {
        details.push(("fd", (event.arguments[0] as i32).to_string()));
        file(event, &mut details);
    }
    details
}

/// A parameter of a file system may be a password: only what says where it comes from is told.
fn configuration(event: &SyscallEvent, details: &mut Vec<Detail>) {
    const TOLD: [&str; 5] = ["source", "lowerdir", "lowerdir+", "upperdir", "workdir"];
    details.insert(0, ("fd", (event.arguments[0] as i32).to_string()));
    let is_told = details
        .iter()
        .any(|(name, key)| *name == "key" && TOLD.contains(&key.as_str()));
    details.retain(|(name, _)| is_told || *name != "value");
}

impl Memory {
    fn decode(self, bytes: &[u8], details: &mut Vec<Detail>) {
        // As the kernel reads them: what isn't given is zero.
        let word = |place: usize| {
            let word = bytes.get(8 * place..8 * (place + 1))?;
            Some(u64::from_ne_bytes(word.try_into().ok()?))
        };
        let mut take = |name, value: Option<u64>, flags: Flags| {
            details.extend(value.map(|value| (name, flags.text(value))));
        };
        let set = |value: Option<u64>| value.filter(|value| *value != 0);
        match self {
            Self::Address => details.extend(socket_address(bytes).map(|address| ("address", address))),
            Self::CloneArguments => take("flags", word(0), Flags::Namespaces),
            Self::OpenHow => {
                take("flags", word(0), Flags::Open);
                take("resolve", set(word(2)), Flags::Resolve);
            }
            Self::MountAttributes => {
                take("set", set(word(0)), Flags::MountAttributes);
                take("clear", set(word(1)), Flags::MountAttributes);
                take("propagation", set(word(2)), Flags::Mount);
            }
        }
    }
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

/// Numbers of the syscalls of these names that this architecture has.
pub(super) fn numbers(names: &[&str]) -> Vec<u32> {
    names.iter().filter_map(|name| syscall_number(name)).collect()
}

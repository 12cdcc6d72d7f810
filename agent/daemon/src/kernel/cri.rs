//! Loads the `cri` object and reads its maps.

use std::fs;
use std::io;
use std::os::linux::fs::MetadataExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use aya::maps::{Array, MapData, RingBuf};
use aya::programs::RawTracePoint;
use aya::{Ebpf, EbpfLoader};
use nix::sys::stat::{major, minor};
use sabot_abi::SocketFile;

use super::btf::{Btf, BtfError};
use super::object::{Named, ObjectError};
use super::syscalls::pid_namespace;
use crate::observe::names::syscall_number;

const CRI: Named = Named("cri");

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/cri"));

/// Programs and their tracepoints; answers before requests, so that no request is taken for unanswered.
const PROGRAMS: [(&str, &str); 2] = [
    ("cri_received", "sock_recv_length"),
    ("cri_sent", "sock_send_length"),
];
/// The inode of the initial pid namespace's file, which is the same on every machine.
const INITIAL_PID_NAMESPACE: u64 = 0xefff_fffc;

/// Members whose offsets the programs are given, by the global's name.
const OFFSETS: [(&str, &str, &str); 7] = [
    ("SOCK_FAMILY", "sock", "__sk_common.skc_family"),
    ("UNIX_DENTRY", "unix_sock", "path.dentry"),
    ("UNIX_PEER", "unix_sock", "peer"),
    ("DENTRY_INODE", "dentry", "d_inode"),
    ("INODE_NUMBER", "inode", "i_ino"),
    ("INODE_SUPER", "inode", "i_sb"),
    ("SUPER_DEVICE", "super_block", "s_dev"),
];
/// Members of `pt_regs` that hold a system call's number, its second and its third argument.
#[cfg(target_arch = "x86_64")]
const REGISTERS: [(&str, &str, u32); 3] = [
    ("REGS_NUMBER", "orig_ax", 0),
    ("REGS_SECOND", "si", 0),
    ("REGS_THIRD", "dx", 0),
];
#[cfg(target_arch = "aarch64")]
const REGISTERS: [(&str, &str, u32); 3] = [
    ("REGS_NUMBER", "syscallno", 0),
    ("REGS_SECOND", "regs", 8),
    ("REGS_THIRD", "regs", 16),
];
/// System calls by which data goes through sockets.
const CALLS: [(&str, &str); 8] = [
    ("NUMBER_READ", "read"),
    ("NUMBER_WRITE", "write"),
    ("NUMBER_READV", "readv"),
    ("NUMBER_WRITEV", "writev"),
    ("NUMBER_RECVFROM", "recvfrom"),
    ("NUMBER_SENDTO", "sendto"),
    ("NUMBER_RECVMSG", "recvmsg"),
    ("NUMBER_SENDMSG", "sendmsg"),
];

#[derive(Debug, thiserror::Error)]
pub enum CriProgramError {
    #[error(transparent)]
    Types(#[from] BtfError),
    #[error("this machine has no system call `{0}`")]
    NoCall(&'static str),
    #[error("the daemon's pid namespace can't be read: {0}")]
    PidNamespace(#[source] io::Error),
    #[error(transparent)]
    Object(#[from] ObjectError),
    #[error("{} can't be looked at: {source}", path.display())]
    Socket { path: PathBuf, source: io::Error },
    #[error("{} is no socket", .0.display())]
    NoSocket(PathBuf),
}

/// The attached programs, until this is dropped.
pub struct CriPrograms {
    runtime: Array<MapData, SocketFile>,
    losses: Array<MapData, u64>,
    /// Its links go with it.
    _object: Ebpf,
}

impl CriPrograms {
    /// Loads and attaches the programs; returns them and the ring of [`sabot_abi::CriChunk`]s. They observe nothing until
    /// they are told what.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the object (no privilege, no BTF, a kernel before 6.3) or its structures aren't as expected.
    pub fn attach() -> Result<(Self, RingBuf<MapData>), CriProgramError> {
        let mut object = load()?;
        let chunks = CRI.take(&mut object, "CHUNKS")?;
        let runtime = CRI.take(&mut object, "RUNTIME")?;
        let losses = CRI.take(&mut object, "LOSSES")?;
        for (name, tracepoint) in PROGRAMS {
            attach(&mut object, name, tracepoint)?;
        }
        let programs = Self {
            runtime,
            losses,
            _object: object,
        };
        Ok((programs, chunks))
    }

    /// Observes connections to this socket from now on, and no others; `None`: none.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn observe(&mut self, socket: Option<SocketFile>) -> Result<(), CriProgramError> {
        self.runtime
            .set(0, socket.unwrap_or_default(), 0)
            .map_err(|source| CRI.map("RUNTIME")(source).into())
    }

    /// Chunks that could not be recorded so far.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read the map.
    pub fn losses(&self) -> Result<u64, CriProgramError> {
        self.losses
            .get(&0, 0)
            .map_err(|source| CRI.map("LOSSES")(source).into())
    }
}

/// A socket's file as the kernel programs tell it.
///
/// # Errors
///
/// When it isn't there, or is something else.
pub fn socket_file(path: &Path) -> Result<SocketFile, CriProgramError> {
    const MINOR_BITS: u32 = 20;
    let file = fs::metadata(path).map_err(|source| CriProgramError::Socket {
        path: path.to_owned(),
        source,
    })?;
    if !file.file_type().is_socket() {
        return Err(CriProgramError::NoSocket(path.to_owned()));
    }
    Ok(SocketFile {
        inode: file.st_ino(),
        device: major(file.st_dev()) << MINOR_BITS | minor(file.st_dev()),
    })
}

fn load() -> Result<Ebpf, CriProgramError> {
    let (device, inode) = pid_namespace().map_err(CriProgramError::PidNamespace)?;
    let inode = if inode == INITIAL_PID_NAMESPACE { 0 } else { inode };
    let globals = globals()?;
    let mut loader = EbpfLoader::new();
    for (name, value) in &globals {
        loader.override_global(name, value, true);
    }
    loader
        .override_global("PID_NS_DEV", &device, true)
        .override_global("PID_NS_INO", &inode, true)
        .load(OBJECT)
        .map_err(|source| CRI.load(source).into())
}

/// What the programs must know about the kernel's structures.
fn globals() -> Result<Vec<(&'static str, u32)>, CriProgramError> {
    let btf = Btf::kernel()?;
    btf.require_tracepoints(PROGRAMS.map(|(_, tracepoint)| tracepoint))
        .map_err(BtfError::from)?;
    let mut globals = Vec::new();
    for (global, structure, member) in OFFSETS {
        globals.push((global, btf.offset(structure, member)?));
    }
    for (global, member, further) in REGISTERS {
        globals.push((global, btf.offset("pt_regs", member)? + further));
    }
    for (global, call) in CALLS {
        globals.push((global, syscall_number(call).ok_or(CriProgramError::NoCall(call))?));
    }
    Ok(globals)
}

fn attach(object: &mut Ebpf, name: &'static str, tracepoint: &str) -> Result<(), ObjectError> {
    let failed = |source| CRI.program(name, source);
    let program: &mut RawTracePoint = CRI.get(object, name)?;
    program.load().map_err(failed)?;
    program.attach(tracepoint).map(drop).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_socket_is_told_by_its_file_and_nothing_else_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runtime.sock");
        assert!(matches!(socket_file(&path), Err(CriProgramError::Socket { .. })));
        fs::write(&path, "no socket").unwrap();
        assert!(matches!(socket_file(&path), Err(CriProgramError::NoSocket(_))));
        fs::remove_file(&path).unwrap();
        let _listener = UnixListener::bind(&path).unwrap();
        let file = socket_file(&path).unwrap();
        assert_ne!(file.inode, 0);
        let link = folder.path().join("link.sock");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(socket_file(&link).unwrap(), file);
    }

    #[test]
    fn the_kernel_describes_all_that_the_programs_need() {
        let globals = globals().unwrap();
        assert_eq!(globals.len(), OFFSETS.len() + REGISTERS.len() + CALLS.len());
    }
}

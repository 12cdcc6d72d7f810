//! The gate: one program array through which every entry goes.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use aya::maps::{Map, MapData, MapError, ProgramArray};
use aya::programs::ProgramFd;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The gate's descriptor stands here, above everything that the daemon opens later. When the process dies the kernel
/// closes its highest descriptors first, and closing the last descriptor of a program array empties it: every fault is
/// inert before the slow release of links begins.
const HIGHEST: u64 = 1 << 16;

/// Descriptors of the gate: the two of [`Gate`] and what [`Gate::share`] gives.
const SHARES: u64 = 4;

pub(super) struct Gate {
    programs: ProgramArray<MapData>,
    fd: OwnedFd,
}

impl Gate {
    /// Takes over the map.
    pub(super) fn new(map: Map) -> Result<Self, GateError> {
        let Map::ProgramArray(data) = map else {
            return Err(GateError::WrongKind);
        };
        let limit = raise_limit().map_err(|e| GateError::Raise(e.into()))?;
        let place = limit.min(HIGHEST).saturating_sub(SHARES);
        let kept = duplicate_from(data.fd().as_fd(), place).map_err(GateError::Raise)?;
        let fd = duplicate_from(data.fd().as_fd(), place).map_err(GateError::Raise)?;
        drop(data);
        let programs = ProgramArray::try_from(Map::ProgramArray(MapData::from_fd(kept)?))?;
        Ok(Self { programs, fd })
    }

    /// Another descriptor of the gate, for loading entry programs. It stands as high as the gate's own.
    pub(super) fn share(&self) -> io::Result<OwnedFd> {
        duplicate_from(self.fd.as_fd(), self.fd.as_raw_fd() as u64)
    }

    pub(super) fn open(&mut self, index: u32, program: &ProgramFd) -> Result<(), GateError> {
        Ok(self.programs.set(index, program, 0)?)
    }

    /// Makes every fault inert at once.
    pub(super) fn close(&mut self) -> Result<(), GateError> {
        for index in 0..sabot_abi::GATE_SIZE {
            match self.programs.clear_index(&index) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum GateError {
    #[error("the map GATE is not a program array")]
    WrongKind,
    #[error("cannot move the gate to a high file descriptor: {0}")]
    Raise(#[source] io::Error),
    #[error("the gate: {0}")]
    Map(#[from] MapError),
}

/// Allows as many descriptors as the daemon may have, since each target takes some, and says how many.
fn raise_limit() -> nix::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

fn duplicate_from(fd: BorrowedFd<'_>, lowest: u64) -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is open; F_DUPFD_CLOEXEC gives a new one at or above `lowest`.
    let new = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest as libc::c_long) };
    if new < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(new) })
}

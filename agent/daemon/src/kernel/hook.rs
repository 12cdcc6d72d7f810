//! Attaching an entry program to a device of the calling thread's netns.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process;

use super::devices::Side;
use super::rtnl::{Rtnl, RtnlError};
use super::sys;

/// How programs are attached to targets' devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookKind {
    /// A link that ends with its descriptor (Linux 6.6 and later).
    Tcx,
    /// A filter on a clsact qdisc. It survives a killed daemon, inert behind the closed gate, until the daemon's reaper
    /// removes it or the next daemon sweeps it. To add that qdisc to a device and to remove it costs what is sent meanwhile:
    /// the kernel has the device's queues drop everything for a moment, measured to be below a millisecond.
    Clsact,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum HookError {
    #[error("cannot attach to {device} ({side}) by tcx: {source}")]
    Tcx {
        device: String,
        side: &'static str,
        source: io::Error,
    },
    #[error("cannot attach to {device} by clsact: {source}")]
    Clsact { device: String, source: RtnlError },
}

/// One program on one side of one device.
pub(super) enum Hook {
    /// Closing it detaches, from wherever; the close waits for an RCU grace period.
    Tcx(OwnedFd),
    Clsact {
        ifindex: u32,
        side: Side,
    },
}

impl Hook {
    /// Attaches before every other program on this side.
    pub(super) fn attach(
        kind: HookKind,
        program: BorrowedFd<'_>,
        device: &str,
        ifindex: u32,
        side: Side,
    ) -> Result<Self, HookError> {
        match kind {
            HookKind::Tcx => {
                let link =
                    sys::tcx_link(program.as_fd(), ifindex, side == Side::Egress).map_err(|source| {
                        let side = if side == Side::Egress { "egress" } else { "ingress" };
                        HookError::Tcx {
                            device: device.to_owned(),
                            side,
                            source,
                        }
                    })?;
                Ok(Self::Tcx(link))
            }
            HookKind::Clsact => {
                attach_clsact(program, ifindex, side).map_err(|source| HookError::Clsact {
                    device: device.to_owned(),
                    source,
                })?;
                Ok(Self::Clsact { ifindex, side })
            }
        }
    }

    /// Whether `detach` has to be called inside the target's netns.
    pub(super) fn is_clsact(&self) -> bool {
        matches!(self, Self::Clsact { .. })
    }

    /// Detaches, for clsact inside the target's netns.
    pub(super) fn detach(self) -> Result<(), RtnlError> {
        match self {
            Self::Tcx(link) => {
                drop(link);
                Ok(())
            }
            Self::Clsact { ifindex, side } => detach_clsact(ifindex, side, process::id()),
        }
    }
}

/// Attaches by clsact, which costs no grace period. On our own devices it is all that's needed: the filter goes with them.
pub(super) fn attach_clsact(program: BorrowedFd<'_>, ifindex: u32, side: Side) -> Result<(), RtnlError> {
    let mut rtnl = Rtnl::open()?;
    rtnl.add_clsact(ifindex)?;
    rtnl.add_filter(ifindex, side, program, "sabot")
}

/// Removes the filter of the daemon with this pid, and the qdisc when no filter of anybody is left on it.
pub(super) fn detach_clsact(ifindex: u32, side: Side, pid: u32) -> Result<(), RtnlError> {
    let mut rtnl = Rtnl::open()?;
    rtnl.delete_filter(ifindex, side, pid)?;
    let left = rtnl.filters(ifindex, Side::Ingress)?.len() + rtnl.filters(ifindex, Side::Egress)?.len();
    if left == 0 {
        rtnl.delete_clsact(ifindex)
    } else {
        Ok(())
    }
}

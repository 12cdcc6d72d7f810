//! A target's way to the delay line: a TAP in its netns.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use sabot_abi::LINE_DEVICE_LETTER;
use sabot_core::plan::TargetId;

use super::devices::Side;
use super::hook;
use super::netns::{self, NetnsError};
use super::rtnl::{Rtnl, RtnlError};
use super::sys;

pub(super) const TUN: &str = "/dev/net/tun";
/// `struct virtio_net_hdr_mrg_rxbuf`: what precedes each frame.
pub(super) const VNET_HEADER: usize = 12;
/// Frames that wait in the TAP for the delay line; a full queue drops, and the device counts it.
const QUEUE: u32 = 8192;
/// Larger than any frame.
const MTU: u32 = 65_521;

#[derive(Debug, thiserror::Error)]
pub(super) enum LineDeviceError {
    #[error("cannot open {TUN}: {0}")]
    Open(#[source] io::Error),
    #[error("cannot make a TAP: {0}")]
    Make(#[source] io::Error),
    #[error("cannot set up the TAP {name}: {source}")]
    SetUp { name: String, source: RtnlError },
    #[error("the TAP {0} has vanished")]
    Vanished(String),
    #[error(transparent)]
    Netns(#[from] NetnsError),
}

pub(super) fn device_name(target: TargetId) -> String {
    format!("sabot-{}{}", char::from(LINE_DEVICE_LETTER), target.0)
}

/// A TAP that stands in the target's netns and lives as long as its descriptor.
pub(super) struct LineDevice {
    pub(super) ifindex: u32,
}

impl LineDevice {
    /// Makes the TAP in `workshop` and moves it. A TAP's descriptor pins the netns in which it was opened, so that is
    /// never the target's: a deleted pod must really go.
    pub(super) fn make(
        target: TargetId,
        workshop: BorrowedFd<'_>,
        netns: BorrowedFd<'_>,
        program: BorrowedFd<'_>,
    ) -> Result<(Self, OwnedFd), LineDeviceError> {
        let name = device_name(target);
        let set_up = |source| LineDeviceError::SetUp {
            name: name.clone(),
            source,
        };
        let vanished = || LineDeviceError::Vanished(name.clone());
        let tap = netns::run_in(workshop, || {
            let tun = open_tun().map_err(LineDeviceError::Open)?;
            sys::make_tap(&tun, &name, VNET_HEADER as i32).map_err(LineDeviceError::Make)?;
            let mut rtnl = Rtnl::open().map_err(set_up)?;
            let link = rtnl.link(&name).map_err(set_up)?.ok_or_else(vanished)?;
            rtnl.set_queue(link.ifindex, QUEUE, MTU).map_err(set_up)?;
            rtnl.move_to(link.ifindex, netns).map_err(set_up)?;
            Ok::<File, LineDeviceError>(tun)
        })??;
        let ifindex = netns::run_in(netns, || {
            let mut rtnl = Rtnl::open().map_err(set_up)?;
            let link = rtnl.link(&name).map_err(set_up)?.ok_or_else(vanished)?;
            hook::attach_clsact(program, link.ifindex, Side::Ingress).map_err(set_up)?;
            rtnl.bring_up(link.ifindex).map_err(set_up)?;
            Ok::<u32, LineDeviceError>(link.ifindex)
        })??;
        Ok((Self { ifindex }, tap.into()))
    }
}

/// Opens the clone device; `EPERM` here is the daemon's device cgroup.
pub(super) fn open_tun() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(TUN)
}

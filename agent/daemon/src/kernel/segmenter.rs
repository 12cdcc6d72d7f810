//! The segmenter: a veth pair that lets no super-packet pass, so that a target's wire packets can be decided on one by one.
//!
//! The near end stands in the target's netns. The classifier redirects a super-packet into it, and on the way to the far
//! end, in the daemon's private netns, the kernel segments it and writes the checksums that were left to a device. The far
//! end's program hands each wire packet back to the near end's ingress. User space has no part in it. When the daemon dies
//! its private netns goes, with the far ends, and with them the near ones.

use std::io;
use std::os::fd::BorrowedFd;

use sabot_core::plan::TargetId;

use super::devices::{Side, VethPair};
use super::hook;
use super::netns::{self, NetnsError};
use super::offload;
use super::rtnl::{Rtnl, RtnlError};

/// Larger than any wire packet.
const MTU: u32 = 65_521;

#[derive(Debug, thiserror::Error)]
pub(super) enum SegmenterError {
    #[error("cannot set up the veth pair {name}: {source}")]
    SetUp { name: String, source: RtnlError },
    #[error("cannot turn off the offloads of the veth {name}: {source}")]
    Offload { name: String, source: io::Error },
    #[error("the veth {0} has vanished")]
    Vanished(String),
    #[error(transparent)]
    Netns(#[from] NetnsError),
}

/// Of both ends.
pub(super) fn device_name(target: TargetId) -> String {
    format!("sabot-s{}", target.0)
}

pub(super) struct Segmenter {
    /// In the target's netns.
    pub(super) near_ifindex: u32,
    /// In the daemon's private netns.
    far_ifindex: u32,
}

impl Segmenter {
    pub(super) fn make(
        target: TargetId,
        workshop: BorrowedFd<'_>,
        netns: BorrowedFd<'_>,
        program: BorrowedFd<'_>,
        bounce: BorrowedFd<'_>,
    ) -> Result<Self, SegmenterError> {
        let name = device_name(target);
        let set_up = |source| SegmenterError::SetUp {
            name: name.clone(),
            source,
        };
        let vanished = || SegmenterError::Vanished(name.clone());
        let far_ifindex = netns::run_in(workshop, || {
            let mut rtnl = Rtnl::open().map_err(set_up)?;
            let pair = VethPair {
                far: &name,
                near: &name,
                near_netns: netns,
                mtu: MTU,
            };
            rtnl.add_veth(&pair).map_err(set_up)?;
            let far = rtnl.link(&name).map_err(set_up)?.ok_or_else(vanished)?;
            hook::attach_clsact(bounce, far.ifindex, Side::Ingress).map_err(set_up)?;
            rtnl.bring_up(far.ifindex).map_err(set_up)?;
            Ok::<u32, SegmenterError>(far.ifindex)
        })??;
        let near_ifindex = netns::run_in(netns, || {
            let mut rtnl = Rtnl::open().map_err(set_up)?;
            let near = rtnl.link(&name).map_err(set_up)?.ok_or_else(vanished)?;
            offload::stop_offloads(&name).map_err(|source| SegmenterError::Offload {
                name: name.clone(),
                source,
            })?;
            hook::attach_clsact(program, near.ifindex, Side::Ingress).map_err(set_up)?;
            rtnl.bring_up(near.ifindex).map_err(set_up)?;
            Ok::<u32, SegmenterError>(near.ifindex)
        })??;
        Ok(Self {
            near_ifindex,
            far_ifindex,
        })
    }

    /// Deletes both ends; they may be gone already, with the target's netns.
    pub(super) fn delete(&self, workshop: BorrowedFd<'_>) -> Result<(), SegmenterError> {
        let name = || format!("with far end {}", self.far_ifindex);
        netns::run_in(workshop, || {
            Rtnl::open().and_then(|mut rtnl| rtnl.delete_link(self.far_ifindex))
        })?
        .map_err(|source| SegmenterError::SetUp { name: name(), source })
    }
}

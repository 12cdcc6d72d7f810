//! A veth pair that leads out of a target's netns and back: its near end stands there, its far end in the daemon's private one.
//!
//! The classifier redirects packets into the near end; a program on the far end's ingress sends them back, and one on the near
//! end's ingress on. When the daemon dies its private netns goes, with the far ends, and with them the near ones.

use std::os::fd::BorrowedFd;

use super::devices::{Side, VethPair};
use super::hook;
use super::netns::{self, NetnsError};
use super::rtnl::{Rtnl, RtnlError};

/// Larger than any wire packet.
const MTU: u32 = 65_521;

#[derive(Debug, thiserror::Error)]
pub(super) enum RoundaboutError {
    #[error("cannot set up the veth pair {name}: {source}")]
    SetUp { name: String, source: RtnlError },
    #[error("the veth {0} has vanished")]
    Vanished(String),
    #[error(transparent)]
    Netns(#[from] NetnsError),
}

/// Where a pair is made, and its programs.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    /// Of both ends.
    pub(super) name: &'a str,
    /// The daemon's private netns.
    pub(super) workshop: BorrowedFd<'a>,
    /// The target's.
    pub(super) netns: BorrowedFd<'a>,
    pub(super) near: BorrowedFd<'a>,
    pub(super) far: BorrowedFd<'a>,
}

pub(super) struct Roundabout {
    /// In the target's netns.
    pub(super) near_ifindex: u32,
    /// In the daemon's private netns.
    far_ifindex: u32,
}

impl Roundabout {
    /// The near end is prepared, in its own netns, before it comes up. On an error nothing is left.
    pub(super) fn make<E: From<RoundaboutError> + Send>(
        site: Site<'_>,
        prepare_near: impl FnOnce(&mut Rtnl, u32) -> Result<(), E> + Send,
    ) -> Result<Self, E> {
        let far_ifindex = site.inside(site.workshop, || -> Result<u32, E> {
            let mut rtnl = Rtnl::open().map_err(|e| site.failed(e))?;
            let pair = VethPair {
                far: site.name,
                near: site.name,
                near_netns: site.netns,
                mtu: MTU,
            };
            rtnl.add_veth(&pair).map_err(|e| site.failed(e))?;
            site.ifindex(&mut rtnl)
        })?;
        let ends = || {
            site.inside(site.workshop, || -> Result<(), E> {
                let mut rtnl = Rtnl::open().map_err(|e| site.failed(e))?;
                site.start(&mut rtnl, site.far, far_ifindex)
            })?;
            site.inside(site.netns, || -> Result<u32, E> {
                let mut rtnl = Rtnl::open().map_err(|e| site.failed(e))?;
                let near_ifindex = site.ifindex(&mut rtnl)?;
                prepare_near(&mut rtnl, near_ifindex)?;
                site.start(&mut rtnl, site.near, near_ifindex)?;
                Ok(near_ifindex)
            })
        };
        match ends() {
            Ok(near_ifindex) => Ok(Self {
                near_ifindex,
                far_ifindex,
            }),
            Err(error) => {
                delete(far_ifindex, site.workshop)?;
                Err(error)
            }
        }
    }

    /// Deletes both ends, with what is under way; they may be gone already, with the target's netns.
    pub(super) fn delete(&self, workshop: BorrowedFd<'_>) -> Result<(), RoundaboutError> {
        delete(self.far_ifindex, workshop)
    }
}

impl Site<'_> {
    fn inside<T: Send, E: From<RoundaboutError> + Send>(
        &self,
        netns: BorrowedFd<'_>,
        work: impl FnOnce() -> Result<T, E> + Send,
    ) -> Result<T, E> {
        netns::run_in(netns, work).map_err(RoundaboutError::from)?
    }

    fn ifindex<E: From<RoundaboutError>>(&self, rtnl: &mut Rtnl) -> Result<u32, E> {
        let link = rtnl.link(self.name).map_err(|e| self.failed(e))?;
        let link = link.ok_or_else(|| RoundaboutError::Vanished(self.name.to_owned()))?;
        Ok(link.ifindex)
    }

    /// Puts the program of an end in place and brings it up.
    fn start<E: From<RoundaboutError>>(
        &self,
        rtnl: &mut Rtnl,
        program: BorrowedFd<'_>,
        ifindex: u32,
    ) -> Result<(), E> {
        hook::attach_clsact(program, ifindex, Side::Ingress).map_err(|e| self.failed(e))?;
        rtnl.bring_up(ifindex).map_err(|e| self.failed(e))?;
        Ok(())
    }

    fn failed(&self, source: RtnlError) -> RoundaboutError {
        RoundaboutError::SetUp {
            name: self.name.to_owned(),
            source,
        }
    }
}

fn delete(far_ifindex: u32, workshop: BorrowedFd<'_>) -> Result<(), RoundaboutError> {
    netns::run_in(workshop, || {
        Rtnl::open().and_then(|mut rtnl| rtnl.delete_link(far_ifindex))
    })?
    .map_err(|source| RoundaboutError::SetUp {
        name: format!("with far end {far_ifindex}"),
        source,
    })
}

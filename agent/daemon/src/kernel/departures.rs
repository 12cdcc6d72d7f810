//! The departure queue: `sch_fq` in the daemon's private netns, where packets with a constant delay wait without user space.
//!
//! A veth pair as the segmenter's leads there. The classifier gives a packet the time at which it may depart and redirects it
//! into the near end; the far end's program sends a clone out of the far end again, where `fq` lets it go when its time has
//! come, back to the near end's ingress. The queue stands in the private netns and goes with it, and the near ends with their
//! far ones.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use sabot_core::plan::TargetId;
use sabot_core::resolve::MOST_DEPARTING;

use super::devices::{Side, VethPair};
use super::entry;
use super::hook;
use super::netns::{self, NetnsError};
use super::rtnl::{Rtnl, RtnlError};

/// Larger than any wire packet.
const MTU: u32 = 65_521;

#[derive(Debug, thiserror::Error)]
pub(super) enum DeparturesError {
    #[error("cannot set up the veth pair {name}: {source}")]
    SetUp { name: String, source: RtnlError },
    #[error("cannot make a queue of sch_fq: {0}")]
    Queue(#[source] RtnlError),
    #[error("programs can't give packets a time to depart, as from Linux 5.18 on ({0})")]
    Programs(#[source] io::Error),
    #[error("the veth {0} has vanished")]
    Vanished(String),
    #[error(transparent)]
    Netns(#[from] NetnsError),
}

/// Of both ends.
fn device_name(target: TargetId) -> String {
    format!("sabot-d{}", target.0)
}

/// One target's way to its queue and back.
pub(super) struct Departures {
    /// In the target's netns.
    pub(super) near_ifindex: u32,
    /// In the daemon's private netns.
    far_ifindex: u32,
}

impl Departures {
    /// `hold` is the far end's program, `program` the near end's.
    pub(super) fn make(
        target: TargetId,
        workshop: BorrowedFd<'_>,
        netns: BorrowedFd<'_>,
        program: BorrowedFd<'_>,
        hold: BorrowedFd<'_>,
    ) -> Result<Self, DeparturesError> {
        let name = device_name(target);
        let far_ifindex = make_far(&name, workshop, netns, hold)?;
        let made = bring_up_near(&name, netns, program).map(|near_ifindex| Self {
            near_ifindex,
            far_ifindex,
        });
        if made.is_err() {
            delete(far_ifindex, workshop)?;
        }
        made
    }

    /// Deletes both ends, with what is held; they may be gone already, with the target's netns.
    pub(super) fn delete(&self, workshop: BorrowedFd<'_>) -> Result<(), DeparturesError> {
        delete(self.far_ifindex, workshop)
    }
}

/// Whether all this can be made here, and what it is good for; the netns is a private one, and the devices go with it.
pub(super) fn try_out(workshop: BorrowedFd<'_>) -> Result<String, DeparturesError> {
    entry::load_departing().map_err(DeparturesError::Programs)?;
    let hold = entry::load_hold().map_err(DeparturesError::Programs)?;
    let netns = netns::make_private()?;
    make_far("sabot-probe-d", workshop, netns.as_fd(), hold.as_fd())?;
    let most = MOST_DEPARTING.as_millis();
    Ok(format!("constant delays of up to {most}ms are held by sch_fq"))
}

fn make_far(
    name: &str,
    workshop: BorrowedFd<'_>,
    netns: BorrowedFd<'_>,
    hold: BorrowedFd<'_>,
) -> Result<u32, DeparturesError> {
    let set_up = set_up(name);
    netns::run_in(workshop, || {
        let mut rtnl = Rtnl::open().map_err(&set_up)?;
        let pair = VethPair {
            far: name,
            near: name,
            near_netns: netns,
            mtu: MTU,
        };
        rtnl.add_veth(&pair).map_err(&set_up)?;
        let far = ifindex(&mut rtnl, name)?;
        let made = rtnl
            .add_departure_queue(far)
            .map_err(DeparturesError::Queue)
            .and_then(|()| hook::attach_clsact(hold, far, Side::Ingress).map_err(&set_up))
            .and_then(|()| rtnl.bring_up(far).map_err(&set_up));
        if made.is_err() {
            rtnl.delete_link(far).map_err(&set_up)?;
        }
        made.map(|()| far)
    })?
}

fn bring_up_near(name: &str, netns: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<u32, DeparturesError> {
    let set_up = set_up(name);
    netns::run_in(netns, || {
        let mut rtnl = Rtnl::open().map_err(&set_up)?;
        let near = ifindex(&mut rtnl, name)?;
        hook::attach_clsact(program, near, Side::Ingress).map_err(&set_up)?;
        rtnl.bring_up(near).map_err(&set_up)?;
        Ok(near)
    })?
}

fn delete(far_ifindex: u32, workshop: BorrowedFd<'_>) -> Result<(), DeparturesError> {
    netns::run_in(workshop, || {
        Rtnl::open().and_then(|mut rtnl| rtnl.delete_link(far_ifindex))
    })?
    .map_err(set_up(&format!("with far end {far_ifindex}")))
}

fn ifindex(rtnl: &mut Rtnl, name: &str) -> Result<u32, DeparturesError> {
    let link = rtnl.link(name).map_err(set_up(name))?;
    let link = link.ok_or_else(|| DeparturesError::Vanished(name.to_owned()))?;
    Ok(link.ifindex)
}

fn set_up(name: &str) -> impl Fn(RtnlError) -> DeparturesError {
    let name = name.to_owned();
    move |source| DeparturesError::SetUp {
        name: name.clone(),
        source,
    }
}

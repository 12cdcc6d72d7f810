//! The departure queue: `sch_fq` on a device of ours in the target's netns, where packets with a constant delay wait without
//! user space.
//!
//! A veth pair as the segmenter's, and it goes as that does. The classifier gives a packet the time at which it may depart and
//! redirects it into the near end, where a program lets go of the sender's socket and `fq` holds the packet until its time has
//! come. The far end's program hands it back to the near end's ingress.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use sabot_core::plan::TargetId;
use sabot_core::resolve::MOST_DEPARTING;

use super::devices::Side;
use super::entry;
use super::hook;
use super::netns::{self, NetnsError};
use super::roundabout::{Roundabout, RoundaboutError, Site};
use super::rtnl::{Rtnl, RtnlError};

#[derive(Debug, thiserror::Error)]
pub(super) enum DeparturesError {
    #[error("cannot make a queue of sch_fq: {0}")]
    Queue(#[source] RtnlError),
    #[error("programs can't give packets a time to depart, as from Linux 5.18 on ({0})")]
    Programs(#[source] io::Error),
    #[error(transparent)]
    Pair(#[from] RoundaboutError),
    #[error(transparent)]
    Netns(#[from] NetnsError),
}

/// The programs that all targets' queues share.
#[derive(Clone, Copy)]
pub(super) struct Shared<'a> {
    /// On the near end's way out.
    pub(super) hold: BorrowedFd<'a>,
    /// The far end's.
    pub(super) bounce: BorrowedFd<'a>,
}

/// One target's way to its queue and back. `program` gets what comes back.
pub(super) fn make(
    target: TargetId,
    workshop: BorrowedFd<'_>,
    netns: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    shared: Shared<'_>,
) -> Result<Roundabout, DeparturesError> {
    let site = Site {
        name: &format!("sabot-d{}", target.0),
        workshop,
        netns,
        near: program,
        far: shared.bounce,
    };
    make_at(site, shared.hold)
}

/// Whether all this can be made here, and what it is good for; the netns is a private one, and the devices go with it.
pub(super) fn try_out(workshop: BorrowedFd<'_>) -> Result<String, DeparturesError> {
    entry::load_departing().map_err(DeparturesError::Programs)?;
    let hold = entry::load_hold().map_err(DeparturesError::Programs)?;
    let bounce = entry::load_bounce().map_err(DeparturesError::Programs)?;
    let netns = netns::make_private()?;
    let site = Site {
        name: "sabot-probe",
        workshop,
        netns: netns.as_fd(),
        near: hold.as_fd(),
        far: bounce.as_fd(),
    };
    make_at(site, hold.as_fd())?;
    let most = MOST_DEPARTING.as_millis();
    Ok(format!("constant delays of up to {most}ms are held by sch_fq"))
}

fn make_at(site: Site<'_>, hold: BorrowedFd<'_>) -> Result<Roundabout, DeparturesError> {
    let prepare = |rtnl: &mut Rtnl, near: u32| {
        rtnl.add_departure_queue(near)?;
        hook::attach_clsact(hold, near, Side::Egress)
    };
    Roundabout::make(site, |rtnl, near| {
        prepare(rtnl, near).map_err(DeparturesError::Queue)
    })
}

//! The departure queue: `sch_fq` in the daemon's private netns, where packets with a constant delay wait without user space.
//!
//! A veth pair as the segmenter's leads there. The classifier gives a packet the time at which it may depart and redirects it
//! into the near end; the far end's program sends a clone out of the far end again, where `fq` lets it go when its time has
//! come, back to the near end's ingress.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use sabot_core::plan::TargetId;
use sabot_core::resolve::MOST_DEPARTING;

use super::entry;
use super::netns::{self, NetnsError};
use super::roundabout::{Roundabout, RoundaboutError, Site};
use super::rtnl::RtnlError;

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

/// One target's way to its queue and back. `program` is the near end's, `hold` the far end's.
pub(super) fn make(
    target: TargetId,
    workshop: BorrowedFd<'_>,
    netns: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    hold: BorrowedFd<'_>,
) -> Result<Roundabout, DeparturesError> {
    make_named(&format!("sabot-d{}", target.0), workshop, netns, program, hold)
}

/// Whether all this can be made here, and what it is good for; the netns is a private one, and the devices go with it.
pub(super) fn try_out(workshop: BorrowedFd<'_>) -> Result<String, DeparturesError> {
    entry::load_departing().map_err(DeparturesError::Programs)?;
    let hold = entry::load_hold().map_err(DeparturesError::Programs)?;
    let netns = netns::make_private()?;
    make_named("sabot-probe", workshop, netns.as_fd(), hold.as_fd(), hold.as_fd())?;
    let most = MOST_DEPARTING.as_millis();
    Ok(format!("constant delays of up to {most}ms are held by sch_fq"))
}

fn make_named(
    name: &str,
    workshop: BorrowedFd<'_>,
    netns: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    hold: BorrowedFd<'_>,
) -> Result<Roundabout, DeparturesError> {
    let site = Site {
        name,
        workshop,
        netns,
        near: program,
        far: hold,
    };
    Roundabout::make(
        site,
        |rtnl, far| rtnl.add_departure_queue(far).map_err(DeparturesError::Queue),
        || Ok(()),
    )
}

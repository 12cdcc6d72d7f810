//! The departure queue: `sch_fq` on a device of ours in the target's netns, where packets with a constant delay wait without
//! user space.
//!
//! A veth pair as the segmenter's, and it goes as that does. The classifier gives a packet the time at which it may depart and
//! redirects it into the near end, where a program lets go of the sender's socket and `fq` holds the packet until its time has
//! come. The far end's program hands it back to the near end's ingress.
//!
//! Without more, one CPU would carry a sender's packets through all of that and on to the receiver. What comes to a far end is
//! received by all CPUs instead, each flow by one of them, so that its order stays: receive packet steering, which devices get
//! from their netns, and so the far ends have one of their own.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::{fs, io};

use aya::util::online_cpus;
use sabot_core::plan::TargetId;
use sabot_core::resolve::MOST_DEPARTING;

use super::devices::Side;
use super::entry;
use super::hook;
use super::netns::{self, NetnsError};
use super::roundabout::{Roundabout, RoundaboutError, Site};
use super::rtnl::{Rtnl, RtnlError};

/// Which CPUs receive for devices that are made in the netns of whoever reads or writes it; from Linux 6.4 on.
const STEERING: &str = "/proc/sys/net/core/rps_default_mask";

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

/// What all targets' queues share.
pub(super) struct Yard {
    /// The program on the near ends' way out.
    hold: OwnedFd,
    /// The netns in which the far ends stand.
    netns: OwnedFd,
    /// Whether all CPUs receive there, or why only the one that sends.
    steered: io::Result<()>,
}

impl Yard {
    pub(super) fn open() -> Result<Self, DeparturesError> {
        let hold = entry::load_hold().map_err(DeparturesError::Programs)?;
        let netns = OwnedFd::from(netns::make_private()?);
        let steered = netns::run_in(netns.as_fd(), steer)?;
        Ok(Self { hold, netns, steered })
    }

    /// One target's way to its queue and back. `program` gets what comes back, `bounce` is the far end's.
    pub(super) fn make(
        &self,
        target: TargetId,
        netns: BorrowedFd<'_>,
        program: BorrowedFd<'_>,
        bounce: BorrowedFd<'_>,
    ) -> Result<Roundabout, DeparturesError> {
        self.make_named(&format!("sabot-d{}", target.0), netns, program, bounce)
    }

    fn make_named(
        &self,
        name: &str,
        netns: BorrowedFd<'_>,
        near: BorrowedFd<'_>,
        far: BorrowedFd<'_>,
    ) -> Result<Roundabout, DeparturesError> {
        let site = Site {
            name,
            workshop: self.netns.as_fd(),
            netns,
            near,
            far,
        };
        let prepare = |rtnl: &mut Rtnl, near: u32| {
            rtnl.add_departure_queue(near)?;
            hook::attach_clsact(self.hold.as_fd(), near, Side::Egress)
        };
        Roundabout::make(site, |rtnl, near| {
            prepare(rtnl, near).map_err(DeparturesError::Queue)
        })
    }

    /// Deletes what was made here.
    pub(super) fn delete(&self, pair: &Roundabout) -> Result<(), RoundaboutError> {
        pair.delete(self.netns.as_fd())
    }
}

/// Whether all this can be made here, and what it is good for; the netns is a private one, and the devices go with it.
pub(super) fn try_out() -> Result<String, DeparturesError> {
    entry::load_departing().map_err(DeparturesError::Programs)?;
    let yard = Yard::open()?;
    let bounce = entry::load_bounce().map_err(DeparturesError::Programs)?;
    let netns = netns::make_private()?;
    yard.make_named("sabot-probe", netns.as_fd(), bounce.as_fd(), bounce.as_fd())?;
    let most = MOST_DEPARTING.as_millis();
    let by = match yard.steered {
        Ok(()) => "received by all CPUs".to_owned(),
        Err(error) => format!("received by the CPU that sends them ({STEERING}: {error})"),
    };
    Ok(format!(
        "constant delays of up to {most}ms are held by sch_fq, and what comes from it is {by}"
    ))
}

/// Devices that are made in this netns from now on have all CPUs to receive for them, each flow one of them.
fn steer() -> io::Result<()> {
    let cpus = online_cpus().map_err(|(_, error)| error)?;
    fs::write(STEERING, mask(&cpus))
}

/// As the kernel reads it: 32 CPUs a word in hexadecimal digits, the last ones first.
fn mask(cpus: &[u32]) -> String {
    let mut words = vec![0u32; cpus.iter().max().map_or(1, |last| *last as usize / 32 + 1)];
    for cpu in cpus {
        words[*cpu as usize / 32] |= 1 << (cpu % 32);
    }
    let words: Vec<String> = words.iter().rev().map(|word| format!("{word:08x}")).collect();
    words.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_has_the_last_cpus_first() {
        assert_eq!(mask(&[0, 1]), "00000003");
        assert_eq!(mask(&[0, 31, 32, 69]), "00000020,00000001,80000001");
        assert_eq!(mask(&[]), "00000000");
    }
}

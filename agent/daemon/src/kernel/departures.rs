//! The departure queue: `sch_fq` on a device of ours in the target's netns, where packets with a constant delay wait without
//! user space.
//!
//! A veth pair as the segmenter's, and it goes as that does. The classifier gives a packet the time at which it may depart and
//! redirects it into the near end, where a program lets go of the sender's socket and `fq` holds the packet until its time has
//! come. The far end's program hands it back to the near end's ingress.
//!
//! Without more, one CPU would carry a sender's packets through all of that and on to the receiver. What comes to a far end is
//! received by all CPUs instead, each flow by one of them, so that its order stays: receive packet steering, which the sysfs of
//! the far ends' netns has for each device.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::util::online_cpus;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use sabot_core::plan::TargetId;
use sabot_core::resolve::MOST_DEPARTING;
use tracing::debug;

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

/// What all targets' queues share.
pub(super) struct Yard {
    /// The program on the near ends' way out.
    hold: OwnedFd,
    /// That of the daemon's private netns, where the far ends stand; or why there is none.
    sysfs: io::Result<OwnedFd>,
}

impl Yard {
    /// The far ends will stand in `workshop`, the daemon's private netns.
    pub(super) fn open(workshop: BorrowedFd<'_>) -> Result<Self, DeparturesError> {
        let hold = entry::load_hold().map_err(DeparturesError::Programs)?;
        let sysfs = netns::sysfs(workshop)?;
        Ok(Self { hold, sysfs })
    }

    /// One target's way to its queue and back: `site` has the netns that this was opened for.
    pub(super) fn make(&self, site: Site<'_>) -> Result<Roundabout, DeparturesError> {
        let pair = self.make_pair(site)?;
        // What was tried at the start can hardly fail now, and without it a queue only has less to carry with.
        if let Err(error) = self.steer(site.name) {
            debug!(name = site.name, %error, "only the CPU that sends a packet receives it from the queue");
        }
        Ok(pair)
    }

    fn make_pair(&self, site: Site<'_>) -> Result<Roundabout, DeparturesError> {
        let prepare = |rtnl: &mut Rtnl, near: u32| {
            rtnl.add_departure_queue(near)?;
            hook::attach_clsact(self.hold.as_fd(), near, Side::Egress)
        };
        Roundabout::make(site, |rtnl, near| {
            prepare(rtnl, near).map_err(DeparturesError::Queue)
        })
    }

    /// Has all CPUs receive for the far end of that name, each flow one of them.
    fn steer(&self, name: &str) -> io::Result<()> {
        let sysfs = self
            .sysfs
            .as_ref()
            .map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
        let path = format!("class/net/{name}/queues/rx-0/rps_cpus");
        let file = openat(sysfs, &*path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let cpus = online_cpus().map_err(|(_, error)| error)?;
        File::from(file).write_all(mask(&cpus).as_bytes())
    }
}

/// Of both ends.
pub(super) fn device_name(target: TargetId) -> String {
    format!("sabot-d{}", target.0)
}

/// Whether all this can be made here, and what it is good for; the namespaces are private ones, and the devices go with them.
pub(super) fn try_out() -> Result<String, DeparturesError> {
    const PROBE: &str = "sabot-probe";
    entry::load_departing().map_err(DeparturesError::Programs)?;
    let [workshop, netns] = [netns::make_private()?, netns::make_private()?];
    let yard = Yard::open(workshop.as_fd())?;
    let bounce = entry::load_bounce().map_err(DeparturesError::Programs)?;
    yard.make_pair(Site {
        name: PROBE,
        workshop: workshop.as_fd(),
        netns: netns.as_fd(),
        near: bounce.as_fd(),
        far: bounce.as_fd(),
    })?;
    let most = MOST_DEPARTING.as_millis();
    let by = match yard.steer(PROBE) {
        Ok(()) => "received by all CPUs".to_owned(),
        Err(error) => format!("received by the CPU that sends it (no receive packet steering: {error})"),
    };
    Ok(format!(
        "constant delays of up to {most}ms are held by sch_fq, and what comes from it is {by}"
    ))
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
    use super::super::devices::VethPair;
    use super::*;

    #[test]
    fn all_cpus_receive_for_a_device_that_is_steered_and_for_no_other_one() {
        let [workshop, elsewhere] = [0, 1].map(|_| netns::make_private().expect("a namespace"));
        let yard = Yard::open(workshop.as_fd()).expect("the programs load");
        let names = ["sabot-d1", "sabot-d2"];
        let add = || -> Result<(), RtnlError> {
            let mut rtnl = Rtnl::open()?;
            names.iter().try_for_each(|name| {
                rtnl.add_veth(&VethPair {
                    far: name,
                    near: name,
                    near_netns: elsewhere.as_fd(),
                    mtu: 1500,
                })
            })
        };
        netns::run_in(workshop.as_fd(), add)
            .expect("it is entered")
            .expect("they are made");
        yard.steer(names[0]).expect("the kernel takes it");
        let sysfs = yard.sysfs.as_ref().expect("there is one");
        let [steered, other] = names.map(|name| {
            let path = format!("class/net/{name}/queues/rx-0/rps_cpus");
            let file = openat(sysfs, &*path, OFlag::O_RDONLY, Mode::empty()).expect("it is there");
            io::read_to_string(File::from(file)).expect("it is text")
        });
        let bits = |mask: &str| {
            mask.chars()
                .filter_map(|c| c.to_digit(16))
                .map(u32::count_ones)
                .sum::<u32>()
        };
        let online = online_cpus().expect("the kernel tells them").len();
        assert_eq!((bits(&steered) as usize, bits(&other)), (online, 0));
        let error = yard.steer("sabot-d3").expect_err("there is none");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_mask_has_the_last_cpus_first() {
        assert_eq!(mask(&[0, 1]), "00000003");
        assert_eq!(mask(&[0, 31, 32, 69]), "00000020,00000001,80000001");
        assert_eq!(mask(&[]), "00000000");
    }
}

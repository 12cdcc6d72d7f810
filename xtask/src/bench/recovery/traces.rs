//! What faults have on a machine, looked at fast enough to time when the last of it goes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use aya::programs::{loaded_links, loaded_programs};
use sabot_testkit::leaks::devices;
use sabot_testkit::{Daemon, Lab, LabPod, NetnsRef};

use crate::bench::usage::held;
use crate::interrupt;

const LOOK: Duration = Duration::from_millis(1);

/// Links, programs, devices and qdiscs of ours.
pub(super) struct Traces {
    links: BTreeSet<u32>,
    programs: BTreeSet<u32>,
    /// The daemon's own, which it holds without any fault.
    before: BTreeSet<u32>,
    places: Vec<(NetnsRef, BTreeSet<String>)>,
}

impl Traces {
    /// Notes what the daemon holds without faults, and the devices of the node and of its first pods.
    ///
    /// # Errors
    ///
    /// The daemon is no more, or a namespace can't be looked at.
    pub(super) fn before(daemon: &Daemon, lab: &Lab, pods: usize) -> Result<Self> {
        let mut places = Vec::new();
        let pods = lab.pods().iter().take(pods).map(LabPod::netns);
        for netns in pods.chain([lab.node()]) {
            places.push(((**netns).clone(), devices(netns)?));
        }
        Ok(Self {
            links: BTreeSet::new(),
            programs: BTreeSet::new(),
            before: held(daemon.pid(), "link_id:")?,
            places,
        })
    }

    /// Notes what the faults that are in force now have attached; of a daemon that is to end, everything that it holds.
    ///
    /// # Errors
    ///
    /// The daemon is no more, or has attached nothing.
    pub(super) fn learn(&mut self, daemon: &Daemon, ends: bool) -> Result<()> {
        self.links = held(daemon.pid(), "link_id:")?;
        if ends {
            self.programs = held(daemon.pid(), "prog_id:")?;
        } else {
            self.links = &self.links - &self.before;
        }
        let left = self.left()?;
        ensure!(
            left > self.places.len(),
            "of the faults only {left} traces are seen"
        );
        Ok(())
    }

    /// Waits until nothing of it is there.
    ///
    /// # Errors
    ///
    /// Something still is when the time is over.
    pub(super) fn wait_gone(&self, timeout: Duration) -> Result<()> {
        let end = Instant::now() + timeout;
        loop {
            let left = self.left()?;
            if left == 0 {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "{left} links, programs, devices and qdiscs are left after {timeout:?}"
            );
            interrupt::sleep(LOOK)?;
        }
    }

    /// How much of it is there.
    fn left(&self) -> Result<usize> {
        // What goes between two steps of a list isn't there.
        let links = loaded_links().flatten().map(|link| link.id());
        let mut left = links.filter(|id| self.links.contains(id)).count();
        if !self.programs.is_empty() {
            let programs = loaded_programs().flatten().map(|program| program.id());
            left += programs.filter(|id| self.programs.contains(id)).count();
        }
        for (netns, before) in &self.places {
            left += devices(netns)?.difference(before).count();
        }
        Ok(left)
    }
}

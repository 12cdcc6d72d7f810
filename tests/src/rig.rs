//! A lab with a daemon on its node: what most end-to-end tests begin with.
//!
//! Its functions panic where others return an error: to a test, a daemon that refuses is a failure.

use std::ops::Deref;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use sabot_proto::sabot::v1::{Direction, Fault, Phase};

use crate::books::Books;
use crate::daemon::{Client, Daemon, DaemonOptions};
use crate::lab::Lab;
use crate::netns::NetnsRef;
use crate::spec::Spec;
use crate::wait::{on_this_machine, wait_for};

/// How long something may take that takes milliseconds on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// Counters that stand still for this long have come to rest.
const REST: Duration = Duration::from_millis(150);

#[derive(Debug)]
pub struct Rig {
    // Dropped before the namespaces in which it has its devices.
    pub daemon: Daemon,
    pub client: Client,
    pub lab: Lab,
    flags: Vec<String>,
}

impl Rig {
    /// # Panics
    ///
    /// The pods can't be made, or the daemon doesn't start.
    pub fn new(pods: usize) -> Self {
        Self::with_flags(pods, &[])
    }

    /// # Panics
    ///
    /// As [`Rig::new`].
    pub fn with_flags(pods: usize, flags: &[&str]) -> Self {
        let lab = Lab::new(pods).expect("pods can be made (root is needed)");
        let flags: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
        let (daemon, client) = start(&lab, &flags);
        Self {
            daemon,
            client,
            lab,
            flags,
        }
    }

    /// Ends the daemon, if it still runs, and starts another one.
    ///
    /// # Panics
    ///
    /// It doesn't start.
    pub fn restart(&mut self) {
        // That it has ended already is what most tests of this are about.
        let _ = self.daemon.terminate();
        (self.daemon, self.client) = start(&self.lab, &self.flags);
    }

    /// Applies a fault and waits until it is in force on its target.
    ///
    /// # Panics
    ///
    /// It isn't.
    pub fn apply(&self, name: &str, spec: Spec) -> Fault {
        let fault = self
            .client
            .apply(name, spec.into(), on_this_machine(PATIENCE))
            .unwrap_or_else(|status| panic!("{name} is refused: {status}"));
        let status = fault.status.clone().unwrap_or_default();
        assert_eq!(
            status.phase(),
            Phase::Injected,
            "{name}: {} {:?}",
            status.message,
            status.targets
        );
        fault
    }

    /// Deletes a fault; with its last counters.
    ///
    /// # Panics
    ///
    /// The daemon refuses.
    pub fn delete(&self, name: &str) -> Fault {
        self.client
            .delete("", name)
            .unwrap_or_else(|status| panic!("{name} can't be deleted: {status}"))
    }

    /// The fault with its counters, read from the kernel now.
    ///
    /// # Panics
    ///
    /// The daemon doesn't know it.
    pub fn get(&self, name: &str) -> Fault {
        self.client
            .get("", name)
            .unwrap_or_else(|status| panic!("{name} can't be read: {status}"))
    }

    /// A fault's counters in one direction, read from the kernel now.
    ///
    /// # Panics
    ///
    /// As [`Rig::get`].
    pub fn books(&self, name: &str, direction: Direction) -> Books {
        Books::of(&self.get(name), direction)
    }

    /// A fault's counters on egress and on ingress once they have come to rest, each of them balanced.
    ///
    /// # Panics
    ///
    /// They don't come to rest, or aren't balanced then.
    pub fn settled(&self, name: &str) -> [Books; 2] {
        let read = || {
            let fault = self.get(name);
            [Direction::Egress, Direction::Ingress].map(|direction| Books::of(&fault, direction))
        };
        let mut last = read();
        let rested = wait_for(PATIENCE, Duration::ZERO, || {
            thread::sleep(REST);
            let now = read();
            let same = now == last && now.iter().all(|books| books.held.packets == 0);
            last = now;
            same.then_some(now)
        });
        let rested = rested.unwrap_or_else(|| panic!("{name}'s counters don't come to rest: {last:#?}"));
        for books in &rested {
            books.assert_balanced();
        }
        rested
    }

    /// When a fault that was just applied ends.
    ///
    /// # Panics
    ///
    /// It has no deadline.
    pub fn deadline(&self, fault: &Fault) -> Instant {
        deadline_of(fault)
    }

    /// The namespaces in which something could be left behind.
    pub fn places(&self) -> Vec<&NetnsRef> {
        let pods = self.lab.pods().iter().map(|pod| pod.netns().deref());
        pods.chain(std::iter::once(self.lab.node().deref())).collect()
    }
}

/// When a fault that was just applied ends.
///
/// # Panics
///
/// It has no deadline.
pub fn deadline_of(fault: &Fault) -> Instant {
    let expires = fault.status.as_ref().and_then(|status| status.expires_at);
    let expires = expires.and_then(|time| SystemTime::try_from(time).ok());
    let expires = expires.expect("every fault has a deadline");
    let rest = expires.duration_since(SystemTime::now()).unwrap_or_default();
    Instant::now() + rest
}

fn start(lab: &Lab, flags: &[String]) -> (Daemon, Client) {
    let mut options = DaemonOptions::built().expect("sabotd and sabot are built");
    options.netns = Some((**lab.node()).clone());
    options.flags = flags.to_vec();
    let daemon = Daemon::start(options).unwrap_or_else(|error| panic!("{error:#}"));
    let client = daemon.client().expect("the daemon answers");
    (daemon, client)
}

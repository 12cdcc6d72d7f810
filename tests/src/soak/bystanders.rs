//! What no fault names: nothing of it is lost, altered or doubled, whatever happens beside it.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{CUT, Seen, WATCHED, WATCHING};
use crate::lab::Lab;
use crate::netns::NetnsRef;
use crate::rig::PATIENCE;
use crate::traffic::{ProbeServer, Prober, UdpLoad, UdpReceiver};

/// Two probers on a machine that has enough to do.
const PACE: Duration = Duration::from_millis(10);
/// Of a load that is checked by hashes: half a second each.
const LOAD: UdpLoad = UdpLoad {
    datagrams: 50,
    payload: 400,
    per_second: 100,
};

/// Between pods that no fault names; and from the pod that is cut off, to another than the one it is cut off from.
pub(super) struct Bystanders {
    probers: [(&'static str, Prober); 2],
    _server: ProbeServer,
    receiver: UdpReceiver,
    watching: NetnsRef,
    /// Up to where probes were looked at.
    checked: Instant,
    overruns: u64,
    unsettled: u64,
    sender: Option<JoinHandle<()>>,
}

impl Bystanders {
    pub(super) fn start(lab: &Lab) -> Self {
        let [watched, watching, cut] = [WATCHED, WATCHING, CUT].map(|index| lab.pod(index));
        let server = ProbeServer::start(watched.netns(), watched.ipv4()).expect("it binds");
        let probe =
            |from: &NetnsRef| Prober::start(from, &server, PACE).expect("there is a route between pods");
        let probers = [
            ("between bystanders", probe(watching.netns())),
            ("from the cut pod to a bystander", probe(cut.netns())),
        ];
        for (what, prober) in &probers {
            let passed = prober.wait_pass(Instant::now(), PATIENCE);
            assert!(passed.is_some(), "no probe passes {what}");
        }
        let to: IpAddr = watched.ipv6();
        let mut bystanders = Self {
            probers,
            _server: server,
            receiver: UdpReceiver::start(watched.netns(), to).expect("it binds"),
            watching: (**watching.netns()).clone(),
            checked: Instant::now(),
            overruns: overruns(),
            unsettled: 0,
            sender: None,
        };
        bystanders.send();
        bystanders
    }

    /// Of the probes since the last time, and of a load of datagrams, nothing is missing but what the kernel says that it
    /// had no room for.
    pub(super) fn check(&mut self, seen: &mut Seen) {
        let mut lost = Vec::new();
        let until = Instant::now();
        // What was sent just now may be on its way.
        thread::sleep(Duration::from_secs(1));
        for (what, prober) in &self.probers {
            let answered = || {
                let passage = prober.passage(self.checked, until);
                passage.answered == passage.sent
            };
            crate::wait::wait_until(PATIENCE, PACE, answered);
            let passage = prober.passage(self.checked, until);
            seen.unnamed += passage.sent as u64;
            let missing = (passage.sent - passage.answered) as u64;
            if missing > 0 {
                lost.push((missing, format!("{what}: {passage:?}")));
            }
        }
        self.checked = until;
        lost.extend(self.received(seen));
        let missing: u64 = lost.iter().map(|(missing, _)| missing).sum();
        let now = overruns();
        self.unsettled += now - self.overruns;
        self.overruns = now;
        let excused = missing.min(self.unsettled);
        self.unsettled = 0;
        seen.overrun += excused;
        assert_eq!(
            missing, excused,
            "lost without a fault that names it, and the kernel dropped {excused} for want of room: {lost:?}"
        );
        self.send();
    }

    /// The datagrams of the load that was sent last: the missing ones are for the caller, the rest must be intact.
    fn received(&mut self, seen: &mut Seen) -> Option<(u64, String)> {
        self.sender.take()?.join().expect("datagrams can be sent");
        let report = self.receiver.finish(LOAD.datagrams, Duration::from_secs(1));
        seen.unnamed += LOAD.datagrams;
        assert!(report.altered.is_empty(), "altered without a fault: {report:?}");
        assert_eq!(report.duplicates, 0, "doubled without a fault: {report:?}");
        let missing = report.missing(LOAD.datagrams);
        (!missing.is_empty()).then(|| (missing.len() as u64, format!("datagrams {missing:?}")))
    }

    /// Sends the next load; it is looked at when it is over.
    fn send(&mut self) {
        let (watching, to): (NetnsRef, SocketAddr) = (self.watching.clone(), self.receiver.address());
        self.sender = Some(thread::spawn(move || {
            LOAD.send(&watching, to).expect("datagrams can be sent");
        }));
    }

    pub(super) fn finish(mut self, seen: &mut Seen) {
        self.check(seen);
        if let Some(sender) = self.sender.take() {
            sender.join().expect("datagrams can be sent");
        }
    }
}

/// Packets that the kernel had no room for on their way between two namespaces: all CPUs, from the start of the machine.
fn overruns() -> u64 {
    let text = fs::read_to_string("/proc/net/softnet_stat").expect("/proc is mounted");
    let dropped = text.lines().filter_map(|line| line.split_whitespace().nth(1));
    dropped
        .filter_map(|field| u64::from_str_radix(field, 16).ok())
        .sum()
}

//! A node with a real runtime and a real daemon on it.
//!
//! The daemon runs in the node's network namespace, as a DaemonSet with `hostNetwork: true` does: what it takes for the
//! node's own addresses, devices and network must be what the pods and their runtime take for it. From the machine's
//! namespace, a pod on this node's network would look like any other, and other addresses would be spared.

use std::env;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use sabot_proto::sabot::v1::{Direction, Fault, FaultStatus, Ledger, Phase, Tally};
use sabot_testkit::cri::{Containerd, ExecResult, Pod, PodSpec};
use sabot_testkit::daemon::Client;
use sabot_testkit::traffic::{ProbeServer, Prober};
use sabot_testkit::wait::{wait_for, wait_until};
use sabot_testkit::{Daemon, DaemonOptions, NetnsRef};
use serde_json::Value;

/// Longer than a busy machine needs for what takes milliseconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const LOOK: Duration = Duration::from_millis(10);
/// For one `wget` between pods; it takes some milliseconds, and as many seconds in vain.
const FETCH: Duration = Duration::from_secs(3);
/// The node's address on the pods' bridge.
pub(crate) const GATEWAY: &str = "10.88.0.1";

pub(crate) struct Node {
    pub(crate) client: Client,
    // Ends before the runtime does.
    pub(crate) daemon: Daemon,
    pub(crate) containerd: Containerd,
}

impl Node {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// With more flags for the daemon.
    pub(crate) fn with(flags: &[&str]) -> Self {
        Self::on(
            Containerd::start(&env::temp_dir()).expect("containerd starts"),
            flags,
        )
    }

    /// Where a runtime and its pods are older than the daemon.
    pub(crate) fn on(containerd: Containerd, flags: &[&str]) -> Self {
        let netns = NetnsRef::open(containerd.node_netns()).expect("the node has a namespace");
        let options = DaemonOptions::built().expect("the daemon is built");
        let options = options.runtime(&containerd.socket()).netns(&netns).flags(flags);
        let daemon = Daemon::start(options).expect("the daemon starts");
        let client = daemon.client().expect("the daemon answers");
        Self {
            client,
            daemon,
            containerd,
        }
    }

    pub(crate) fn netns(&self) -> NetnsRef {
        NetnsRef::open(self.containerd.node_netns()).expect("the node has a namespace")
    }

    /// Runs a pod, and waits until the daemon knows it.
    pub(crate) fn pod(&self, spec: &PodSpec) -> Pod {
        let pod = self.containerd.run_pod(spec).expect("the pod runs");
        self.wait_known(&pod);
        pod
    }

    pub(crate) fn wait_known(&self, pod: &Pod) {
        let known = wait_until(PATIENCE, LOOK, || {
            self.sandboxes(&pod.spec) == [pod.sandbox.as_str()]
        });
        assert!(known, "the daemon doesn't know {pod:?}: {:#?}", self.targets());
    }

    /// `sabot targets -o json`.
    pub(crate) fn targets(&self) -> Vec<Value> {
        let document = self.daemon.sabot_json(&["targets"]).expect("targets are listed");
        document["targets"].as_array().expect("a list").clone()
    }

    /// The sandboxes that the daemon knows of a pod of this name.
    pub(crate) fn sandboxes(&self, spec: &PodSpec) -> Vec<String> {
        let targets = self.targets();
        let pods = targets.iter().map(|target| &target["pod"]);
        pods.filter(|pod| pod["namespace"] == spec.namespace.as_str() && pod["name"] == spec.name.as_str())
            .map(|pod| pod["sandbox"].as_str().expect("pods have one").to_owned())
            .collect()
    }

    /// Runs `sabot`, which must succeed.
    pub(crate) fn sabot(&self, line: &str) -> String {
        let words: Vec<_> = line.split(' ').collect();
        self.daemon
            .sabot_ok(&words)
            .unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// A fault without a namespace, with its counters.
    pub(crate) fn fault(&self, name: &str) -> Fault {
        self.client
            .get("", name)
            .unwrap_or_else(|status| panic!("{name}: {status}"))
    }

    pub(crate) fn status(&self, name: &str) -> FaultStatus {
        self.fault(name).status.expect("faults have a status")
    }

    /// Waits until a fault is as `holds` says.
    pub(crate) fn wait_status(
        &self,
        name: &str,
        what: &str,
        holds: impl Fn(&FaultStatus) -> bool,
    ) -> FaultStatus {
        let mut last = None;
        let found = wait_for(PATIENCE, LOOK, || {
            let status = self.status(name);
            let found = holds(&status);
            last = Some(status);
            found.then_some(())
        });
        let last = last.expect("it is asked for at least once");
        assert!(found.is_some(), "{name}: waited in vain for {what}: {last:#?}");
        last
    }

    /// The sum of a fault's counters in one direction, once no packet is held; the identity holds for it.
    pub(crate) fn ledger(&self, name: &str, direction: Direction) -> Ledger {
        let is_quiet = |status: &FaultStatus| sum(status, direction).held == Some(Tally::default());
        let status = self.wait_status(name, "an empty delay line", is_quiet);
        let sum = sum(&status, direction);
        let all = [
            sum.passed,
            sum.dropped,
            sum.bypassed,
            sum.rejected,
            sum.released,
            sum.lost_segmenter,
            sum.lost_queue,
            sum.lost_bound,
            sum.lost_write,
            sum.lost_late,
        ];
        let all = all.into_iter().flatten();
        let explained = all.fold(Tally::default(), |a, b| Tally {
            packets: a.packets + b.packets,
            bytes: a.bytes + b.bytes,
        });
        let [matched, copies] = [sum.matched, sum.duplicated].map(Option::unwrap_or_default);
        let matched = Tally {
            packets: matched.packets + copies.packets,
            bytes: matched.bytes + copies.bytes,
        };
        assert_eq!(matched, explained, "{sum:#?}");
        sum
    }

    /// When a fault's deadline is.
    pub(crate) fn deadline(&self, name: &str) -> Instant {
        let expires = self.status(name).expires_at.expect("faults have a deadline");
        let expires = SystemTime::try_from(expires).expect("it is a time");
        // The clocks are read one after the other; what comes between makes the deadline too early, not too late.
        let now = Instant::now();
        now + expires.duration_since(SystemTime::now()).unwrap_or_default()
    }

    /// `wget` inside a pod from the web server of another one.
    pub(crate) fn wget(&self, from: &Pod, to: IpAddr) -> ExecResult {
        let url = match to {
            IpAddr::V4(ip) => format!("http://{ip}/"),
            IpAddr::V6(ip) => format!("http://[{ip}]/"),
        };
        self.containerd
            .exec(from, &["wget", "-q", "-O", "-", &url], FETCH)
            .expect("the runtime runs it")
    }

    /// Each pod fetches from the other one, on its addresses of both families.
    pub(crate) fn assert_reaches(&self, pairs: &[(&Pod, &Pod)]) {
        for_each(pairs, |from, to, ip| {
            let mut last = None;
            // The server's container runs, but may not listen yet.
            let reached = wait_for(PATIENCE, LOOK, || {
                let result = self.wget(from, ip);
                let success = result.success() && result.stdout == format!("{}\n", to.spec.name);
                last = Some(result);
                success.then_some(())
            });
            let (from, to) = (&from.spec.name, &to.spec.name);
            assert!(reached.is_some(), "{from} doesn't reach {to} on {ip}: {last:?}");
        });
    }

    /// `wget` times out between these pods, on the addresses of both families.
    pub(crate) fn assert_cut(&self, pairs: &[(&Pod, &Pod)]) {
        for_each(pairs, |from, to, ip| {
            let result = self.wget(from, ip);
            let (from, to) = (&from.spec.name, &to.spec.name);
            assert!(result.timed_out(), "{from} reaches {to} on {ip}: {result:?}");
        });
    }
}

/// Tries all pairs on both families at once: most of a try is waiting.
fn for_each(pairs: &[(&Pod, &Pod)], attempt: impl Fn(&Pod, &Pod, IpAddr) + Sync) {
    thread::scope(|scope| {
        for (from, to) in pairs {
            for ip in [to.ip(), to.ipv6()] {
                scope.spawn({
                    let attempt = &attempt;
                    move || attempt(from, to, ip)
                });
            }
        }
    });
}

/// The sum of a fault's counters over its targets, in one direction.
pub(crate) fn sum(status: &FaultStatus, direction: Direction) -> Ledger {
    let mut sum = Ledger::default();
    let entries = status
        .ledgers
        .iter()
        .filter(|entry| entry.direction == direction as i32);
    for ledger in entries.filter_map(|entry| entry.ledger.as_ref()) {
        for (into, from) in [
            (&mut sum.matched, &ledger.matched),
            (&mut sum.passed, &ledger.passed),
            (&mut sum.dropped, &ledger.dropped),
            (&mut sum.bypassed, &ledger.bypassed),
            (&mut sum.rejected, &ledger.rejected),
            (&mut sum.released, &ledger.released),
            (&mut sum.duplicated, &ledger.duplicated),
            (&mut sum.replied, &ledger.replied),
            (&mut sum.corrupted, &ledger.corrupted),
            (&mut sum.delayed, &ledger.delayed),
            (&mut sum.held, &ledger.held),
            (&mut sum.lost_segmenter, &ledger.lost_segmenter),
            (&mut sum.lost_queue, &ledger.lost_queue),
            (&mut sum.lost_bound, &ledger.lost_bound),
            (&mut sum.lost_write, &ledger.lost_write),
            (&mut sum.lost_late, &ledger.lost_late),
        ] {
            let (into, from) = (into.get_or_insert_default(), from.unwrap_or_default());
            into.packets += from.packets;
            into.bytes += from.bytes;
        }
    }
    sum
}

pub(crate) fn packets(tally: Option<Tally>) -> u64 {
    tally.unwrap_or_default().packets
}

pub(crate) fn is_injected(status: &FaultStatus) -> bool {
    status.phase() == Phase::Injected
}

/// The network namespace of a pod. While this lives, so does the namespace.
pub(crate) fn netns(pod: &Pod) -> NetnsRef {
    NetnsRef::open(&pod.netns).expect("the pod has a namespace")
}

/// Paced probes from one pod to another that pass now.
pub(crate) struct Probes {
    pub(crate) prober: Prober,
    _server: ProbeServer,
}

impl Probes {
    pub(crate) fn start(from: &Pod, to: &Pod, ip: IpAddr) -> Self {
        let probes = Self::start_unchecked(from, to, ip);
        let passed = probes.prober.wait_pass(Instant::now(), PATIENCE);
        passed.unwrap_or_else(|| panic!("probes to {ip} don't pass before the fault"));
        probes
    }

    /// They may be cut already.
    pub(crate) fn start_unchecked(from: &Pod, to: &Pod, ip: IpAddr) -> Self {
        let server = ProbeServer::start(&netns(to), ip).expect("the probe server starts");
        let prober = Prober::start(&netns(from), &server, sabot_testkit::traffic::INTERVAL)
            .expect("the prober starts");
        Self {
            prober,
            _server: server,
        }
    }

    /// No probe of this time got an answer within it; there were some.
    pub(crate) fn assert_cut(&self, from: Instant, until: Instant) {
        let samples = self.prober.between(from, until);
        assert!(!samples.is_empty(), "no probe was sent in {:?}", until - from);
        let answered = samples
            .iter()
            .filter(|sample| sample.answered.is_some_and(|answered| answered < until));
        assert_eq!(answered.count(), 0, "of {} probes some passed", samples.len());
    }
}

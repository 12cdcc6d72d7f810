//! Pods that talk with each other through faults, a runtime that names them, a daemon, and a Prometheus that scrapes it.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use domain::base::Rtype;
use sabot_testkit::cri::fake::{Events, FakeRuntime, FakeSandbox, ask, socket_in};
use sabot_testkit::kube::FakeCluster;
use sabot_testkit::metrics::Scrape;
use sabot_testkit::traffic::{Echo, NameServer, UdpLoad, UdpReceiver, echo_once};
use sabot_testkit::wait::{wait_for, wait_until};
use sabot_testkit::{Daemon, DaemonOptions, Lab, Prometheus};
use serde_json::Value;
use tempfile::TempDir;

use crate::deploy;

pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
pub(crate) const LOOK: Duration = Duration::from_millis(200);
const ANSWER: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(300);
const LOAD: UdpLoad = UdpLoad {
    datagrams: 60,
    payload: 200,
    per_second: 2000,
};

/// Pods of the namespace `shop`, by their places in the lab.
pub(crate) const PODS: [&str; 3] = ["web", "db", "names"];
const WEB: usize = 0;
const DB: usize = 1;
const NAMES: usize = 2;

/// Nobody listens on it.
const CLOSED_PORT: u16 = 9;

pub(crate) struct Scene {
    // What is above ends before what is below.
    pub(crate) prometheus: Prometheus,
    pub(crate) daemon: Daemon,
    names: NameServer,
    echo: Echo,
    runtime: FakeRuntime,
    _cluster: FakeCluster,
    folder: TempDir,
    lab: Lab,
}

impl Scene {
    /// With three faults: `late` delays what web sends to db, `some` loses a part of what db receives from names, and `cut`
    /// all that names receives from db.
    pub(crate) fn new() -> Self {
        let lab = Lab::new(PODS.len()).expect("a lab can be made (root is needed)");
        let folder = tempfile::tempdir().expect("a temporary folder");
        // It is known by its name, and does what etcd is judged by.
        fs::copy("/bin/dd", folder.path().join("etcd")).expect("dd can be copied");
        let socket = socket_in(&folder);
        let runtime = FakeRuntime::start(&socket, "1.7.13", Events::Offered);
        for (pod, name) in lab.pods().iter().zip(PODS) {
            let sandbox = FakeSandbox {
                addresses: vec![pod.ipv4().to_string(), pod.ipv6().to_string()],
                ..FakeSandbox::ready(name, pod.netns().path())
            };
            runtime.put(name, sandbox);
        }
        let options = DaemonOptions::built().expect("the daemon is built");
        let options = options.netns(lab.node()).runtime(&socket);
        let options = options.flags(&["--syscall-process", "etcd", "--measure-programs", "always"]);
        let cluster = FakeCluster::start_in(lab.node());
        let kubeconfig = cluster.kubeconfig();
        let options = options.flags(&["--kubeconfig", &kubeconfig.to_string_lossy()]);
        let daemon = Daemon::start(options).expect("the daemon starts");
        let rules = deploy("prometheus/rules.yaml");
        let prometheus = Prometheus::start(lab.node(), daemon.metrics_address(), &rules);
        let scene = Self {
            prometheus: prometheus.expect("prometheus starts"),
            daemon,
            names: NameServer::start(lab.pod(NAMES).netns(), lab.pod(NAMES).ipv4())
                .expect("the name server starts"),
            echo: Echo::start(lab.pod(DB).netns(), lab.pod(DB).ipv4()).expect("the echo starts"),
            runtime,
            _cluster: cluster,
            folder,
            lab,
        };
        scene.names.set("db.shop", &[scene.lab.pod(DB).ipv4()], 1);
        scene.apply("delay 20ms --name late --direction egress", WEB, DB);
        scene.apply("drop 30% --name some --direction ingress", DB, NAMES);
        scene.apply("partition --name cut --direction ingress", NAMES, DB);
        scene
    }

    fn apply(&self, action: &str, target: usize, peer: usize) {
        let target = format!("pod:shop/{}", PODS[target]);
        let peer = format!("ip:{}", self.lab.pod(peer).ipv4());
        let mut words: Vec<&str> = action.split(' ').collect();
        words.extend([
            "--namespace",
            "shop",
            "--target",
            &target,
            "--peer",
            &peer,
            "--for",
            "10m",
        ]);
        let mut last = None;
        // The daemon learns of the pods a moment after its start.
        let applied = wait_until(PATIENCE, LOOK, || {
            last = self.daemon.sabot_ok(&words).err();
            last.is_none()
        });
        assert!(applied, "{action}: {last:?}");
    }

    /// A little of everything that is measured.
    pub(crate) fn talk(&self) {
        for (from, to) in [(WEB, DB), (NAMES, DB), (DB, NAMES)] {
            let (from, to) = (self.lab.pod(from), self.lab.pod(to));
            let receiver = UdpReceiver::start(to.netns(), to.ipv4()).expect("the receiver starts");
            LOAD.send(from.netns(), receiver.address())
                .expect("the load is sent");
            receiver.finish(LOAD.datagrams, QUIET);
        }
        let web = self.lab.pod(WEB).netns();
        echo_once(web, self.echo.address(), b"hello", ANSWER).expect("db answers");
        let closed = SocketAddr::from((self.lab.pod(NAMES).ipv4(), CLOSED_PORT));
        let refused = web.run(|| TcpStream::connect_timeout(&closed, ANSWER));
        assert!(refused.is_err(), "nobody listens on {closed}");
        let found = self.names.lookup(web, "db.shop", Rtype::A, ANSWER);
        assert_eq!(found.expect("names answers"), [self.lab.pod(DB).ipv4()]);
        // The daemon's own calls aren't counted.
        ask(&socket_in(&self.folder)).expect("the runtime answers");
        // A daemon at rest has nothing to reconcile.
        let preview = [
            "partition",
            "--name",
            "asked",
            "--target",
            "pod:shop/web",
            "--for",
            "1m",
            "--dry-run",
        ];
        self.daemon.sabot_ok(&preview).expect("it could be injected");
        if self.runtime.subscribers() > 0 {
            self.runtime.emit(PODS[WEB]);
        }
        self.write();
    }

    /// Writes a byte to the disk and waits for it; and fails to.
    fn write(&self) {
        let write = |to: &Path| {
            let mut etcd = Command::new(self.folder.path().join("etcd"));
            etcd.args(["if=/dev/zero", "bs=1", "count=1", "conv=fsync", "status=none"]);
            let to = format!("of={}", to.display());
            etcd.arg(to).output().expect("it runs").status.success()
        };
        assert!(write(&self.folder.path().join("wal")));
        assert!(!write(&self.folder.path().join("absent/wal")));
    }

    pub(crate) fn scrape(&self) -> Scrape {
        self.daemon.scrape().expect("metrics are served")
    }

    /// The faults at a moment at which nothing moves.
    pub(crate) fn faults_at_rest(&self) -> Value {
        let faults = || self.daemon.sabot_json(&["get"]).expect("faults are listed");
        let rest = wait_for(PATIENCE, LOOK, || {
            let before = faults();
            let is_held = self.scrape().sum("sabot_fault_held_packets", &[]) > 0.0;
            (!is_held && faults() == before).then_some(before)
        });
        rest.expect("the counters come to rest")
    }
}

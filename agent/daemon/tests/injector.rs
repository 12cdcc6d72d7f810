//! The kernel room alone, on real namespaces: each action's bite and its counters.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sabot_core::model::{Action, BootTime, Direction, NetnsId, Percent, TargetDevice, TargetKey};
use sabot_core::plan::{Equipment, PeerEntry, PeerSetId, RuleBody, Slot, TargetId};
use sabot_testkit::traffic::{Bulk, ProbeServer, Prober, UdpLoad, UdpReceiver, ping};
use sabot_testkit::{Lab, LabPod};
use sabotd::engine::datapath::Datapath as _;
use sabotd::engine::handle::{Ledger, LedgerDirection};
use sabotd::kernel::{HookKind, Injector, InjectorOptions, boot_time};

const SLOT: Slot = Slot(7);
const TARGET: TargetId = TargetId(3);
const ALL: Equipment = Equipment {
    egress: true,
    ingress: true,
    line: true,
    segmenter: true,
};

struct Rig {
    lab: Lab,
    injector: Arc<Injector>,
    device: TargetDevice,
}

impl Rig {
    fn new() -> Self {
        let lab = Lab::new(3).unwrap();
        let options = InjectorOptions {
            hook: HookKind::Tcx,
            line_bytes: 1 << 26,
            line_bytes_total: 1 << 28,
            line_real_time: true,
        };
        let (injector, _taps) = Injector::load(&options).unwrap();
        let device = device_of(lab.pod(0));
        let started = Instant::now();
        injector.equip(TARGET, &device, ALL).unwrap();
        println!("equip took {:?}", started.elapsed());
        Self {
            lab,
            injector,
            device,
        }
    }

    fn apply(&self, action: Action, direction: Direction, peer: Option<IpAddr>) {
        let set = PeerSetId(14);
        if let Some(peer) = peer {
            self.injector
                .add_peers(
                    set,
                    &[PeerEntry {
                        net: peer.into(),
                        excepted: false,
                    }],
                )
                .unwrap();
        }
        let rule = RuleBody {
            action,
            direction,
            ports: Vec::new(),
            peers: peer.map(|_| set),
            peers_exact: peer.is_some(),
            peers_prefix: false,
            spare_node: false,
            starts_at: BootTime(0),
            expires_at: BootTime(boot_time().0 + 60_000_000_000),
            sample_every: 0,
        };
        self.injector.write_rule(SLOT, &rule).unwrap();
        self.injector.set_slots(TARGET, &[SLOT]).unwrap();
    }

    fn ledger(&self, direction: LedgerDirection) -> Ledger {
        self.injector.ledger(SLOT, TARGET, direction)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let started = Instant::now();
        self.injector.strip(TARGET, &self.device.key).unwrap();
        println!(
            "strip took {:?}; incidents {:?}",
            started.elapsed(),
            self.injector.incidents()
        );
    }
}

fn device_of(pod: &LabPod) -> TargetDevice {
    let path = pod.netns().path();
    let metadata = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
    let dev = std::os::unix::fs::MetadataExt::dev(&std::fs::metadata(path).unwrap());
    let ifindex = pod.netns().run(|| nix::net::if_::if_nametoindex("eth0").unwrap());
    TargetDevice {
        key: TargetKey {
            netns: NetnsId { dev, ino: metadata },
            device: "eth0".into(),
            ifindex,
        },
        netns_path: Path::new(path).to_owned(),
        mac_header: true,
        node_device: false,
    }
}

fn percent(value: f64) -> Percent {
    Percent::new(value).unwrap()
}

#[test]
fn partition_cuts_and_mends() {
    let rig = Rig::new();
    let server = ProbeServer::start(rig.lab.pod(1).netns(), rig.lab.pod(1).ipv4()).unwrap();
    let prober = Prober::start(rig.lab.pod(0).netns(), &server, Duration::from_millis(5)).unwrap();
    prober.wait_pass(Instant::now(), Duration::from_secs(5)).unwrap();
    rig.apply(Action::Partition, Direction::Both, Some(rig.lab.pod(1).ipv4()));
    let cut = Instant::now();
    std::thread::sleep(Duration::from_millis(300));
    let passed = prober
        .between(cut, Instant::now())
        .iter()
        .filter(|s| s.answered.is_some())
        .count();
    println!("passed under partition: {passed}");
    assert_eq!(passed, 0);
    let other = ping(
        rig.lab.pod(0).netns(),
        rig.lab.pod(2).ipv4(),
        3,
        Duration::from_millis(20),
    )
    .unwrap();
    assert_eq!(other.round_trips.len(), 3);
    rig.injector.clear_rule(SLOT).unwrap();
    let mended = Instant::now();
    println!(
        "first pass after {:?}",
        prober.wait_pass(mended, Duration::from_secs(5)).unwrap()
    );
    println!("{:?}", rig.ledger(LedgerDirection::Egress));
}

#[test]
fn drop_is_exact_per_wire_packet() {
    let rig = Rig::new();
    let receiver = UdpReceiver::start(rig.lab.pod(1).netns(), rig.lab.pod(1).ipv4()).unwrap();
    rig.apply(
        Action::Drop {
            percent: percent(20.0),
        },
        Direction::Both,
        Some(rig.lab.pod(1).ipv4()),
    );
    let load = UdpLoad {
        datagrams: 20_000,
        payload: 200,
        per_second: 20_000,
    };
    load.send(rig.lab.pod(0).netns(), receiver.address()).unwrap();
    let report = receiver.finish(load.datagrams, Duration::from_millis(300));
    let egress = rig.ledger(LedgerDirection::Egress);
    println!("{} arrived; {egress:?}", report.arrived());
    assert_eq!(report.arrived(), egress.passed.packets);
    assert_eq!(egress.matched.packets, 20_000);

    let bulk = Bulk::listen(
        rig.lab.pod(1).netns(),
        rig.lab.pod(1).ipv4(),
        Duration::from_secs(20),
    )
    .unwrap();
    rig.apply(
        Action::Drop {
            percent: percent(1.0),
        },
        Direction::Both,
        Some(rig.lab.pod(1).ipv4()),
    );
    let (sent, received) = bulk
        .send_from(rig.lab.pod(0).netns(), 50 << 20, Duration::from_secs(30))
        .unwrap();
    assert_eq!(sent.sha256, received.sha256);
    std::thread::sleep(Duration::from_millis(300));
    println!("{:?} {:?}", sent.took, rig.ledger(LedgerDirection::Egress));
    println!("{:?}", rig.ledger(LedgerDirection::Ingress));
}

#[test]
fn delay_in_both_directions() {
    let rig = Rig::new();
    let delay = Action::Delay {
        latency: Duration::from_millis(50),
        jitter: Duration::ZERO,
    };
    let pod = rig.lab.pod(0).netns();
    let base = ping(pod, rig.lab.pod(1).ipv4(), 10, Duration::from_millis(20))
        .unwrap()
        .median()
        .unwrap();
    rig.apply(delay, Direction::Egress, Some(rig.lab.pod(1).ipv4()));
    let egress = ping(pod, rig.lab.pod(1).ipv4(), 20, Duration::from_millis(20)).unwrap();
    println!("base {base:?} egress {:?}", egress.median());
    rig.apply(delay, Direction::Ingress, Some(rig.lab.pod(1).ipv4()));
    let ingress = ping(pod, rig.lab.pod(1).ipv4(), 20, Duration::from_millis(20)).unwrap();
    println!("ingress {:?}", ingress.median());
    rig.apply(delay, Direction::Both, Some(rig.lab.pod(1).ipv4()));
    let both = ping(pod, rig.lab.pod(1).ipv4(), 20, Duration::from_millis(20)).unwrap();
    println!("both {:?}", both.median());
    let fast = Action::Delay {
        latency: Duration::from_millis(5),
        jitter: Duration::ZERO,
    };
    rig.apply(fast, Direction::Egress, Some(rig.lab.pod(1).ipv4()));
    let bulk = Bulk::listen(
        rig.lab.pod(1).netns(),
        rig.lab.pod(1).ipv4(),
        Duration::from_secs(20),
    )
    .unwrap();
    let (sent, received) = bulk
        .send_from(rig.lab.pod(0).netns(), 500 << 20, Duration::from_secs(30))
        .unwrap();
    assert_eq!(sent.sha256, received.sha256);
    println!("500 MiB at 5 ms in {:?}", sent.took);
    std::thread::sleep(Duration::from_millis(100));
    println!("{:?}", rig.ledger(LedgerDirection::Egress));
    println!("{:?}", rig.ledger(LedgerDirection::Ingress));
}

#[test]
fn corrupt_reaches_the_application() {
    let rig = Rig::new();
    let receiver = UdpReceiver::start(rig.lab.pod(1).netns(), rig.lab.pod(1).ipv4()).unwrap();
    rig.apply(
        Action::CorruptPayload {
            percent: percent(10.0),
        },
        Direction::Egress,
        Some(rig.lab.pod(1).ipv4()),
    );
    let load = UdpLoad {
        datagrams: 5_000,
        payload: 201,
        per_second: 20_000,
    };
    load.send(rig.lab.pod(0).netns(), receiver.address()).unwrap();
    let report = receiver.finish(load.datagrams, Duration::from_millis(300));
    let egress = rig.ledger(LedgerDirection::Egress);
    println!(
        "{} arrived; {egress:?} {:?}",
        report.arrived(),
        report.altered.len()
    );
    let bulk = Bulk::listen(
        rig.lab.pod(1).netns(),
        rig.lab.pod(1).ipv4(),
        Duration::from_secs(20),
    )
    .unwrap();
    let (_, received) = bulk
        .send_from(rig.lab.pod(0).netns(), 50 << 20, Duration::from_secs(30))
        .unwrap();
    std::thread::sleep(Duration::from_millis(100));
    println!(
        "altered bytes {} ledger {:?}",
        received.altered.len(),
        rig.ledger(LedgerDirection::Egress)
    );
}

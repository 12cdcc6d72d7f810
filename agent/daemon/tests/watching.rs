//! Whose lookups the injector watches, on a real namespace. Needs root.

use std::path::Path;
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use domain::base::iana::Rtype;
use sabot_core::model::{Action, BootTime, Direction, PacketFilter, TargetDevice, TargetIdentity, TargetKey};
use sabot_core::plan::{Equipment, RuleBody, Slot, TargetId};
use sabot_testkit::traffic::NameServer;
use sabot_testkit::{Lab, LabPod};
use sabotd::engine::datapath::Datapath as _;
use sabotd::kernel::nsfs::netns_id;
use sabotd::kernel::{HookKind, Injector, InjectorOptions, boot_time};

const TARGET: TargetId = TargetId(3);
const PATIENCE: Duration = Duration::from_secs(15);

fn device_of(pod: &LabPod) -> TargetDevice {
    let path = pod.netns().path();
    let ifindex = pod.netns().run(|| nix::net::if_::if_nametoindex("eth0"));
    TargetDevice {
        key: TargetKey {
            netns: netns_id(path).expect("it is there"),
            device: "eth0".into(),
            ifindex: ifindex.expect("it is there"),
        },
        netns_path: Path::new(path).to_owned(),
        mac_header: true,
        node_device: false,
        identity: TargetIdentity::of("test/eth0"),
    }
}

/// Cuts nothing: no peer is in its set.
fn rule(slot: Slot, watches_dns: bool) -> RuleBody {
    RuleBody {
        action: Action::Partition,
        direction: Direction::Both,
        ports: Vec::new(),
        packets: PacketFilter::ALL,
        peers: Some(slot.peer_set()),
        peers_exact: true,
        peers_prefix: false,
        spare_node: false,
        allow_control_plane: false,
        watches_dns,
        pulse: None,
        ramp: None,
        seed: 0,
        starts_at: BootTime(0),
        expires_at: boot_time().after(Duration::from_secs(600)),
        sample_every: 0,
    }
}

/// Looks a name up, and says whether the answer was copied.
fn is_seen(pod: &LabPod, names: &NameServer, ring: &mut RingBuf<MapData>) -> bool {
    let answer = names.lookup(pod.netns(), "a.test", Rtype::A, PATIENCE);
    assert_eq!(answer.expect("an answer").len(), 1);
    let seen = ring.next().is_some();
    assert!(ring.next().is_none(), "one answer is copied once");
    seen
}

#[test]
fn a_target_is_watched_exactly_while_it_lists_a_slot_that_asks_for_it() {
    let lab = Lab::new(2).expect("pods can be made (root is needed)");
    let (pod, peer) = (lab.pod(0), lab.pod(1));
    let names = NameServer::start(peer.netns(), peer.ipv4()).expect("it binds");
    names.set("a.test", &[peer.ipv4()], 60);
    let options = InjectorOptions {
        hook: HookKind::Tcx,
        line_bytes: 1 << 20,
        line_bytes_total: 1 << 20,
        line_real_time: false,
        departures: false,
    };
    let (injector, mut taps) = Injector::load(&options).expect("the fault object loads");
    let device = device_of(pod);
    injector
        .equip(TARGET, &device, Equipment::HOOKS)
        .expect("it is attached");
    let mut seen = || is_seen(pod, &names, &mut taps.dns_answers);
    let (plain, watching) = (Slot(1), Slot(2));
    let write = |slot, watches| {
        injector
            .write_rule(slot, &rule(slot, watches))
            .expect("it is written");
    };
    let list = |slots: &[Slot]| injector.set_slots(TARGET, slots).expect("it is written");

    write(plain, false);
    list(&[plain]);
    assert!(!seen());
    write(watching, true);
    assert!(!seen(), "it isn't listed yet");
    list(&[plain, watching]);
    assert!(seen());
    // More equipment writes the body anew.
    injector
        .equip(TARGET, &device, Equipment::HOOKS)
        .expect("nothing is missing");
    assert!(seen());
    write(watching, false);
    assert!(!seen(), "an edit ends it");
    write(plain, true);
    assert!(seen(), "an edit begins it");
    list(&[watching]);
    assert!(!seen());
    list(&[plain]);
    assert!(seen());
    list(&[]);
    injector.clear_rule(plain).expect("it is cleared");
    write(plain, false);
    list(&[plain]);
    assert!(!seen());

    list(&[]);
    injector.strip(TARGET, &device.key).expect("it is detached");
}

//! As many faults as a daemon takes, on hundreds of targets: each acts on its own target and peer, and all of them go.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use sabot_proto::sabot::v1::{Direction, Fault, Phase};
use sabot_testkit::daemon::Client;
use sabot_testkit::leaks::held_by;
use sabot_testkit::wait::wait_until;
use sabot_testkit::{LabPod, Leaks, Rig, Spec};

const TARGETS: usize = 250;
const EACH: usize = 16;
/// Clients at the same time.
const CLIENTS: usize = 25;
const SAMPLES: usize = 60;
/// Generous: other work may run on the machine.
const PATIENCE: Duration = Duration::from_secs(120);
const LIFETIME: Duration = Duration::from_secs(1800);

fn name(target: usize, number: usize) -> String {
    format!("cut-{target}-{number}")
}

/// Nobody has such an address, and the way there is the node.
fn peer(number: usize) -> IpAddr {
    Ipv4Addr::new(198, 51, 100, 1 + number as u8).into()
}

/// Does something for each target, by several clients at once.
fn for_each_target(rig: &Rig, act: impl Fn(&Client, usize) + Sync) -> Duration {
    let started = Instant::now();
    thread::scope(|scope| {
        for first in 0..CLIENTS {
            let act = &act;
            scope.spawn(move || {
                let client = rig.daemon.client().expect("it answers");
                for target in (first..TARGETS).step_by(CLIENTS) {
                    act(&client, target);
                }
            });
        }
    });
    started.elapsed()
}

fn apply(client: &Client, pod: &LabPod, name: &str, peer: IpAddr) {
    let spec = Spec::partition(pod).egress().peer(peer).lasting(LIFETIME);
    let fault = client
        .apply(name, spec.into(), PATIENCE)
        .unwrap_or_else(|status| panic!("{name} is refused: {status}"));
    let status = fault.status.unwrap_or_default();
    assert_eq!(status.phase(), Phase::Injected, "{name}: {}", status.message);
}

fn send(pod: &LabPod, to: IpAddr, count: u64) {
    let socket = pod
        .netns()
        .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))
        .expect("it binds");
    for _ in 0..count {
        socket
            .send_to(b"sabot", SocketAddr::new(to, 9))
            .expect("it is sent");
    }
}

/// Packets that each fault has matched and dropped, of those that have any.
fn dropped(faults: &[Fault]) -> BTreeMap<String, u64> {
    let mut dropped = BTreeMap::new();
    for fault in faults {
        let status = fault.status.clone().unwrap_or_default();
        for entry in &status.ledgers {
            let ledger = entry.ledger.unwrap_or_default();
            let [matched, gone] = [ledger.matched, ledger.dropped].map(Option::unwrap_or_default);
            assert_eq!(matched, gone);
            if gone.packets > 0 {
                assert_eq!(entry.direction(), Direction::Egress);
                let name = &fault.metadata.as_ref().expect("it has a name").name;
                *dropped.entry(name.clone()).or_default() += gone.packets;
            }
        }
    }
    dropped
}

/// In KiB.
fn resident(rig: &Rig) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", rig.daemon.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
    number.expect("it has memory").trim().parse().expect("a number")
}

#[test]
fn four_thousand_faults_on_250_targets_act_on_their_own_and_leave_nothing() {
    let rig = Rig::with_flags(TARGETS, &["--keep-warm", "1s", "--keep-ended", "1s"]);
    let leaks = Leaks::baseline(&rig.places()).expect("the machine can be looked at");
    let before = resident(&rig);
    let links = || held_by(rig.daemon.pid()).expect("it runs").links;
    let idle = links();
    let apply_took = for_each_target(&rig, |client, target| {
        for number in 0..EACH {
            apply(client, rig.lab.pod(target), &name(target, number), peer(number));
        }
    });
    let under = resident(&rig);

    let mut expected = BTreeMap::new();
    for sample in 0..SAMPLES {
        // Coprime to the numbers of both, so that they are all over the place.
        let (target, number) = (sample * 97 % TARGETS, sample * 7 % EACH);
        let count = 1 + sample as u64 % 3;
        send(rig.lab.pod(target), peer(number), count);
        send(rig.lab.pod(target), peer(EACH), 2);
        *expected.entry(name(target, number)).or_default() += count;
    }
    let started = Instant::now();
    let faults = rig.client.list(true).expect("it answers");
    let list_took = started.elapsed();
    assert_eq!(faults.len(), TARGETS * EACH);
    assert_eq!(dropped(&faults), expected);

    let edit_took = for_each_target(&rig, |client, target| {
        apply(client, rig.lab.pod(target), &name(target, 0), peer(EACH));
    });
    send(rig.lab.pod(0), peer(EACH), 5);
    let fault = rig.get(&name(0, 0));
    *expected.entry(name(0, 0)).or_default() += 5;
    let expected_here = expected.get(&name(0, 0)).copied();
    assert_eq!(dropped(&[fault]).get(&name(0, 0)).copied(), expected_here);

    let delete_took = for_each_target(&rig, |client, target| {
        for number in 0..EACH {
            let name = name(target, number);
            client
                .delete("", &name)
                .unwrap_or_else(|status| panic!("{name} can't be deleted: {status}"));
        }
    });
    println!(
        "{} faults on {TARGETS} targets: applied in {apply_took:?}, listed in {list_took:?}, {TARGETS} edited in \
         {edit_took:?}, deleted in {delete_took:?}; resident {before} KiB, then {under} KiB, then {} KiB",
        TARGETS * EACH,
        resident(&rig)
    );
    let is_bare = wait_until(PATIENCE, Duration::from_millis(200), || links() == idle);
    assert!(is_bare, "targets stay attached");
    let left = leaks.wait_clean(PATIENCE).expect("the machine can be looked at");
    assert_eq!(left, Vec::<String>::new());
}

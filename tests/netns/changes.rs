//! Faults that change while they are in force: pulses, ramps, edits, several at once.

use std::thread;
use std::time::{Duration, Instant, SystemTime};

use sabot_testkit::statistics::binomial_sigmas;
use sabot_testkit::traffic::{INTERVAL, ProbeServer, Prober, StampedLoad, UdpLoad};
use sabot_testkit::way::{PEER, TARGET, Way, send};
use sabot_testkit::{Rig, Spec};

const QUIET: Duration = Duration::from_millis(800);
/// Datagrams a millisecond apart: their numbers tell the time.
const CLOCK: StampedLoad = StampedLoad {
    datagrams: 6_000,
    payload: 64,
    per_second: 1_000,
};

/// The stretches of consecutive numbers that are missing, as first number and length.
fn gaps(arrived: &[u64], sent: u64) -> Vec<(u64, u64)> {
    let mut gaps: Vec<(u64, u64)> = Vec::new();
    for number in (0..sent).filter(|number| arrived.binary_search(number).is_err()) {
        match gaps.last_mut() {
            Some((first, length)) if *first + *length == number => *length += 1,
            _ => gaps.push((number, 1)),
        }
    }
    gaps
}

#[test]
fn a_pulse_is_on_and_off_in_its_periods() {
    let rig = Rig::new(2);
    let (from, to) = Way::Egress.ends(&rig);
    let (on, off) = (Duration::from_millis(400), Duration::from_millis(600));
    rig.apply(
        "pulse",
        Spec::partition(from).egress().port("UDP", None).pulse(on, off),
    );
    let arrivals = CLOCK
        .run(from.netns(), to.netns(), to.ipv4(), QUIET)
        .expect("it is sent and received");
    let [egress, _] = rig.settled("pulse");
    rig.delete("pulse");
    let mut arrived: Vec<u64> = arrivals.iter().map(|arrival| arrival.number).collect();
    arrived.sort_unstable();
    let gaps = gaps(&arrived, CLOCK.datagrams);
    // Six seconds hold six periods; the first and the last may be cut off.
    assert!((5..=7).contains(&gaps.len()), "{gaps:?}");
    let missing = CLOCK.datagrams - arrived.len() as u64;
    assert_eq!(egress.dropped.packets, missing);
    assert_eq!(
        egress.matched, egress.dropped,
        "what comes while it is off isn't named"
    );
    // A sender that stands still sends what it missed at once, at its end; so the whole is looked at, not each.
    let share = missing as f64 / CLOCK.datagrams as f64;
    assert!((0.3..=0.5).contains(&share), "{share}: {gaps:?}");
}

#[test]
fn a_ramp_of_a_percentage_moves_the_share() {
    let rig = Rig::new(2);
    let (from, to) = Way::Egress.ends(&rig);
    let spec = Spec::drop(from, 50.0).egress().port("UDP", None);
    rig.apply("ramp", spec.ramp(Duration::from_secs(4), 0.0, 100.0).seed(3));
    let arrivals = CLOCK
        .run(from.netns(), to.netns(), to.ipv4(), QUIET)
        .expect("it is sent and received");
    let mut lost = vec![1_000u64; 6];
    for arrival in arrivals {
        lost[(arrival.number / 1_000) as usize] -= 1;
    }
    // From 0 to 50 % over four seconds, then it stays.
    assert!(
        lost[0] < lost[1] && lost[1] < lost[2] && lost[2] < lost[3],
        "{lost:?}"
    );
    assert!(lost[0] < 130 && lost[1] > 60 && lost[1] < 320, "{lost:?}");
    for after in &lost[4..] {
        assert!(binomial_sigmas(*after, 1_000, 0.5).abs() < 4.5, "{lost:?}");
    }
}

#[test]
fn one_start_is_common_to_several_targets() {
    let rig = Rig::new(3);
    let (now, wall) = (Instant::now(), SystemTime::now());
    let ahead = Duration::from_millis(2500);
    let peer = rig.lab.pod(PEER);
    let targets = [TARGET, 2].map(|index| rig.lab.pod(index));
    let server = ProbeServer::start(peer.netns(), peer.ipv4()).expect("it listens");
    let probers = targets.map(|pod| Prober::start(pod.netns(), &server, INTERVAL).expect("it starts"));
    for (index, target) in targets.iter().enumerate() {
        let spec = Spec::partition(target).starting(wall + ahead);
        let accepted = rig
            .client
            .apply(&format!("cut{index}"), spec.into(), Duration::ZERO);
        accepted.expect("it is accepted");
    }
    thread::sleep((ahead + Duration::from_millis(700)).saturating_sub(now.elapsed()));
    let start = now + ahead;
    for prober in &probers {
        let before = prober.passage(now, start - Duration::from_millis(100));
        assert!(before.sent > 20 && before.answered == before.sent, "{before:?}");
        // A request may have been asked for just before the start and sent just after it.
        let after = prober.passage(start + INTERVAL * 2, Instant::now());
        assert!(after.sent > 10 && after.arrived == 0, "{after:?}");
    }
}

#[test]
fn an_edit_leaves_no_gap_and_counts_on() {
    let rig = Rig::new(2);
    let (from, to) = Way::Egress.ends(&rig);
    let spec = |percent: f64| Spec::drop(from, percent).egress().port("UDP", None);
    rig.apply("edited", spec(100.0));
    let load = UdpLoad {
        datagrams: 40_000,
        payload: 64,
        per_second: 20_000,
    };
    let report = thread::scope(|scope| {
        let sending = scope.spawn(|| send(load, from, to, to.ipv4()));
        // Each edit names other peers, which are written before the rule is swapped, or another action.
        let mut round = 0u8;
        while !sending.is_finished() {
            round = round.wrapping_add(1);
            let edited = match round % 3 {
                0 => spec(100.0).peer(to.ipv4()),
                1 => Spec::partition(from).egress().port("UDP", None),
                _ => spec(100.0).peers_in("10.0.0.0/8", &[format!("10.9.{round}.0/24")]),
            };
            rig.apply("edited", edited);
        }
        sending.join().expect("it is sent")
    });
    assert_eq!(report.arrived(), 0, "an edit let packets through");
    let [egress, _] = rig.settled("edited");
    assert_eq!(egress.dropped.packets, load.datagrams);
}

#[test]
fn an_edit_drops_nothing_that_is_held() {
    let rig = Rig::new(2);
    let (from, to) = Way::Egress.ends(&rig);
    let load = StampedLoad {
        datagrams: 10_000,
        payload: 200,
        per_second: 5_000,
    };
    let actions = [
        "delay: {latency: 300ms}",
        "delay: {latency: 200ms, jitter: 100ms}",
        "rateLimit: {rate: 100mbit, queueTime: 1s}",
        "reorder: {percent: 10, delay: 100ms}",
        "duplicate: {percent: 0, delay: 10ms}",
    ];
    rig.apply(
        "edited",
        Spec::action(from, actions[0]).egress().port("UDP", None),
    );
    let arrivals = thread::scope(|scope| {
        let sending = scope.spawn(|| load.run(from.netns(), to.netns(), to.ipv4(), Duration::from_secs(2)));
        for action in actions.iter().cycle().skip(1) {
            thread::sleep(Duration::from_millis(150));
            if sending.is_finished() {
                break;
            }
            rig.apply("edited", Spec::action(from, action).egress().port("UDP", None));
        }
        sending
            .join()
            .expect("it doesn't panic")
            .expect("it is sent and received")
    });
    assert_eq!(arrivals.len() as u64, load.datagrams);
    let [egress, _] = rig.settled("edited");
    assert_eq!(egress.matched.packets, load.datagrams);
    assert_eq!(egress.lost().packets + egress.dropped.packets, 0, "{egress:?}");
}

#[test]
fn all_actions_compose_in_their_order() {
    let rig = Rig::new(2);
    let actions = [
        ("loss", "drop: {percent: 10}"),
        ("noise", "corrupt: {percent: 10}"),
        ("twice", "duplicate: {percent: 10}"),
        ("rate", "rateLimit: {rate: 1gbit, queueTime: 1s}"),
        ("late", "delay: {latency: 5ms}"),
        ("order", "reorder: {percent: 5, delay: 10ms}"),
    ];
    // Applied backwards: their order is their own.
    for (name, action) in actions.iter().rev() {
        rig.apply(name, Spec::action(rig.lab.pod(TARGET), action).port("UDP", None));
    }
    for way in Way::BOTH {
        let (from, to) = way.ends(&rig);
        let load = UdpLoad {
            datagrams: 20_000,
            payload: 200,
            per_second: 10_000,
        };
        let report = send(load, from, to, to.ipv4());
        let books = actions.map(|(name, _)| way.pick(rig.settled(name)));
        assert_eq!(books[0].matched.packets, load.datagrams, "{way:?}");
        for pair in books.windows(2) {
            // A clone meets only what stands behind the fault that made it.
            assert_eq!(pair[1].matched, pair[0].went_on(), "{way:?}: {pair:#?}");
        }
        let last = books[actions.len() - 1];
        assert_eq!(report.arrived(), last.went_on().packets, "{way:?}");
        assert_eq!(
            report.missing(load.datagrams).len() as u64,
            books[0].dropped.packets,
            "{way:?}"
        );
        assert!(report.duplicates > 1_000 && !report.altered.is_empty(), "{way:?}");
    }
}

//! Duplicate and reorder, per packet.

use std::collections::BTreeMap;
use std::time::Duration;

use sabot_testkit::prediction::SeededStream;
use sabot_testkit::statistics::binomial_sigmas;
use sabot_testkit::traffic::{Arrival, StampedLoad};
use sabot_testkit::way::{TARGET, Way};
use sabot_testkit::{Books, Rig, Spec};

const SEED: u64 = 5;
/// Longer than any packet is held: one of the last may have none after it to wait for.
const QUIET: Duration = Duration::from_millis(1500);
const LOAD: StampedLoad = StampedLoad {
    datagrams: 20_000,
    payload: 64,
    per_second: 10_000,
};

/// Sends the load under an action; what arrived, in that order, and the settled counters.
fn run(rig: &Rig, way: Way, yaml: &str) -> (Vec<Arrival>, Books) {
    let (from, to) = way.ends(rig);
    let spec = Spec::action(rig.lab.pod(TARGET), yaml)
        .seed(SEED)
        .port("UDP", None);
    rig.apply("disorder", way.limit(spec));
    // A receiver of more than was sent: it waits until nothing comes any more.
    let arrivals = LOAD
        .run_to_rest(from.netns(), to.netns(), to.ipv4(), QUIET)
        .expect("it is sent and received");
    let books = way.pick(rig.settled("disorder"));
    rig.delete("disorder");
    (arrivals, books)
}

fn stream(rig: &Rig, way: Way) -> SeededStream {
    let name = format!("netns:{}/eth0", rig.lab.pod(TARGET).netns().path().display());
    SeededStream::new(SEED, &name, way.direction())
}

/// How often each number arrived.
fn times(arrivals: &[Arrival]) -> BTreeMap<u64, u64> {
    let mut times = BTreeMap::new();
    for arrival in arrivals {
        *times.entry(arrival.number).or_default() += 1;
    }
    times
}

#[test]
fn duplicates_are_sent_so_many_times_more_and_the_others_once() {
    let rig = Rig::new(2);
    for way in Way::BOTH {
        let (arrivals, books) = run(&rig, way, "duplicate: {percent: 10, copies: 2}");
        let times = times(&arrivals);
        let chosen = stream(&rig, way).share(0.1, LOAD.datagrams);
        let thrice: Vec<u64> = times
            .iter()
            .filter(|(_, count)| **count == 3)
            .map(|(n, _)| *n)
            .collect();
        let once = times.values().filter(|count| **count == 1).count() as u64;
        assert_eq!(thrice, chosen, "{way:?}");
        assert_eq!(once + chosen.len() as u64, LOAD.datagrams, "{way:?}");
        assert_eq!(books.duplicated.packets, 2 * chosen.len() as u64, "{books:?}");
        assert_eq!(books.matched.packets, LOAD.datagrams, "{books:?}");
        let sigmas = binomial_sigmas(chosen.len() as u64, LOAD.datagrams, 0.1);
        assert!(sigmas.abs() < 4.0, "{sigmas}");
    }
}

#[test]
fn duplicates_may_come_later_and_the_original_is_not_held_up() {
    let rig = Rig::new(2);
    let (arrivals, books) = run(&rig, Way::Egress, "duplicate: {percent: 5, delay: 30ms}");
    let mut first: BTreeMap<u64, Duration> = BTreeMap::new();
    let mut again = Vec::new();
    for arrival in &arrivals {
        match first.get(&arrival.number) {
            None => drop(first.insert(arrival.number, arrival.delay)),
            Some(_) => again.push(arrival.delay),
        }
    }
    assert_eq!(again.len() as u64, books.duplicated.packets);
    assert!(again.len() > 500, "{}", again.len());
    assert!(again.iter().all(|delay| *delay >= Duration::from_millis(30)));
    let median = sabot_testkit::traffic::median(first.into_values().collect());
    assert!(median < Duration::from_millis(15), "{median:?}");
}

#[test]
fn reordered_packets_are_overtaken_by_exactly_the_gap() {
    const GAP: usize = 3;
    let rig = Rig::new(2);
    for way in Way::BOTH {
        let (arrivals, books) = run(&rig, way, "reorder: {percent: 1, gap: 3, delay: 1s}");
        let chosen = stream(&rig, way).share(0.01, LOAD.datagrams);
        let times = times(&arrivals);
        let missing: Vec<u64> = (0..LOAD.datagrams)
            .filter(|number| !times.contains_key(number))
            .collect();
        assert!(missing.is_empty(), "{missing:?} of {chosen:?}; {books:?}");
        let mut places = vec![0; LOAD.datagrams as usize];
        for (place, arrival) in arrivals.iter().enumerate() {
            places[arrival.number as usize] = place;
        }
        // Late packets of RFC 4737: those that a later one has overtaken.
        let mut overtaken = Vec::new();
        for &number in &chosen {
            let place = places[number as usize];
            let by = arrivals[..place].iter().filter(|a| a.number > number).count();
            overtaken.push(by);
        }
        // At the end of the load there may be no packets left to wait for.
        let exact = overtaken.iter().filter(|by| **by == GAP).count();
        assert!(
            exact + 3 >= chosen.len(),
            "{exact} of {}: {overtaken:?}",
            chosen.len()
        );
        let reached: Vec<u64> = arrivals
            .windows(2)
            .filter(|pair| pair[0].number > pair[1].number)
            .map(|pair| pair[1].number)
            .collect();
        assert!(
            reached.iter().all(|number| chosen.contains(number)),
            "{reached:?}"
        );
    }
}

#[test]
fn reordered_packets_come_so_much_later_and_the_others_at_once() {
    let rig = Rig::new(2);
    let (arrivals, books) = run(&rig, Way::Ingress, "reorder: {percent: 10, delay: 25ms}");
    assert_eq!(arrivals.len() as u64, LOAD.datagrams, "{books:?}");
    let chosen = stream(&rig, Way::Ingress).share(0.1, LOAD.datagrams);
    let delay_of: BTreeMap<u64, Duration> = arrivals.iter().map(|a| (a.number, a.delay)).collect();
    let late = |number: &u64| delay_of[number] >= Duration::from_millis(25);
    assert!(chosen.iter().all(late), "a chosen one is early");
    let others: Vec<Duration> = (0..LOAD.datagrams)
        .filter(|number| chosen.binary_search(number).is_err())
        .map(|number| delay_of[&number])
        .collect();
    let median = sabot_testkit::traffic::median(others);
    assert!(median < Duration::from_millis(10), "{median:?}");
    assert_eq!(books.released.packets, chosen.len() as u64, "{books:?}");
}

//! Constant delays that the kernel holds by itself, where it can.

use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};
use std::{fs, thread};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;
use sabot_abi::LEAD_MOST;
use sabot_testkit::features::{feature, lacks};
use sabot_testkit::holdings::leads;
use sabot_testkit::rig::PATIENCE;
use sabot_testkit::traffic::{Bulk, INTERVAL, ProbeServer, Prober, StampedLoad, UdpLoad, UdpReceiver, ping};
use sabot_testkit::wait::{on_this_machine, wait_until};
use sabot_testkit::way::{PEER, TARGET, Way, send};
use sabot_testkit::{Rig, Spec};

const LATENCY: Duration = Duration::from_millis(150);

/// A lab whose daemon says that its kernel holds constant delays.
fn rig(pods: usize, flags: &[&str]) -> Option<Rig> {
    let rig = crate::rig(pods, flags);
    let node = rig.client.node().expect("it answers");
    let departures = feature(&node, "departures");
    if !departures.available {
        lacks("departures", &departures.detail);
        return None;
    }
    Some(rig)
}

#[test]
fn a_stopped_daemon_changes_nothing_in_a_constant_delay() {
    let Some(rig) = rig(2, &[]) else { return };
    for way in Way::BOTH {
        let (target, peer) = (rig.lab.pod(TARGET), rig.lab.pod(PEER));
        for ip in [peer.ipv4(), peer.ipv6()] {
            let spec = way.limit(Spec::delay(target, LATENCY)).peer(ip);
            let spec = spec.port(if ip.is_ipv4() { "ICMP" } else { "ICMPv6" }, None);
            rig.apply("slow", spec);
            rig.daemon.pause().expect("it runs");
            // Longer than until a delay line would be bypassed.
            thread::sleep(Duration::from_secs(1));
            let report = ping(target.netns(), ip, 5, INTERVAL * 40).expect("ping runs");
            rig.daemon.resume().expect("it runs");
            let books = way.pick(rig.settled("slow"));
            rig.delete("slow");
            assert_eq!(report.round_trips.len(), 5, "{way:?} {ip}: {report:?}");
            let quickest = report.round_trips.iter().min().expect("there are some");
            assert!(*quickest >= LATENCY, "{way:?} {ip}: {report:?}");
            assert_eq!(
                (books.matched.packets, books.released.packets),
                (5, 5),
                "{books:?}"
            );
        }
    }
}

#[test]
fn the_way_back_is_learned_and_hardly_a_packet_is_early_nor_by_more_than_that_may_take() {
    const LATENCY: Duration = Duration::from_millis(20);
    let load = StampedLoad {
        datagrams: 500,
        payload: 64,
        per_second: 250,
    };
    for way in Way::BOTH {
        // What one direction has learned another daemon doesn't know.
        let Some(rig) = rig(2, &[]) else { return };
        let (from, to) = way.ends(&rig);
        let spec = way.limit(Spec::delay(rig.lab.pod(TARGET), LATENCY));
        rig.apply("slow", spec.port("UDP", None));
        let quiet = on_this_machine(Duration::from_secs(1));
        let arrivals = load.run(from.netns(), to.netns(), to.ipv4(), quiet);
        let arrivals = arrivals.expect("it is sent and received");
        let leads = leads(rig.daemon.pid()).expect("the daemon runs");
        rig.delete("slow");
        assert_eq!(arrivals.len() as u64, load.datagrams, "{way:?}");
        assert!(
            !leads.is_empty() && leads.iter().all(|lead| *lead <= LEAD_MOST),
            "{way:?}: {leads:?}"
        );
        let early = arrivals
            .iter()
            .filter_map(|arrival| LATENCY.checked_sub(arrival.delay));
        let early: Vec<Duration> = early.collect();
        let most = Duration::from_nanos(LEAD_MOST);
        assert!(early.iter().all(|by| *by < most), "{way:?}: {early:?}");
        assert!(early.len() < arrivals.len() / 10, "{way:?}: {early:?}");
    }
}

#[test]
fn a_stream_of_super_packets_comes_through_as_it_was_in_both_directions() {
    const BULK: u64 = 4 << 20;
    let Some(rig) = rig(2, &[]) else { return };
    for way in Way::BOTH {
        let (from, to) = way.ends(&rig);
        let spec = Spec::delay(rig.lab.pod(TARGET), Duration::from_millis(20));
        rig.apply("slow", way.limit(spec).port("TCP", None));
        let patience = on_this_machine(PATIENCE);
        let bulk = Bulk::listen(to.netns(), to.ipv4(), patience).expect("it listens");
        let (sent, received) = bulk
            .send_from(from.netns(), BULK, patience)
            .unwrap_or_else(|error| panic!("{way:?}: {error:#}"));
        let books = way.pick(rig.settled("slow"));
        rig.delete("slow");
        assert_eq!(
            (sent.bytes, sent.sha256),
            (received.bytes, received.sha256),
            "{way:?}"
        );
        assert!(books.matched.packets > BULK / 1500, "{way:?}: {books:?}");
        assert_eq!(books.released, books.matched, "{way:?}: {books:?}");
    }
}

/// Otherwise TCP's small queues would stop a sender long before its window does.
#[test]
fn what_the_queue_holds_takes_no_room_in_the_senders_buffer() {
    const DATAGRAMS: u64 = 100;
    const PAYLOAD: [u8; 1000] = [0; 1000];
    /// The kernel makes it twice as much, of which each datagram takes more than its own length.
    const BUFFER: usize = 8 << 10;
    let Some(rig) = rig(2, &[]) else { return };
    for way in Way::BOTH {
        let (from, to) = way.ends(&rig);
        let spec = Spec::delay(rig.lab.pod(TARGET), LATENCY);
        rig.apply("slow", way.limit(spec).port("UDP", None));
        let receiver = UdpReceiver::start(to.netns(), to.ipv4()).expect("it binds");
        let sent = from.netns().run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("it binds");
            setsockopt(&socket, sockopt::SndBuf, &BUFFER).expect("the kernel takes it");
            socket.set_nonblocking(true).expect("it is a socket");
            let refused = (0..DATAGRAMS).find_map(|number| {
                let error = socket.send_to(&PAYLOAD, receiver.address()).err()?;
                Some((number, error))
            });
            refused.map_or(Ok(()), Err)
        });
        let books = way.pick(rig.settled("slow"));
        rig.delete("slow");
        assert!(sent.is_ok(), "{way:?}: {sent:?}");
        assert_eq!(books.released.packets, DATAGRAMS, "{way:?}: {books:?}");
    }
}

/// At least by one that didn't send it.
#[test]
fn all_cpus_receive_what_the_queue_lets_go() {
    const FLOWS: usize = 64;
    let Some(rig) = rig(2, &[]) else { return };
    let node = rig.client.node().expect("it answers");
    let departures = feature(&node, "departures");
    assert!(
        departures.detail.contains("received by all CPUs"),
        "{departures:?}"
    );
    let (target, peer) = (rig.lab.pod(TARGET), rig.lab.pod(PEER));
    rig.apply("slow", Spec::delay(target, LATENCY).egress().port("UDP", None));
    let receiver = UdpReceiver::start(peer.netns(), peer.ipv4()).expect("it binds");
    let handed_before = handed_over();
    target.netns().run(|| {
        stay_on_one_cpu();
        for _ in 0..FLOWS {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("it binds");
            socket.send_to(b"flow", receiver.address()).expect("it is sent");
        }
    });
    let books = Way::Egress.pick(rig.settled("slow"));
    assert_eq!(books.released.packets, FLOWS as u64, "{books:?}");
    assert!(
        handed_over() > handed_before,
        "one CPU received all {FLOWS} flows"
    );
}

/// Each flow is received by one CPU, whichever that is.
#[test]
fn a_flow_keeps_its_order_through_the_queue() {
    /// As many that all of them by the same CPU would be a rare chance, with two of them.
    const FLOWS: u32 = 12;
    let load = StampedLoad {
        datagrams: 300,
        payload: 64,
        per_second: 10_000,
    };
    let Some(rig) = rig(2, &[]) else { return };
    let quiet = on_this_machine(Duration::from_secs(1));
    for way in Way::BOTH {
        let (from, to) = way.ends(&rig);
        let spec = Spec::delay(rig.lab.pod(TARGET), LATENCY);
        rig.apply("slow", way.limit(spec).port("UDP", None));
        let handed_before = handed_over();
        for flow in 0..FLOWS {
            let arrivals = thread::scope(|scope| {
                let sending = scope.spawn(|| {
                    stay_on_one_cpu();
                    load.run(from.netns(), to.netns(), to.ipv4(), quiet)
                });
                sending.join().expect("it doesn't panic")
            });
            let arrivals = arrivals.expect("it is sent and received");
            let numbers: Vec<u64> = arrivals.iter().map(|arrival| arrival.number).collect();
            let expected: Vec<u64> = (0..load.datagrams).collect();
            assert_eq!(numbers, expected, "{way:?}, flow {flow}");
        }
        assert!(
            handed_over() > handed_before,
            "{way:?}: no CPU handed a packet over"
        );
        rig.delete("slow");
    }
}

/// So that nothing but the kernel's steering takes a packet to another one. Threads that this one starts stay there too.
fn stay_on_one_cpu() {
    let mut only = CpuSet::new();
    only.set(0).expect("there is one");
    sched_setaffinity(Pid::from_raw(0), &only).expect("the kernel takes it");
}

/// How often a CPU has been told by another one to receive packets. Nothing else of a guest has them handed over.
fn handed_over() -> u64 {
    let statistics = fs::read_to_string("/proc/net/softnet_stat").expect("the kernel has it");
    let times = statistics.lines().map(|cpu| {
        let told = cpu.split_whitespace().nth(9).expect("a tenth column");
        u64::from_str_radix(told, 16).expect("a number in hexadecimal digits")
    });
    times.sum()
}

#[test]
fn what_the_queue_has_no_room_for_is_lost_and_counted() {
    let Some(rig) = rig(2, &["--delay-line-bytes", "256KiB"]) else {
        return;
    };
    let load = UdpLoad {
        datagrams: 1000,
        payload: 1000,
        per_second: 5000,
    };
    // By this fault, which is none of UDP's, the daemon knows whose the drops are.
    let target = rig.lab.pod(TARGET);
    rig.apply("still", Spec::drop(target, 0.0).port("TCP", None));
    let pod = format!("netns:{}", target.netns().path().display());
    let is_known = wait_until(on_this_machine(PATIENCE), INTERVAL, || {
        let scrape = rig.daemon.scrape().expect("the daemon is scraped");
        scrape
            .value("sabot_dns_queries_total", &[("pod", &pod)])
            .is_some()
    });
    assert!(is_known, "{pod} has no series");
    for way in Way::BOTH {
        let (from, to) = way.ends(&rig);
        let spec = Spec::delay(rig.lab.pod(TARGET), Duration::from_millis(200));
        rig.apply("slow", way.limit(spec).port("UDP", None));
        let arrived = send(load, from, to, to.ipv4()).arrived();
        let books = way.pick(rig.settled("slow"));
        let scrape = rig.daemon.scrape().expect("the daemon is scraped");
        let direction = format!("{:?}", way.direction()).to_lowercase();
        let labels = [
            ("pod", &*pod),
            ("reason", "FAULT_LOST_BOUND"),
            ("direction", &*direction),
        ];
        let told = scrape.sum("sabot_packet_drops_total", &labels);
        rig.delete("slow");
        assert_eq!(told, books.lost_bound.packets as f64, "{way:?} {books:?}");
        assert_eq!(books.matched.packets, load.datagrams, "{books:?}");
        assert_eq!(books.released.packets, arrived, "{books:?}");
        assert_eq!(books.lost_bound.packets, load.datagrams - arrived, "{books:?}");
        assert!(
            arrived > 20 && books.lost_bound.packets > 100,
            "{way:?} {books:?}"
        );
    }
}

#[test]
fn an_edit_loses_nothing_that_is_held_and_a_shorter_delay_lets_nothing_overtake() {
    let Some(rig) = rig(2, &[]) else { return };
    let (from, to) = Way::Egress.ends(&rig);
    let load = StampedLoad {
        datagrams: 1500,
        payload: 64,
        per_second: 500,
    };
    let run = |actions: &[&str]| {
        let spec = |action: &str| Spec::action(from, action).egress().port("UDP", None);
        rig.apply("edited", spec(actions[0]));
        let quiet = on_this_machine(Duration::from_secs(1));
        let arrivals = thread::scope(|scope| {
            let sending = scope.spawn(|| load.run(from.netns(), to.netns(), to.ipv4(), quiet));
            for action in actions.iter().cycle().skip(1) {
                thread::sleep(Duration::from_millis(250));
                if sending.is_finished() {
                    break;
                }
                rig.apply("edited", spec(action));
            }
            sending
                .join()
                .expect("it doesn't panic")
                .expect("it is sent and received")
        });
        let [egress, _] = rig.settled("edited");
        rig.delete("edited");
        assert_eq!(arrivals.len() as u64, load.datagrams, "{actions:?}: {egress:?}");
        assert_eq!(egress.released.packets, load.datagrams, "{actions:?}: {egress:?}");
        arrivals
    };
    let kept = run(&["delay: {latency: 150ms}", "delay: {latency: 5ms}"]);
    // Otherwise hundreds would. Some may, where the machine stands still while a rule is swapped.
    let overtaken = kept.windows(2).filter(|pair| pair[1].number < pair[0].number);
    let overtaken = overtaken.count();
    assert!(overtaken < 20, "{overtaken}");
    // The kernel's queue and the delay line in turns.
    run(&[
        "delay: {latency: 100ms}",
        "delay: {latency: 60ms, jitter: 20ms}",
        "delay: {latency: 300ms}",
    ]);
}

#[test]
fn nothing_is_held_beyond_the_deadline() {
    const LASTING: Duration = Duration::from_secs(3);
    let Some(rig) = rig(2, &[]) else { return };
    let (target, peer) = (rig.lab.pod(TARGET), rig.lab.pod(PEER));
    let answers = ProbeServer::start(peer.netns(), peer.ipv4()).expect("it binds");
    let prober = Prober::start(target.netns(), &answers, INTERVAL * 4).expect("there is a route");
    let spec = Spec::delay(target, Duration::from_millis(200))
        .egress()
        .lasting(LASTING);
    let fault = rig.apply("slow", spec);
    let deadline = rig.deadline(&fault);
    let quick = prober.wait_quick(deadline, Duration::from_millis(190), PATIENCE);
    quick.expect("probes aren't delayed any more");
    let [egress, _] = rig.settled("slow");
    assert_eq!(egress.matched, egress.released, "{egress:?}");
    // What was sent shortly before the deadline didn't wait for the whole delay.
    let last = prober.between(deadline - Duration::from_millis(150), deadline);
    let took = last
        .iter()
        .filter_map(|sample| Some(sample.arrived? - sample.sent));
    let shortest = took.min().expect("some arrived");
    assert!(shortest < Duration::from_millis(190), "{shortest:?}");
}

#[test]
fn a_pod_that_goes_while_its_packets_are_held_is_really_gone() {
    let Some(mut rig) = rig(3, &[]) else { return };
    rig.apply("slow", Spec::delay(rig.lab.pod(2), Duration::from_millis(200)));
    let nobody: (IpAddr, u16) = (rig.lab.pod(PEER).ipv4(), 9);
    let load = UdpLoad {
        datagrams: 200,
        payload: 100,
        per_second: 5000,
    };
    load.send(rig.lab.pod(2).netns(), nobody.into())
        .expect("it is sent");
    let removed = Instant::now();
    let port = rig.lab.remove_pod(2);
    let patience = on_this_machine(Duration::from_secs(5));
    let gone = wait_until(patience, INTERVAL, || !rig.lab.node_has(&port));
    assert!(
        gone,
        "after {:?} something holds its namespace",
        removed.elapsed()
    );
    let [egress, _] = rig.settled("slow");
    assert_eq!(
        egress.matched.packets,
        egress.released.packets + egress.lost().packets,
        "{egress:?}"
    );
}

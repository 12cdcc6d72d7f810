//! Wire corruption: the receiver's stack rejects exactly the packets that are counted, and the application sees nothing.

use std::time::Duration;

use sabot_testkit::prediction::SeededStream;
use sabot_testkit::rig::PATIENCE;
use sabot_testkit::snmp::snmp;
use sabot_testkit::traffic::{Bulk, UdpLoad};
use sabot_testkit::wait::wait_for;
use sabot_testkit::way::{TARGET, Way, send};
use sabot_testkit::{LabPod, Rig, Spec};

const SEED: u64 = 99;
const LOAD: UdpLoad = UdpLoad {
    datagrams: 20_000,
    payload: 200,
    per_second: 20_000,
};

/// Packets of both families whose checksum the stack found wrong.
fn bad(pod: &LabPod, protocol: &str) -> u64 {
    let v4 = snmp(pod.netns(), protocol, "InCsumErrors").expect("the kernel counts it");
    // TCP has one counter for both.
    let v6 = match protocol {
        "Udp" => sabot_testkit::snmp::snmp6(pod.netns(), "Udp6InCsumErrors").expect("the kernel counts it"),
        _ => 0,
    };
    v4 + v6
}

/// Waits until so many more are wrong than before; how many more there are.
fn rise(pod: &LabPod, protocol: &str, before: u64, expected: u64) -> u64 {
    let rise = || bad(pod, protocol) - before;
    wait_for(PATIENCE, Duration::from_millis(10), || {
        (rise() >= expected).then_some(())
    });
    rise()
}

#[test]
fn datagrams_are_rejected_by_their_checksum() {
    let rig = Rig::new(2);
    for way in Way::BOTH {
        let (from, to) = way.ends(&rig);
        for ip in [to.ipv4(), to.ipv6()] {
            for bits in [1, 8] {
                let yaml = format!("corrupt: {{kind: wire, percent: 10, bits: {bits}}}");
                let spec = Spec::action(rig.lab.pod(TARGET), &yaml)
                    .seed(SEED)
                    .port("UDP", None);
                rig.apply("wire", way.limit(spec));
                let before = bad(to, "Udp");
                let report = send(LOAD, from, to, ip);
                let books = way.pick(rig.settled("wire"));
                rig.delete("wire");
                let what = format!("{way:?} {ip} {bits}");
                let name = format!("netns:{}/eth0", rig.lab.pod(TARGET).netns().path().display());
                let chosen = SeededStream::new(SEED, &name, way.direction()).share(0.1, LOAD.datagrams);
                assert_eq!(report.missing(LOAD.datagrams), chosen, "{what}");
                assert_eq!(books.corrupted.packets, chosen.len() as u64, "{what}: {books:?}");
                assert_eq!(
                    rise(to, "Udp", before, chosen.len() as u64),
                    chosen.len() as u64,
                    "{what}"
                );
                assert!(report.altered.is_empty(), "{what}: the application sees it");
            }
        }
    }
}

#[test]
fn a_stream_loses_the_packets_and_no_byte() {
    const BYTES: u64 = 32 << 20;
    let rig = Rig::new(2);
    for way in Way::BOTH {
        let (from, to) = way.ends(&rig);
        let spec = Spec::action(rig.lab.pod(TARGET), "corrupt: {kind: wire, percent: 1, bits: 3}");
        rig.apply("wire", way.limit(spec.seed(SEED).port("TCP", None)));
        let before = bad(to, "Tcp");
        let sink = Bulk::listen(to.netns(), to.ipv4(), PATIENCE).expect("it binds");
        let (sent, received) = sink.send_from(from.netns(), BYTES, PATIENCE).expect("it arrives");
        let books = way.pick(rig.settled("wire"));
        rig.delete("wire");
        assert_eq!(sent.sha256, received.sha256, "{way:?}");
        assert!(received.altered.is_empty(), "{way:?}");
        assert!(books.corrupted.packets > 100, "{way:?}: {books:?}");
        assert_eq!(
            rise(to, "Tcp", before, books.corrupted.packets),
            books.corrupted.packets,
            "{way:?}: {books:?}"
        );
    }
}

#[test]
fn only_bytes_of_the_range_are_changed() {
    let rig = Rig::new(2);
    let (from, to) = Way::Egress.ends(&rig);
    // The whole payload is at least 56 bytes; the number stands in the first eight.
    let yaml = "corrupt: {percent: 100, bits: 8, offset: {from: 60, to: 61}}";
    rig.apply("range", Spec::action(from, yaml).egress().port("UDP", None));
    let load = UdpLoad {
        datagrams: 1_000,
        ..LOAD
    };
    let report = send(load, from, to, to.ipv4());
    let [egress, _] = rig.settled("range");
    assert_eq!(egress.corrupted.packets, load.datagrams);
    assert_eq!(
        report.altered.len() as u64,
        load.datagrams,
        "each is changed and keeps its number"
    );
}

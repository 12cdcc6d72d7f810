use std::time::SystemTime;

use sabot_proto::convert::{duration_to_proto, timestamp_to_proto};
use sabot_proto::sabot::v1;

use super::*;

fn document(targets: Vec<v1::TargetTimeline>) -> TimelineDoc {
    let timeline = v1::Timeline {
        fault: Some(v1::Metadata {
            name: "cut".into(),
            namespace: "shop".into(),
        }),
        applied_at: Some(timestamp_to_proto(SystemTime::UNIX_EPOCH)),
        targets,
        activity: None,
    };
    TimelineDoc::try_from(timeline).expect("it is understood")
}

fn moment(kind: v1::MomentKind, millis: u64, after: Option<u64>) -> v1::Moment {
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
    v1::Moment {
        kind: kind.into(),
        time: Some(timestamp_to_proto(time)),
        since_previous: after.map(|millis| duration_to_proto(Duration::from_millis(millis))),
        detail: String::new(),
    }
}

/// Lines with one space between words.
fn squeezed(text: &str) -> Vec<String> {
    let words = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    words.map(|words| words.join(" ")).collect()
}

/// Some of everything.
fn during() -> v1::Aggregate {
    let rtt = v1::Latencies {
        count: 9,
        mean: Some(duration_to_proto(Duration::from_millis(40))),
        p50: Some(duration_to_proto(Duration::from_millis(41))),
        p90: None,
        p99: None,
    };
    v1::Aggregate {
        length: Some(duration_to_proto(Duration::from_secs(10))),
        retransmits: 12,
        connections_opened: 8,
        connections_closed: 1,
        connections_failed: 5,
        connections: vec![with("service", 6, 0, 4), with("public", 2, 1, 1)],
        connect_errors: vec![named("ECONNREFUSED", 4), named("ETIMEDOUT", 1)],
        drops_injected: 7,
        drops: vec![v1::DropAggregate {
            direction: v1::Direction::Ingress.into(),
            reason: "FAULT".into(),
            injected: true,
            packets: 7,
        }],
        dns_queries: 3,
        dns_answers: vec![named("SERVFAIL", 2)],
        dns_failed: 2,
        dns_retries: 1,
        rtt: Some(rtt),
        ..v1::Aggregate::default()
    }
}

#[test]
fn a_timeline_reads_from_top_to_bottom_with_what_was_before_during_and_after() {
    let target = v1::TargetTimeline {
        namespace: "shop".into(),
        name: "web-0".into(),
        moments: vec![
            moment(v1::MomentKind::Applied, 0, None),
            moment(v1::MomentKind::FirstRetransmit, 205, Some(205)),
        ],
        recovery: v1::Recovery::TooSlow.into(),
        before: Some(v1::Aggregate::default()),
        during: Some(during()),
        after: None,
    };
    let text = timeline(&document(vec![target]));
    assert_eq!(
        squeezed(&text),
        [
            "Fault: shop/cut",
            "Applied: 1970-01-01T00:00:00.000Z",
            "",
            "Target shop/web-0",
            "TIME AFTER WHAT DETAIL",
            "1970-01-01T00:00:00.000Z applied",
            "1970-01-01T00:00:00.205Z +205.000ms first retransmit",
            "Recovery: not within a minute after the end",
            "",
            "BEFORE DURING AFTER",
            "length 10.000s -",
            "connections opened 0 8 -",
            "to public 0 2 -",
            "to service 0 6 -",
            "connections closed 0 1 -",
            "with public 0 1 -",
            "connections failed 0 5 -",
            "ECONNREFUSED 0 4 -",
            "ETIMEDOUT 0 1 -",
            "to public 0 1 -",
            "to service 0 4 -",
            "segments retransmitted 0 12 -",
            "packets dropped by faults 0 7 -",
            "ingress FAULT 0 7 -",
            "DNS queries 0 3 -",
            "SERVFAIL 0 2 -",
            "DNS failures 0 2 -",
            "DNS retries 0 1 -",
            "round trip p50 / p99 - 41.000ms / > 17s -",
        ],
        "{text}"
    );
}

#[test]
fn a_fault_that_waits_has_no_targets_yet() {
    assert!(timeline(&document(Vec::new())).ends_with("It has not been in force on any target yet."));
}

fn named(name: &str, count: u64) -> v1::NamedCount {
    v1::NamedCount {
        name: name.into(),
        count,
    }
}

fn with(peer: &str, opened: u64, closed: u64, failed: u64) -> v1::TcpConnections {
    v1::TcpConnections {
        peer: peer.into(),
        opened,
        accepted: 0,
        closed,
        failed,
    }
}

fn took(count: u64, p99_micros: u64) -> Option<v1::Latencies> {
    Some(v1::Latencies {
        count,
        p50: Some(duration_to_proto(Duration::from_micros(p99_micros / 2))),
        p99: Some(duration_to_proto(Duration::from_micros(p99_micros))),
        ..v1::Latencies::default()
    })
}

fn sync(calls: u64, failed: u64, p99_micros: u64) -> v1::CallAggregate {
    v1::CallAggregate {
        process: "etcd".into(),
        syscall: "fdatasync".into(),
        calls,
        errors: (failed > 0).then(|| named("EIO", failed)).into_iter().collect(),
        durations: took(calls, p99_micros),
    }
}

fn process(name: &str, calls: u64, errors: u64, p99_micros: u64) -> v1::ProcessAggregate {
    v1::ProcessAggregate {
        process: name.into(),
        calls,
        errors,
        durations: took(calls, p99_micros),
    }
}

#[test]
fn what_the_node_did_meanwhile_stands_side_by_side() {
    let stop = v1::OperationAggregate {
        operation: "StopContainer".into(),
        calls: 2,
        failures: 1,
        outcomes: vec![named("DeadlineExceeded", 1), named("OK", 1)],
        durations: took(2, 500_000),
    };
    let before = v1::NodeAggregate {
        length: Some(duration_to_proto(Duration::from_secs(30))),
        processes: vec![process("kubelet", 900, 0, 40)],
        calls: vec![sync(100, 0, 900)],
        ..v1::NodeAggregate::default()
    };
    let during = v1::NodeAggregate {
        length: Some(duration_to_proto(Duration::from_secs(10))),
        processes: vec![process("kubelet", 400, 20, 2500), process("runc", 7, 0, 12)],
        calls: vec![sync(90, 2, 250_000)],
        operations: vec![stop],
        ..v1::NodeAggregate::default()
    };
    let mut document = document(vec![v1::TargetTimeline::default()]);
    let node = v1::NodeTimeline {
        before: Some(before),
        during: Some(during),
        after: None,
    };
    let meanwhile = v1::Timeline {
        activity: Some(node),
        ..v1::Timeline::default()
    };
    document.activity = TimelineDoc::try_from(meanwhile)
        .expect("it is understood")
        .activity;
    let text = timeline(&document);
    let (_, text) = text.split_once("The node meanwhile\n").expect("it is told");
    assert_eq!(
        squeezed(text),
        [
            "BEFORE DURING AFTER",
            "length 30.000s 10.000s -",
            "SYSCALLS / FAILED / P50 / P99",
            "kubelet 900 / 0 / 20.000µs / 40.000µs 400 / 20 / 1.250ms / 2.500ms -",
            "runc - 7 / 0 / 6.000µs / 12.000µs -",
            "BY SYSCALL",
            "etcd fdatasync 100 / 0 / 450.000µs / 900.000µs 90 / 2 / 125.000ms / 250.000ms -",
            "EIO 0 2 -",
            "RUNTIME CALLS / FAILED / P50 / P99",
            "StopContainer - 2 / 1 / 250.000ms / 500.000ms -",
            "DeadlineExceeded - 1 -",
        ],
        "{text}"
    );
    document.activity = None;
    assert!(!timeline(&document).contains("meanwhile"));
}

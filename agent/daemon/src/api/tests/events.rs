mod containers;
mod demand;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sabot_proto::sabot::v1;
use sabot_proto::sabot::v1::event::Kind;
use tonic::{Code, Streaming};

use super::engine::fault_name;
use super::{Fixture, HUB_CAPACITY, metadata, next};
use crate::observe::event::{
    ContainerEvent, CriEvent, Event, EventKind, FaultEvent, PacketEvent, SyscallEvent,
};
use crate::observe::identity::Identity;

fn packet(fault: &str, pod: &str, outcome: &'static str) -> EventKind {
    EventKind::Packet(PacketEvent {
        fault: fault_name(fault),
        pod_namespace: "team-a".into(),
        pod_name: pod.into(),
        device: "eth0".into(),
        egress: true,
        outcome,
        source: IpAddr::from([10, 0, 0, 1]),
        destination: IpAddr::from([10, 0, 0, 2]),
        source_port: 40_000,
        destination_port: 80,
        protocol: 6,
        wire_packets: 3,
        wire_bytes: 4_200,
    })
}

fn syscall(process: &str, micros: u64, errno: Option<&'static str>) -> EventKind {
    EventKind::Syscall(SyscallEvent {
        process: process.into(),
        pid: 11,
        tid: 12,
        syscall: "openat",
        duration: Duration::from_micros(micros),
        result: errno.map_or(3, |_| -2),
        errno,
        comm: "worker".into(),
        detail: vec![("path", "/etc/passwd".into())],
    })
}

fn change(fault: &str) -> EventKind {
    change_of(fault, None)
}

fn change_of(fault: &str, pod: Option<&str>) -> EventKind {
    let target = pod.map(|name| {
        Arc::new(Identity::Pod {
            namespace: "team-a".into(),
            name: name.into(),
        })
    });
    EventKind::Fault(FaultEvent {
        fault: fault_name(fault),
        change: if pod.is_some() { "recovered" } else { "injected" },
        message: String::new(),
        target,
    })
}

fn call(pod: &str, millis: u64, outcome: &'static str) -> EventKind {
    EventKind::Cri(CriEvent {
        operation: "StartContainer",
        pod_namespace: "team-a".into(),
        pod_name: pod.into(),
        sandbox: "s1".into(),
        container: "c1".into(),
        image: String::new(),
        process: "kubelet".into(),
        pid: 11,
        duration: Some(Duration::from_millis(millis)),
        outcome,
        message: "why".into(),
    })
}

fn container(pod: &str) -> EventKind {
    EventKind::Container(ContainerEvent {
        change: "stopped",
        pod_namespace: "team-a".into(),
        pod_name: pod.into(),
        sandbox: "s1".into(),
        container: "c1".into(),
    })
}

/// One event of each distinguishable sort; the order is relied upon below.
fn samples() -> Vec<EventKind> {
    vec![
        packet("cut", "web", "dropped"),
        packet("cut", "db", "passed"),
        packet("slow", "web", "delayed"),
        syscall("kubelet", 50, None),
        syscall("kubelet", 900, Some("ENOENT")),
        syscall("containerd", 2_000, None),
        change("cut"),
        change("slow"),
        call("web", 1, "OK"),
        call("db", 5, "NotFound"),
        container("web"),
        change_of("cut", Some("web")),
        change_of("cut", Some("db")),
    ]
}

fn publish(fixture: &Fixture, kind: EventKind) {
    fixture.events.publish(Event {
        time: SystemTime::now(),
        container: None,
        kind,
    });
}

async fn watch(fixture: &Fixture, request: v1::WatchEventsRequest) -> Streaming<v1::WatchEventsResponse> {
    let answer = fixture.observe().watch_events(request).await.expect("a stream");
    answer.into_inner()
}

async fn next_kind(stream: &mut Streaming<v1::WatchEventsResponse>) -> Kind {
    let event = next(stream).await.event.expect("an event");
    assert!(event.time.is_some());
    assert_eq!(event.node, "node-1");
    event.kind.expect("of some kind")
}

/// The indexes of the samples that a filter lets through.
async fn passing(request: v1::WatchEventsRequest) -> Vec<usize> {
    let fixture = Fixture::start().await;
    let mut everything = watch(&fixture, v1::WatchEventsRequest::default()).await;
    let mut filtered = watch(&fixture, request).await;
    let count = samples().len();
    for sample in samples() {
        publish(&fixture, sample);
    }
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        all.push(next_kind(&mut everything).await);
    }
    // Passes every filter, and so marks the end.
    publish(
        &fixture,
        EventKind::Lost {
            stream: "packets",
            count: 1,
        },
    );
    let mut passed = Vec::new();
    loop {
        match next_kind(&mut filtered).await {
            Kind::Lost(_) => return passed,
            kind => passed.push(all.iter().position(|k| *k == kind).expect("it was published")),
        }
    }
}

#[tokio::test]
async fn events_arrive_with_all_their_fields() {
    let fixture = Fixture::start().await;
    let mut stream = watch(&fixture, v1::WatchEventsRequest::default()).await;
    publish(&fixture, packet("cut", "web", "dropped"));
    publish(&fixture, syscall("kubelet", 900, Some("ENOENT")));
    publish(&fixture, change("cut"));
    let pod = v1::PodRef {
        namespace: "team-a".into(),
        name: "web".into(),
    };
    assert_eq!(
        next_kind(&mut stream).await,
        Kind::Packet(v1::PacketEvent {
            fault: Some(metadata("cut")),
            pod: Some(pod),
            device: "eth0".into(),
            direction: v1::Direction::Egress.into(),
            outcome: v1::PacketOutcome::Dropped.into(),
            source: "10.0.0.1".into(),
            destination: "10.0.0.2".into(),
            source_port: 40_000,
            destination_port: 80,
            protocol: 6,
            wire_packets: 3,
            wire_bytes: 4_200,
        })
    );
    assert_eq!(
        next_kind(&mut stream).await,
        Kind::Syscall(v1::SyscallEvent {
            process: "kubelet".into(),
            pid: 11,
            tid: 12,
            syscall: "openat".into(),
            duration: Some(prost_types::Duration {
                seconds: 0,
                nanos: 900_000
            }),
            result: -2,
            errno: Some("ENOENT".into()),
            comm: "worker".into(),
            detail: [("path".to_owned(), "/etc/passwd".to_owned())].into(),
        })
    );
    let Kind::Fault(event) = next_kind(&mut stream).await else {
        panic!("a change of a fault was published");
    };
    assert_eq!(
        (event.fault, event.change.as_str()),
        (Some(metadata("cut")), "injected")
    );
}

#[tokio::test]
async fn a_call_of_the_runtime_arrives_with_all_its_fields() {
    let fixture = Fixture::start().await;
    let mut stream = watch(&fixture, v1::WatchEventsRequest::default()).await;
    publish(&fixture, call("web", 1, "OK"));
    let Kind::Cri(event) = next_kind(&mut stream).await else {
        panic!("a call was published");
    };
    let pod = event.pod.expect("it is known");
    assert_eq!((pod.namespace.as_str(), pod.name.as_str()), ("team-a", "web"));
    assert_eq!(
        (event.operation.as_str(), event.outcome.as_str()),
        ("StartContainer", "OK")
    );
    assert_eq!((event.sandbox.as_str(), event.container.as_str()), ("s1", "c1"));
    assert_eq!((event.process.as_str(), event.pid), ("kubelet", 11));
    assert_eq!(event.duration.map(|took| took.nanos), Some(1_000_000));
    assert_eq!(event.message, "why");
}

#[tokio::test]
async fn what_happened_to_a_container_arrives_with_all_its_fields() {
    let fixture = Fixture::start().await;
    let mut stream = watch(&fixture, v1::WatchEventsRequest::default()).await;
    publish(&fixture, container("web"));
    let expected = v1::ContainerEvent {
        change: "stopped".into(),
        pod: Some(v1::PodRef {
            namespace: "team-a".into(),
            name: "web".into(),
        }),
        sandbox: "s1".into(),
        container: "c1".into(),
    };
    assert_eq!(next_kind(&mut stream).await, Kind::Container(expected));
}

#[tokio::test]
async fn calls_of_the_runtime_are_filtered_by_type_and_pod() {
    let none = v1::WatchEventsRequest::default;
    let calls = v1::WatchEventsRequest {
        types: vec![v1::EventType::Cri.into()],
        ..none()
    };
    assert_eq!(passing(calls).await, [8, 9]);
    let containers = v1::WatchEventsRequest {
        types: vec![v1::EventType::Container.into()],
        ..none()
    };
    assert_eq!(passing(containers).await, [10]);
    let pod = v1::WatchEventsRequest {
        pod: Some(v1::PodRef {
            namespace: "team-a".into(),
            name: "web".into(),
        }),
        ..none()
    };
    assert_eq!(passing(pod).await, [0, 2, 8, 10, 11]);
}

#[tokio::test]
async fn filters_hold_together_and_exclude_what_lacks_the_property() {
    let none = v1::WatchEventsRequest::default;
    let syscalls = v1::WatchEventsRequest {
        types: vec![v1::EventType::Syscall.into()],
        ..none()
    };
    assert_eq!(passing(syscalls).await, [3, 4, 5]);
    let fault = v1::WatchEventsRequest {
        fault: Some(metadata("cut")),
        ..none()
    };
    assert_eq!(passing(fault).await, [0, 1, 6, 11, 12]);
    let fault_and_pod = v1::WatchEventsRequest {
        fault: Some(metadata("cut")),
        pod: Some(v1::PodRef {
            namespace: "team-a".into(),
            name: "web".into(),
        }),
        ..none()
    };
    assert_eq!(passing(fault_and_pod).await, [0, 11]);
    let outcome = v1::WatchEventsRequest {
        outcome: v1::PacketOutcome::Delayed.into(),
        ..none()
    };
    assert_eq!(passing(outcome).await, [2]);
    let process = v1::WatchEventsRequest {
        process: Some("kubelet".into()),
        ..none()
    };
    assert_eq!(passing(process).await, [3, 4, 8, 9]);
    let failed = v1::WatchEventsRequest {
        failed_only: true,
        ..none()
    };
    assert_eq!(passing(failed).await, [4, 9]);
    let slow = v1::WatchEventsRequest {
        min_duration: Some(prost_types::Duration {
            seconds: 0,
            nanos: 900_000,
        }),
        ..none()
    };
    assert_eq!(passing(slow).await, [4, 5, 8, 9]);
    let contradiction = v1::WatchEventsRequest {
        types: vec![v1::EventType::Packet.into()],
        failed_only: true,
        ..none()
    };
    assert_eq!(passing(contradiction).await, [0_usize; 0]);
}

#[tokio::test]
async fn unknown_filters_are_refused_by_name() {
    let fixture = Fixture::start().await;
    for (request, field) in [
        (
            v1::WatchEventsRequest {
                types: vec![99],
                ..v1::WatchEventsRequest::default()
            },
            "types: 99",
        ),
        (
            v1::WatchEventsRequest {
                outcome: 99,
                ..v1::WatchEventsRequest::default()
            },
            "outcome: 99",
        ),
        (
            v1::WatchEventsRequest {
                min_duration: Some(prost_types::Duration {
                    seconds: -1,
                    nanos: 0,
                }),
                ..v1::WatchEventsRequest::default()
            },
            "minDuration: -1 s",
        ),
    ] {
        let status = fixture
            .observe()
            .watch_events(request)
            .await
            .expect_err("it is refused");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with(field), "{}", status.message());
    }
}

#[tokio::test]
async fn a_slow_reader_is_told_how_many_events_it_lost() {
    const EXTRA: usize = 84;
    let fixture = Fixture::start().await;
    let mut stream = watch(&fixture, v1::WatchEventsRequest::default()).await;
    // Nothing else runs on this thread meanwhile, so that the hub overflows for certain.
    for _ in 0..HUB_CAPACITY + EXTRA {
        publish(&fixture, change("cut"));
    }
    let Kind::Lost(lost) = next_kind(&mut stream).await else {
        panic!("the gap comes where the events are missing");
    };
    assert_eq!((lost.stream.as_str(), lost.count), ("watch", EXTRA as u64));
    for _ in 0..HUB_CAPACITY {
        assert!(matches!(next_kind(&mut stream).await, Kind::Fault(_)));
    }
    assert_eq!(fixture.watch_loss.get(), EXTRA as u64);
    let snapshot = fixture
        .observe()
        .get_snapshot(v1::GetSnapshotRequest {})
        .await
        .expect("a snapshot")
        .into_inner();
    let lost: Vec<_> = snapshot
        .events_lost
        .iter()
        .map(|l| (l.name.as_str(), l.count))
        .collect();
    assert_eq!(lost, [("packets", 5), ("watch", EXTRA as u64)]);
}

#[tokio::test]
async fn a_snapshot_holds_every_counter() {
    let fixture = Fixture::start().await;
    fixture.apply("cut").await;
    fixture.engine.count("cut", 9);
    let snapshot = fixture
        .observe()
        .get_snapshot(v1::GetSnapshotRequest {})
        .await
        .expect("a snapshot")
        .into_inner();
    assert!(snapshot.time.is_some());
    let ledgers = &snapshot.faults[0].status.as_ref().expect("a status").ledgers;
    assert_eq!(
        ledgers[0].ledger.and_then(|l| l.matched).map(|t| t.packets),
        Some(9)
    );
    assert_eq!(
        snapshot.syscalls,
        [v1::SyscallSummary {
            process: "containerd".into(),
            syscall: "openat".into(),
            calls: 12,
            total: Some(prost_types::Duration {
                seconds: 0,
                nanos: 340_000
            }),
            errors: vec![v1::NamedCount {
                name: "ENOENT".into(),
                count: 3
            }],
            p50: Some(prost_types::Duration {
                seconds: 0,
                nanos: 20_000
            }),
            p99: Some(prost_types::Duration {
                seconds: 0,
                nanos: 90_000
            }),
            durations: Some(v1::Durations {
                count: 12,
                total: Some(prost_types::Duration {
                    seconds: 0,
                    nanos: 340_000
                }),
                buckets: vec![v1::DurationBucket {
                    below: Some(prost_types::Duration {
                        seconds: 0,
                        nanos: 1024
                    }),
                    count: 12,
                }],
            }),
        }]
    );
    let unparsed = v1::NamedCount {
        name: "unparsed".into(),
        count: 2,
    };
    assert_eq!(snapshot.incidents, [unparsed]);
}

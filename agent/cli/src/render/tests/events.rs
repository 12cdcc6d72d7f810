use crate::view::EventDoc;
use std::collections::HashMap;

use super::*;

fn event(kind: v1::event::Kind) -> EventDoc {
    let wire = v1::Event {
        time: Some(timestamp_to_proto(now())),
        kind: Some(kind),
        ..v1::Event::default()
    };
    wire.try_into().expect("it is understood")
}

fn cut() -> Option<v1::Metadata> {
    Some(v1::Metadata {
        name: "cut".into(),
        namespace: "team-a".into(),
    })
}

fn packet() -> v1::PacketEvent {
    v1::PacketEvent {
        fault: cut(),
        pod: Some(v1::PodRef {
            namespace: "team-a".into(),
            name: "web-0".into(),
        }),
        device: "eth0".into(),
        direction: v1::Direction::Egress.into(),
        outcome: v1::PacketOutcome::Dropped.into(),
        source: "10.0.0.1".into(),
        destination: "fd00::2".into(),
        source_port: 40_000,
        destination_port: 80,
        protocol: 6,
        wire_packets: 3,
        wire_bytes: 4_200,
    }
}

fn syscall() -> v1::SyscallEvent {
    v1::SyscallEvent {
        process: "kubelet".into(),
        pid: 11,
        tid: 12,
        syscall: "openat".into(),
        duration: Some(prost_types::Duration {
            seconds: 0,
            nanos: 2_500_000,
        }),
        result: -2,
        errno: Some("ENOENT".into()),
        comm: "kubelet".into(),
        detail: [("path".to_owned(), "/etc/a\nb".to_owned())].into(),
    }
}

fn call() -> v1::CriEvent {
    v1::CriEvent {
        operation: "CreateContainer".into(),
        pod: Some(v1::PodRef {
            namespace: "team-a".into(),
            name: "web-0".into(),
        }),
        sandbox: "5f2c8e0b7a6d4c3b2a19".into(),
        container: String::new(),
        image: "busybox:1".into(),
        process: "kubelet".into(),
        pid: 11,
        duration: Some(prost_types::Duration {
            seconds: 0,
            nanos: 2_500_000,
        }),
        outcome: "NotFound".into(),
        message: "no such image".into(),
    }
}

fn container() -> v1::ContainerEvent {
    v1::ContainerEvent {
        change: "stopped".into(),
        pod: packet().pod,
        sandbox: call().sandbox,
        container: "19ab".into(),
    }
}

fn refused() -> v1::TcpEvent {
    v1::TcpEvent {
        pod: packet().pod,
        change: v1::TcpChange::ConnectFailed.into(),
        local: "10.0.0.1".into(),
        remote: "fd00::2".into(),
        local_port: 40_000,
        remote_port: 80,
        errno: Some("ECONNREFUSED".into()),
    }
}

fn drop() -> v1::DropEvent {
    v1::DropEvent {
        pod: packet().pod,
        direction: v1::Direction::Ingress.into(),
        reason: "NO_SOCKET".into(),
        source: "10.0.0.1".into(),
        destination: "10.0.0.2".into(),
        source_port: 40_000,
        destination_port: 53,
        protocol: 17,
        wire_packets: 1,
        wire_bytes: 142,
    }
}

fn query() -> v1::DnsEvent {
    v1::DnsEvent {
        pod: None,
        outcome: v1::DnsOutcome::Failed.into(),
        name: "db.test".into(),
        r#type: "AAAA".into(),
        server: "10.0.0.2".into(),
        rcode: Some("SERVFAIL".into()),
        latency: Some(prost_types::Duration {
            seconds: 0,
            nanos: 2_000_000,
        }),
    }
}

fn lost() -> v1::Lost {
    v1::Lost {
        stream: "watch".into(),
        count: 7,
    }
}

fn assert_line(kind: v1::event::Kind, line: &str) {
    assert_eq!(
        event_line(&event(kind)),
        format!("2030-03-17T17:46:40.000Z {line}")
    );
}

#[test]
fn what_happened_to_one_target_says_to_which() {
    let reacted = v1::FaultEvent {
        fault: cut(),
        change: "runtimeReaction".into(),
        message: "StopContainer by kubelet: OK".into(),
        target: Some(v1::PodRef {
            namespace: "team-a".into(),
            name: "web-0".into(),
        }),
    };
    assert_line(
        v1::event::Kind::Fault(reacted),
        "fault team-a/cut runtimeReaction at team-a/web-0: StopContainer by kubelet: OK",
    );
}

#[test]
fn events_are_one_line_each() {
    use v1::event::Kind;

    let expired = v1::FaultEvent {
        fault: cut(),
        change: "expired".into(),
        ..v1::FaultEvent::default()
    };
    for (kind, line) in [
        (
            Kind::Packet(packet()),
            "packet dropped by team-a/cut at team-a/web-0 eth0 egress TCP 10.0.0.1:40000 -> [fd00::2]:80 \
             (3 packets, 4.2 kB)",
        ),
        (
            Kind::Syscall(syscall()),
            "syscall kubelet[11/12] openat(path=/etc/a\\nb) = -2 ENOENT in 2ms 500us",
        ),
        (
            Kind::Syscall(v1::SyscallEvent {
                process: "/kubepods.slice".into(),
                comm: "etcd".into(),
                syscall: "getpid".into(),
                detail: HashMap::new(),
                errno: None,
                result: 7,
                ..syscall()
            }),
            "syscall /kubepods.slice etcd[11/12] getpid() = 7 in 2ms 500us",
        ),
        (Kind::Fault(expired), "fault team-a/cut expired"),
        (
            Kind::Cri(call()),
            "cri CreateContainer team-a/web-0 sandbox 5f2c8e0b7a6d4 image busybox:1 by kubelet[11] = NotFound in 2ms 500us: \
             no such image",
        ),
        (
            Kind::Cri(v1::CriEvent {
                operation: "unknown".into(),
                outcome: "unread".into(),
                ..v1::CriEvent::default()
            }),
            "cri unknown = unread",
        ),
        (
            Kind::Container(container()),
            "container stopped team-a/web-0 sandbox 5f2c8e0b7a6d4 container 19ab",
        ),
        (
            Kind::Container(v1::ContainerEvent {
                container: String::new(),
                ..container()
            }),
            "sandbox stopped team-a/web-0 sandbox 5f2c8e0b7a6d4",
        ),
        (Kind::Lost(lost()), "lost 7 events of watch"),
    ] {
        assert_line(kind, line);
    }
}

#[test]
fn what_happens_to_traffic_is_one_line_each() {
    use v1::event::Kind;

    for (kind, line) in [
        (
            Kind::Tcp(refused()),
            "tcp connect-failed ECONNREFUSED at team-a/web-0 10.0.0.1:40000 -> [fd00::2]:80",
        ),
        (
            Kind::Tcp(v1::TcpEvent {
                pod: None,
                change: v1::TcpChange::ResetSent.into(),
                ..v1::TcpEvent::default()
            }),
            "tcp reset-sent at node",
        ),
    ] {
        assert_line(kind, line);
    }
}

#[test]
fn drops_and_dns_queries_are_one_line_each() {
    use v1::event::Kind;

    for (kind, line) in [
        (
            Kind::Drop(drop()),
            "drop NO_SOCKET at team-a/web-0 ingress UDP 10.0.0.1:40000 -> 10.0.0.2:53 (142 B)",
        ),
        (
            Kind::Dns(query()),
            "dns failed SERVFAIL db.test AAAA from node to 10.0.0.2 after 2ms",
        ),
    ] {
        assert_line(kind, line);
    }
}

#[test]
fn the_json_of_an_event_names_its_type() {
    use v1::event::Kind;

    let value = |kind| serde_json::to_value(event(kind)).expect("JSON");
    let time = "2030-03-17T17:46:40.000Z";
    assert_eq!(
        value(Kind::Packet(packet())),
        json!({
            "time": time, "type": "packet", "fault": {"name": "cut", "namespace": "team-a"},
            "pod": {"namespace": "team-a", "name": "web-0"}, "device": "eth0", "direction": "egress",
            "outcome": "dropped", "source": "10.0.0.1", "destination": "fd00::2", "sourcePort": 40_000,
            "destinationPort": 80, "protocol": 6, "wirePackets": 3, "wireBytes": 4_200,
        })
    );
    assert_eq!(
        value(Kind::Syscall(syscall())),
        json!({
            "time": time, "type": "syscall", "process": "kubelet", "pid": 11, "tid": 12, "syscall": "openat",
            "duration": "2ms 500us", "result": -2, "errno": "ENOENT", "comm": "kubelet",
            "detail": {"path": "/etc/a\nb"},
        })
    );
    assert_eq!(
        value(Kind::Cri(call())),
        json!({
            "time": time, "type": "cri", "operation": "CreateContainer",
            "pod": {"namespace": "team-a", "name": "web-0"}, "sandbox": "5f2c8e0b7a6d4c3b2a19", "image": "busybox:1",
            "process": "kubelet", "pid": 11, "duration": "2ms 500us", "outcome": "NotFound", "message": "no such image",
        })
    );
    assert_eq!(
        value(Kind::Container(container())),
        json!({
            "time": time, "type": "container", "change": "stopped", "pod": {"namespace": "team-a", "name": "web-0"},
            "sandbox": "5f2c8e0b7a6d4c3b2a19", "container": "19ab",
        })
    );
    assert_eq!(
        value(Kind::Tcp(refused())),
        json!({
            "time": time, "type": "tcp", "pod": {"namespace": "team-a", "name": "web-0"}, "change": "connect-failed",
            "local": "10.0.0.1", "remote": "fd00::2", "localPort": 40_000, "remotePort": 80, "errno": "ECONNREFUSED",
        })
    );
    assert_eq!(
        value(Kind::Lost(lost())),
        json!({"time": time, "type": "lost", "stream": "watch", "count": 7})
    );
}

#[test]
fn an_event_in_a_container_names_it() {
    let within = |name: &str, pod| v1::Event {
        time: Some(timestamp_to_proto(now())),
        kind: Some(v1::event::Kind::Tcp(refused())),
        container_ref: Some(v1::ContainerRef {
            name: name.into(),
            id: "19ab".into(),
            pod,
        }),
        node: "node-a".into(),
    };
    let line = |event: v1::Event| event_line(&event.try_into().expect("it is understood"));
    let start = "2030-03-17T17:46:40.000Z tcp connect-failed ECONNREFUSED at team-a/web-0 10.0.0.1:40000 -> [fd00::2]:80";
    let in_pod = within("main", packet().pod);
    assert_eq!(
        line(in_pod.clone()),
        format!("{start}, container team-a/web-0/main")
    );
    assert_eq!(line(within("main", None)), format!("{start}, container main"));
    assert_eq!(
        line(within("", packet().pod)),
        format!("{start}, sandbox team-a/web-0")
    );
    let doc = EventDoc::try_from(in_pod).expect("it is understood");
    let json = serde_json::to_value(doc).expect("JSON");
    assert_eq!(
        json["containerRef"],
        json!({"name": "main", "id": "19ab", "pod": {"namespace": "team-a", "name": "web-0"}})
    );
    assert_eq!(json["node"], "node-a");
}

#[test]
fn what_is_traced_is_listed() {
    let tracing = v1::Tracing {
        containers: vec!["kube-system/etcd".into()],
        processes: vec!["kubelet".into(), "runc".into()],
        ..v1::Tracing::default()
    };
    assert_eq!(
        crate::render::tracing(&tracing.into()),
        "Processes:   kubelet, runc\nCgroups:     none\nContainers:  kube-system/etcd\nSyscalls:    all"
    );
}

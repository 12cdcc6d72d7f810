//! Flows of UDP, against what was sent and taken. They need root.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use sabot_abi::{FlowCounts, FlowKey, OwnerKey};
use sabot_proto::sabot::v1;
use sabot_testkit::holdings::Holdings;
use sabot_testkit::rig::PATIENCE;
use sabot_testkit::wait::wait_until;
use sabot_testkit::{Lab, LabPod, NetnsRef, Rig, Spec};
use sabotd::kernel::flows::Counted;
use sabotd::kernel::netns::cookie;
use sabotd::kernel::tcp::octets;
use sabotd::observe::identity::{Identities, Identity, Owner, Owners};
use sabotd::observe::udp::{DEFAULT_ROOM, Look, UdpFlows};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tonic::Code;

const LOOK: Duration = Duration::from_millis(20);

/// Looks from the test's own process, at pods that have the numbers 1, 2 and so on.
struct Scene {
    flows: UdpFlows,
    _owners: watch::Sender<Arc<Owners>>,
    runtime: Runtime,
}

impl Scene {
    fn new(lab: &Lab, room: u32) -> Self {
        let owners = (1..)
            .zip(lab.pods())
            .map(|(number, pod)| owner(number, pod.netns()));
        let (sender, receiver) = watch::channel(Arc::new(Owners::new(owners)));
        Self {
            flows: UdpFlows::new(Identities::from_watch(receiver), room),
            _owners: sender,
            runtime: Runtime::new().expect("a runtime starts"),
        }
    }

    fn look(&self) -> Look {
        let _guard = self.runtime.enter();
        self.flows.look().expect("root is needed to count UDP")
    }
}

fn owner(number: u32, netns: &NetnsRef) -> Owner {
    let file = std::fs::File::open(netns.path()).expect("the namespace has a file");
    Owner {
        number,
        identity: Arc::new(Identity::Pod {
            namespace: "shop".into(),
            name: format!("pod-{number}"),
        }),
        keys: vec![OwnerKey {
            cookie: cookie(file.as_fd()).expect("the namespace has a cookie"),
            cgroup: 0,
        }],
        paths: Vec::new(),
    }
}

fn lab() -> Lab {
    Lab::new(2).expect("pods can be made (root is needed)")
}

fn socket(pod: &LabPod, ip: IpAddr) -> UdpSocket {
    let socket = pod.netns().run(|| UdpSocket::bind((ip, 0))).expect("an address");
    socket.set_read_timeout(Some(PATIENCE)).expect("an option");
    socket
}

/// Two sockets, each of which sends to the other one alone.
fn connected(pods: [(&LabPod, IpAddr); 2]) -> [UdpSocket; 2] {
    let sockets = pods.map(|(pod, ip)| socket(pod, ip));
    sockets[0].connect(local(&sockets[1])).expect("a route");
    sockets[1].connect(local(&sockets[0])).expect("a route");
    sockets
}

fn local(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().expect("an address")
}

fn send(from: &UdpSocket, times: usize, length: usize) {
    for _ in 0..times {
        assert_eq!(from.send(&vec![7; length]).expect("it is sent"), length);
    }
}

fn take(at: &UdpSocket, times: usize, length: usize) {
    let mut room = [0; 2048];
    for number in 0..times {
        let taken = at.recv(&mut room);
        let taken = taken.unwrap_or_else(|error| panic!("{number} of {times} came: {error}"));
        assert_eq!(taken, length);
    }
}

/// Datagrams of known number and size, one way.
fn exchange([from, to]: [&UdpSocket; 2], times: usize, length: usize) {
    // No more than a socket's buffer holds.
    const AT_ONCE: usize = 20;
    let mut rest = times;
    while rest > 0 {
        let now = rest.min(AT_ONCE);
        send(from, now, length);
        take(to, now, length);
        rest -= now;
    }
}

/// The flow as the owner of this socket has it.
fn key(owner: u32, socket: &UdpSocket, to: SocketAddr) -> FlowKey {
    let local = local(socket);
    FlowKey {
        local: octets(local.ip()),
        remote: octets(to.ip()),
        owner,
        local_port: local.port(),
        remote_port: to.port(),
    }
}

fn counts(sent: (u64, u64), received: (u64, u64)) -> FlowCounts {
    let each = |(packets, length): (u64, u64)| (packets, packets * length);
    let ((packets_sent, bytes_sent), (packets_received, bytes_received)) = (each(sent), each(received));
    FlowCounts {
        packets_sent,
        packets_received,
        bytes_sent,
        bytes_received,
    }
}

#[test]
fn datagrams_and_their_bytes_are_counted_both_ways_at_both_ends_in_both_families() {
    let lab = lab();
    let (client, server) = (lab.pod(0), lab.pod(1));
    let scene = Scene::new(&lab, DEFAULT_ROOM);
    let ends = [
        connected([(client, client.ipv4()), (server, server.ipv4())]),
        connected([(client, client.ipv6()), (server, server.ipv6())]),
    ];
    // What was before the look is not in it.
    for [one, other] in &ends {
        exchange([one, other], 5, 100);
    }
    let look = scene.look();
    let mut expected = Vec::new();
    for ([one, other], (there, back)) in ends.iter().zip([((50, 700), (20, 300)), ((40, 600), (10, 1))]) {
        exchange([one, other], there.0, there.1);
        exchange([other, one], back.0, back.1);
        let [there, back] = [there, back].map(|(times, length)| (times as u64, length as u64));
        expected.push((key(1, one, local(other)), counts(there, back)));
        expected.push((key(2, other, local(one)), counts(back, there)));
    }
    let counted = look.end().expect("the maps can be read");
    for (key, counts) in &expected {
        assert_eq!(counted.flows.get(key), Some(counts), "{key:?}");
    }
    assert_eq!(counted.flows.len(), expected.len(), "{counted:?}");
    assert_eq!(counted.no_room, 0);
}

#[test]
fn what_the_device_cuts_is_counted_as_cut() {
    const SEGMENT: usize = 500;
    const IN_ONE: usize = 9;
    const TIMES: usize = 10;
    let lab = lab();
    let (client, server) = (lab.pod(0), lab.pod(1));
    let scene = Scene::new(&lab, DEFAULT_ROOM);
    for pods in [
        [(client, client.ipv4()), (server, server.ipv4())],
        [(client, client.ipv6()), (server, server.ipv6())],
    ] {
        let [one, other] = connected(pods);
        let size = i32::try_from(SEGMENT).expect("it fits");
        setsockopt(&one.as_fd(), sockopt::UdpGsoSegment, &size).expect("an option");
        let look = scene.look();
        for _ in 0..TIMES {
            send(&one, 1, SEGMENT * IN_ONE);
            take(&other, IN_ONE, SEGMENT);
        }
        let counted = look.end().expect("the maps can be read");
        let all = ((TIMES * IN_ONE) as u64, SEGMENT as u64);
        let sent = counted.flows.get(&key(1, &one, local(&other)));
        assert_eq!(sent, Some(&counts(all, (0, 0))));
        let received = counted.flows.get(&key(2, &other, local(&one)));
        assert_eq!(received, Some(&counts((0, 0), all)));
    }
}

#[test]
fn looks_at_once_tell_each_what_came_after_its_beginning() {
    let lab = lab();
    let (client, server) = (lab.pod(0), lab.pod(1));
    let scene = Scene::new(&lab, DEFAULT_ROOM);
    let [one, other] = connected([(client, client.ipv4()), (server, server.ipv4())]);
    let sent = |counted: Counted| counted.flows[&key(1, &one, local(&other))].packets_sent;
    let first = scene.look();
    exchange([&one, &other], 5, 64);
    let second = scene.look();
    exchange([&one, &other], 7, 64);
    assert_eq!(sent(first.end().expect("the maps can be read")), 12);
    exchange([&one, &other], 3, 64);
    assert_eq!(sent(second.end().expect("the maps can be read")), 10);
    // After the last one counting begins anew.
    let third = scene.look();
    exchange([&one, &other], 2, 64);
    assert_eq!(sent(third.end().expect("the maps can be read")), 2);
}

#[test]
fn packets_of_flows_that_find_no_room_are_counted() {
    const ROOM: usize = 6;
    const CLIENTS: usize = 10;
    const EACH: usize = 3;
    let lab = lab();
    let (client, server) = (lab.pod(0), lab.pod(1));
    let scene = Scene::new(&lab, u32::try_from(ROOM).expect("it fits"));
    let sink = socket(server, server.ipv4());
    let look = scene.look();
    for _ in 0..CLIENTS {
        let source = socket(client, client.ipv4());
        source.connect(local(&sink)).expect("a route");
        exchange([&source, &sink], EACH, 64);
    }
    let counted = look.end().expect("the maps can be read");
    assert_eq!(counted.flows.len(), ROOM);
    let told: u64 = counted
        .flows
        .values()
        .map(|counts| counts.packets_sent + counts.packets_received)
        .sum();
    // Each is sent and received.
    let all = (2 * CLIENTS * EACH) as u64;
    assert_eq!((told, counted.no_room), ((ROOM * EACH) as u64, all - told));
}

/// A running client; it ends with this.
struct Asking(Child);

impl Asking {
    fn start(rig: &Rig, arguments: &[&str]) -> Self {
        let mut command = rig.daemon.sabot_command(arguments);
        Self(command.stdout(Stdio::piped()).spawn().expect("sabot runs"))
    }

    fn is_running(&mut self) -> bool {
        let ended = self.0.try_wait().expect("it is ours");
        ended.is_none()
    }

    /// The document that it prints.
    fn answer(mut self) -> Value {
        let output = self.0.stdout.take().expect("it is piped");
        serde_json::from_reader(output).expect("it prints a document")
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// BPF objects of the daemon.
fn held(rig: &Rig) -> sabot_testkit::leaks::Held {
    Holdings::of(rig.daemon.pid()).expect("it runs").bpf
}

#[test]
fn the_daemon_counts_udp_while_it_is_asked_and_has_nothing_attached_otherwise() {
    let rig = Rig::new(2);
    let (client, server) = (rig.lab.pod(0), rig.lab.pod(1));
    // A fault names the namespace, by which the daemon knows whose it is; it leaves UDP alone.
    rig.apply(
        "still",
        Spec::action(client, "drop: {percent: 1}").port("TCP", None),
    );
    let path = client.netns().path().display().to_string();
    let pod = format!("netns:{path}");
    let is_known = || {
        let scrape = rig.daemon.scrape().expect("metrics are served");
        scrape.value("sabot_tcp_rtos_total", &[("namespace", ""), ("pod", &pod)]) == Some(0.0)
    };
    assert!(wait_until(PATIENCE, LOOK, is_known), "{pod} has no series");
    let before = held(&rig);
    let attached = || held(&rig).links >= before.links + 2;

    let [one, other] = connected([(client, client.ipv4()), (server, server.ipv4())]);
    let words = ["flows", "--netns", &path, "--for", "5s", "-o", "json"];
    let asking = Asking::start(&rig, &words);
    assert!(wait_until(PATIENCE, LOOK, attached), "nothing is attached");
    exchange([&one, &other], 30, 400);
    exchange([&other, &one], 7, 100);
    let answer = asking.answer();
    assert_eq!(held(&rig), before, "what was attached is off before the answer");
    let flows = answer["flows"].as_array().expect("a list");
    let flow = flows.iter().find(|flow| flow["protocol"] == "UDP");
    let flow = flow.unwrap_or_else(|| panic!("there is no UDP: {answer}"));
    assert_eq!(flow["remotePort"], local(&other).port(), "{flow}");
    assert_eq!(flow["remote"], server.ipv4().to_string(), "{flow}");
    assert_eq!(flow["peer"], "private", "{flow}");
    assert_eq!(
        (&flow["packetsSent"], &flow["bytesSent"]),
        (&30.into(), &12_000.into())
    );
    assert_eq!(
        (&flow["packetsReceived"], &flow["bytesReceived"]),
        (&7.into(), &700.into())
    );
    assert_eq!((flow.get("retransmits"), flow.get("rtt")), (None, None), "{flow}");

    // Without a look nothing of UDP is told.
    let answer = rig.daemon.sabot_json(&["flows", "--for", "0s"]);
    let answer = answer.expect("flows are listed");
    let flows = answer["flows"].as_array().expect("a list");
    assert!(flows.iter().all(|flow| flow["protocol"] == "TCP"), "{answer}");
}

#[test]
fn askers_share_what_is_attached_and_it_goes_with_the_last_of_them() {
    let rig = Rig::new(1);
    let before = held(&rig);
    let attached = || held(&rig).links >= before.links + 2;
    let first = Asking::start(&rig, &["flows", "--for", "60s"]);
    assert!(wait_until(PATIENCE, LOOK, attached), "nothing is attached");
    let mut second = Asking::start(&rig, &["flows", "--for", "1s"]);
    let mut most = 0;
    while second.is_running() {
        most = most.max(held(&rig).links);
        std::thread::sleep(LOOK);
    }
    assert_eq!(most, before.links + 2, "the links of two looks");
    assert!(attached(), "the first one still looks");
    // It doesn't wait for its answer.
    drop(first);
    assert!(
        wait_until(PATIENCE, LOOK, || held(&rig) == before),
        "{:?} is held, and was {before:?}",
        held(&rig)
    );
}

#[test]
fn a_daemon_without_tcp_says_so_beside_udp_and_a_look_has_a_bound() {
    let rig = Rig::with_flags(1, &["--tcp", "never"]);
    let ask = |observe_for| {
        let mut observe = rig.client.observe();
        let request = v1::ListFlowsRequest {
            observe_for: Some(prost_types::Duration {
                seconds: observe_for,
                nanos: 1,
            }),
            ..v1::ListFlowsRequest::default()
        };
        rig.client.wait(observe.list_flows(request))
    };
    let answer = ask(0).expect("UDP is counted").into_inner();
    assert!(
        answer
            .missing
            .contains(&"TCP connections are not observed".to_owned()),
        "{:?}",
        answer.missing
    );
    let status = ask(60).expect_err("it is too long");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(
        status.message(),
        "observe_for: 1m 1ns is too long; up to 1m is allowed"
    );
}

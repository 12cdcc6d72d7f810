//! Each observer: what it counts where it is there, and that nothing is counted where it isn't.

use std::fs;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use domain::base::iana::Rtype;
use sabot_testkit::features::{feature, needs};
use sabot_testkit::rig::PATIENCE;
use sabot_testkit::traffic::{Echo, NameServer, UdpLoad, echo_once};
use sabot_testkit::wait::{on_this_machine, wait_until};
use sabot_testkit::way::{PEER, TARGET, send};
use sabot_testkit::{LabPod, Rig, Spec};

const LOOK: Duration = Duration::from_millis(50);
const CONNECTIONS: usize = 5;
const LOOKUPS: usize = 10;
/// Names of traced processes: one that fills the kernel's room for names nearly, and one that leaves half of it.
const READERS: [&str; 2] = ["sabot-reader", "sabotrd"];
const PROGRAM_MISSES: &str = "sabot_observer_program_misses_total";
/// To see two runs of a reader of which the kernel leaves out nothing.
const ATTEMPTS: usize = 10;

/// The daemon knows whose a namespace is while a fault names it.
fn name_target(rig: &Rig) {
    let spec = Spec::partition(rig.lab.pod(TARGET)).port("SCTP", None);
    rig.apply("still", spec);
}

fn label(pod: &LabPod) -> String {
    format!("netns:{}", pod.netns().path().display())
}

fn sum(rig: &Rig, name: &str, labels: &[(&str, &str)]) -> f64 {
    rig.daemon.scrape().expect("metrics are served").sum(name, labels)
}

/// Waits until a target has series of this name.
fn wait_known(rig: &Rig, name: &str, pod: &str) {
    let known = || {
        let scrape = rig.daemon.scrape().expect("metrics are served");
        scrape.samples(name, &[("pod", pod)]).next().is_some()
    };
    assert!(wait_until(PATIENCE, LOOK, known), "{pod} has no {name}");
}

#[test]
fn connections_are_counted_by_what_became_of_them() {
    let rig = crate::rig(2, &[]);
    let node = rig.client.node().expect("it answers");
    if !needs(&node, "tcp_tracepoints") {
        return;
    }
    name_target(&rig);
    let pod = label(rig.lab.pod(TARGET));
    wait_known(&rig, "sabot_tcp_rtos_total", &pod);
    let (target, peer) = (rig.lab.pod(TARGET), rig.lab.pod(PEER));
    let echo = Echo::start(peer.netns(), peer.ipv4()).expect("it listens");
    for _ in 0..CONNECTIONS {
        let patience = on_this_machine(PATIENCE);
        echo_once(target.netns(), echo.address(), b"hello", patience).expect("it comes back");
    }
    let closed = echo.address();
    drop(echo);
    let refused = target.netns().run(|| TcpStream::connect(closed));
    refused.expect_err("nobody listens any more");
    let count = |outcome| {
        let labels = [("pod", pod.as_str()), ("outcome", outcome)];
        sum(&rig, "sabot_tcp_connections_total", &labels)
    };
    // The one that failed was begun, too.
    let begun = (CONNECTIONS + 1) as f64;
    let counted = || count("opened") == begun && count("failed") == 1.0;
    assert!(
        wait_until(PATIENCE, LOOK, counted),
        "{} opened, {} failed",
        count("opened"),
        count("failed")
    );
}

#[test]
fn a_faults_drops_are_told_apart_where_the_kernel_says_why_it_drops() {
    let load = UdpLoad {
        datagrams: 200,
        payload: 100,
        per_second: 1000,
    };
    let rig = crate::rig(2, &[]);
    let (target, peer) = (rig.lab.pod(TARGET), rig.lab.pod(PEER));
    let node = rig.client.node().expect("it answers");
    let spec = Spec::drop(target, 30.0).egress().port("UDP", None);
    rig.apply("drops", spec);
    let pod = label(target);
    if !needs(&node, "drop_reasons") {
        return;
    }
    send(load, target, peer, peer.ipv4());
    let [egress, _] = rig.settled("drops");
    assert!(egress.dropped.packets > 0);
    let labels = [
        ("pod", pod.as_str()),
        ("direction", "egress"),
        ("reason", "FAULT"),
        ("injected", "true"),
    ];
    let counted = || sum(&rig, "sabot_packet_drops_total", &labels) == egress.dropped.packets as f64;
    assert!(
        wait_until(PATIENCE, LOOK, counted),
        "{} seen of {}",
        sum(&rig, "sabot_packet_drops_total", &labels),
        egress.dropped.packets
    );
}

#[test]
fn lookups_are_counted() {
    let rig = crate::rig(2, &[]);
    let node = rig.client.node().expect("it answers");
    if !needs(&node, "dns_queries") {
        return;
    }
    name_target(&rig);
    let (target, peer) = (rig.lab.pod(TARGET), rig.lab.pod(PEER));
    let pod = label(target);
    wait_known(&rig, "sabot_dns_queries_total", &pod);
    let server = NameServer::start(peer.netns(), peer.ipv4()).expect("it binds");
    server.set("shop.example", &[peer.ipv4()], 60);
    for _ in 0..LOOKUPS {
        let patience = on_this_machine(PATIENCE);
        let answer = server.lookup(target.netns(), "shop.example", Rtype::A, patience);
        assert_eq!(answer.expect("it is answered"), [peer.ipv4()]);
    }
    let answered = [("pod", pod.as_str()), ("rcode", "NOERROR")];
    let counted = || {
        sum(&rig, "sabot_dns_queries_total", &[("pod", &pod)]) == LOOKUPS as f64
            && sum(&rig, "sabot_dns_responses_total", &answered) == LOOKUPS as f64
    };
    assert!(wait_until(PATIENCE, LOOK, counted), "not all lookups are counted");
}

#[test]
fn flows_of_udp_are_counted_while_somebody_asks() {
    let rig = crate::rig(2, &[]);
    let node = rig.client.node().expect("it answers");
    if !needs(&node, "dns_queries") {
        // What is needed for the one is needed for the other.
        let answer = rig.daemon.sabot_json(&["flows"]).expect("flows are listed");
        let missing = answer["missing"].to_string();
        assert!(missing.contains("UDP is not counted: "), "{answer}");
        return;
    }
    name_target(&rig);
    let (target, peer) = (rig.lab.pod(TARGET), rig.lab.pod(PEER));
    wait_known(&rig, "sabot_dns_queries_total", &label(target));
    let socket = target.netns().run(|| UdpSocket::bind((target.ipv4(), 0)));
    let socket = socket.expect("an address");
    let to = SocketAddr::from((peer.ipv4(), 9));
    let is_told = AtomicBool::new(false);
    let answer = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_told.load(Ordering::Relaxed) {
                // Nobody listens, which the kernel may say by an error.
                let _ = socket.send_to(&[7; 100], to);
                thread::sleep(Duration::from_millis(5));
            }
        });
        let answer = rig.daemon.sabot_json(&["flows", "--for", "2s"]);
        is_told.store(true, Ordering::Relaxed);
        answer.expect("flows are listed")
    });
    let flows = answer["flows"].as_array().expect("a list");
    let flow = flows
        .iter()
        .find(|flow| flow["protocol"] == "UDP" && flow["remotePort"] == to.port());
    let flow = flow.unwrap_or_else(|| panic!("it is not told: {answer}"));
    let sent = ["packetsSent", "bytesSent"].map(|count| flow[count].as_u64().unwrap_or_default());
    assert!(sent[0] > 0, "{flow}");
    assert_eq!(sent[1], 100 * sent[0], "{flow}");
}

#[test]
fn system_calls_of_traced_processes_are_counted() {
    let flags: Vec<&str> = READERS
        .iter()
        .flat_map(|&name| ["--syscall-process", name])
        .collect();
    let rig = crate::rig(0, &flags);
    let node = rig.client.node().expect("it answers");
    if !needs(&node, "raw_tracepoints") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in READERS {
        let reader = folder.path().join(name);
        fs::copy("/bin/bash", &reader).expect("bash can be copied");
        let seen = (0..ATTEMPTS).find_map(|_| opens_seen(&rig, &reader, name));
        // Two runs do the same, whatever else it is that a shell opens.
        let [once, again] =
            seen.unwrap_or_else(|| panic!("{name}: the kernel leaves out runs in each attempt"));
        assert!(once.0 > 0.0 && once.1 >= 1.0, "{name}: {once:?}");
        assert_eq!(again, once, "{name}");
    }
    let said = feature(&node, "raw_tracepoints");
    println!("{}", said.detail);
}

/// What was counted of each of two runs that open the same; `None` where the kernel says that it left out runs of the programs
/// meanwhile. From 7.2 on one that is preempted is left out for all other threads of its CPU.
fn opens_seen(rig: &Rig, reader: &Path, name: &str) -> Option<[(f64, f64); 2]> {
    let left_out = || {
        let of = |program| sum(rig, PROGRAM_MISSES, &[("program", program)]);
        of("sys_enter") + of("sys_exit")
    };
    let before = left_out();
    let [nothing, once, twice] = [0, 1, 1].map(|runs| {
        (0..runs).for_each(|_| open_in_vain(reader));
        opened(rig, name)
    });
    let since = |(calls, failed): (f64, f64), then: (f64, f64)| (calls - then.0, failed - then.1);
    (left_out() == before).then(|| [since(once, nothing), since(twice, once)])
}

/// Has the process open a file that isn't there.
fn open_in_vain(reader: &Path) {
    let output = Command::new(reader)
        .args(["--norc", "-c", ": </no/such/file"])
        .env_clear()
        .output();
    let status = output.expect("it runs").status;
    assert!(!status.success(), "there is no such file");
}

/// The processes' calls of `openat` until now, and of them those in vain.
fn opened(rig: &Rig, name: &str) -> (f64, f64) {
    let open = [("process", name), ("syscall", "openat")];
    let failed = [open[0], open[1], ("errno", "ENOENT")];
    (
        sum(rig, "sabot_syscall_duration_seconds_count", &open),
        sum(rig, "sabot_syscall_errors_total", &failed),
    )
}

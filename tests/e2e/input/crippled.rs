//! Machines that lack something: what can't work is refused with the reason, what can works.

use std::ffi::c_ulong;
use std::time::Duration;

use nix::libc;
use sabot_testkit::traffic::ping;
use sabot_testkit::{Daemon, DaemonOptions, Lab};
use serde_json::Value;

use crate::launch::{
    CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN, DeviceGroup, become_nobody, public_binary, spawn, start, without,
    without_bpf, without_tun,
};
use crate::scene::{REFUSED, assert_says, attached};

const END: Duration = Duration::from_secs(20);

fn options() -> DaemonOptions {
    DaemonOptions::built().expect("they are built")
}

/// The daemon must end by itself with this code, having said all of these, and leave no socket.
fn assert_gives_up(mut daemon: Daemon, code: i32, says: &[&str]) {
    let status = daemon.wait_end(END).expect("it ends");
    let log = daemon.log();
    assert_eq!(status.code(), Some(code), "{log}");
    for part in says {
        assert!(log.contains(part), "`{part}` is not in: {log}");
    }
    assert!(!log.contains("panicked"), "{log}");
    assert!(!daemon.socket().exists(), "its socket is left");
}

#[test]
fn without_root_it_says_what_it_needs() {
    let mut options = options();
    let _folder = public_binary(&mut options);
    let daemon = spawn(options, become_nobody);
    assert_gives_up(
        daemon,
        1,
        &[
            "CAP_BPF",
            "CAP_NET_ADMIN",
            "CAP_SYS_ADMIN",
            "doesn't run as root: start it as root",
        ],
    );
}

#[test]
fn a_missing_capability_is_named_with_its_purpose() {
    let cases: [(&[c_ulong], &[&str], &[&str]); 4] = [
        (
            &[CAP_NET_ADMIN],
            &["CAP_NET_ADMIN (to attach programs to network devices"],
            &["CAP_BPF", "CAP_SYS_ADMIN"],
        ),
        (
            &[CAP_SYS_ADMIN],
            &["CAP_SYS_ADMIN (to enter network namespaces)"],
            &["CAP_BPF", "CAP_NET_ADMIN"],
        ),
        (
            &[CAP_SYS_ADMIN, CAP_BPF],
            &["CAP_BPF (to load eBPF programs)", "CAP_SYS_ADMIN"],
            &["CAP_NET_ADMIN"],
        ),
        (
            &[CAP_SYS_ADMIN, CAP_BPF, CAP_NET_ADMIN],
            &["CAP_BPF", "CAP_NET_ADMIN", "CAP_SYS_ADMIN"],
            &[],
        ),
    ];
    for (missing, says, unsaid) in cases {
        let mut daemon = spawn(options(), || without(missing));
        daemon.wait_end(END).expect("it ends");
        let log = daemon.log();
        for part in unsaid {
            assert!(!log.contains(part), "it has {part}: {log}");
        }
        let says = [says, &["it runs as root, but without these"]].concat();
        assert_gives_up(daemon, 1, &says);
    }
}

#[test]
fn without_bpf_there_is_nothing_it_can_do() {
    for (errno, says) in [
        (libc::EPERM, "Operation not permitted"),
        (libc::ENOSYS, "Function not implemented"),
    ] {
        let daemon = spawn(options(), move || without_bpf(errno));
        let refused = "lets sabotd load no programs: the kernel refused a program of two instructions";
        assert_gives_up(daemon, 1, &[refused, says]);
    }
}

/// Delay is refused with the reason, and everything else works.
fn assert_only_delay_is_refused(daemon: &Daemon, lab: &Lab, reason: &str) {
    let (pod, other) = (lab.pod(0), lab.pod(1));
    let target = pod.target();
    let on_target = ["--target", &target, "--for", "1m"];
    let delay = ["delay", "10ms"];
    for extra in [&[][..], &["--dry-run"], &["--direction", "ingress"]] {
        let arguments = [&delay[..], &on_target, extra].concat();
        let output = daemon.sabot(&arguments).expect("it runs");
        let says = [
            "delay is not possible on this node: tun: /dev/net/tun",
            reason,
            "delay is refused",
        ];
        assert_says(&output, REFUSED, &says, &format!("{arguments:?}"));
    }
    assert_eq!(daemon.sabot_ok(&["get", "-o", "name"]).unwrap_or_default(), "");
    assert_eq!(attached(pod.netns()), 0);

    for (name, action) in [
        ("some", &["drop", "0.001%"][..]),
        ("bits", &["corrupt", "0.001%"]),
        ("cut", &["partition"]),
    ] {
        let peer = format!("ip:{}", other.ipv4());
        let rest = ["--name", name, "--peer", &peer, "--wait", "10s", "-o", "json"];
        let said = daemon
            .sabot_ok(&[action, &on_target, &rest].concat())
            .expect("it is applied");
        let fault: Value = serde_json::from_str(&said).expect("JSON");
        assert_eq!(fault["status"]["phase"], "Injected", "{said}");
    }
    let interval = Duration::from_millis(10);
    let under_partition = ping(pod.netns(), other.ipv4(), 3, interval).expect("ping runs");
    assert_eq!(under_partition.round_trips.len(), 0);
    daemon.sabot_ok(&["delete", "cut"]).expect("it goes");
    let mended = ping(pod.netns(), other.ipv4(), 3, interval).expect("ping runs");
    assert_eq!(mended.round_trips.len(), 3);
}

/// The node says so to people, to programs and to Prometheus.
fn assert_node_lacks_tun(daemon: &Daemon, reason: &str) {
    let table = daemon.sabot_ok(&["node"]).expect("it answers");
    let line = table
        .lines()
        .find(|line| line.starts_with("tun "))
        .expect("tun is listed");
    for part in [" no ", "/dev/net/tun", reason, "delay is refused"] {
        assert!(line.contains(part), "`{part}` is not in: {line}");
    }
    let node = daemon.client().expect("it answers").node().expect("it answers");
    // It isn't a node of a cluster either.
    let absent = ["tun", "kubernetes"];
    // Not every kernel has departures, which another feature makes up for.
    for feature in node
        .features
        .iter()
        .filter(|feature| feature.name != "departures")
    {
        let is_absent = absent.contains(&feature.name.as_str());
        assert_eq!(feature.available, !is_absent, "{feature:?}");
    }
    let (status, metrics) = daemon.http("/metrics").expect("it answers");
    assert_eq!(status, 200);
    for (feature, value) in [("tun", 0.0), ("tcx", 1.0)] {
        let series = format!("sabot_kernel_feature{{feature=\"{feature}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&series));
        let shown: f64 = line.expect("it is there").parse().expect("a number");
        assert_eq!(shown, value, "{feature}");
    }
}

#[test]
fn without_the_tun_device_only_delay_is_refused() {
    let lab = Lab::new(2).expect("a lab can be made (root is needed)");
    let daemon = start(options(), without_tun);
    assert_only_delay_is_refused(&daemon, &lab, "is absent");
    assert_node_lacks_tun(&daemon, "is absent");
}

#[test]
fn with_tun_denied_by_the_device_cgroup_only_delay_is_refused() {
    let lab = Lab::new(2).expect("a lab can be made (root is needed)");
    let group = DeviceGroup::without_tun();
    let mut options = options();
    group.admit(&mut options);
    let mut daemon = Daemon::start(options).expect("it starts");
    assert_only_delay_is_refused(&daemon, &lab, "is denied by the daemon's device cgroup");
    assert_node_lacks_tun(&daemon, "is denied by the daemon's device cgroup");
    let ended = daemon.terminate().expect("it ends");
    assert!(ended.success());
}

#[test]
fn with_everything_delay_works_too() {
    // The counterpart of the two above: what they refuse is refused for the reason that they give.
    let lab = Lab::new(2).expect("a lab can be made (root is needed)");
    let daemon = Daemon::start(options()).expect("it starts");
    let target = lab.pod(0).target();
    let arguments = [
        "delay", "10ms", "--target", &target, "--for", "1m", "--wait", "10s", "-o", "json",
    ];
    let said = daemon.sabot_ok(&arguments).expect("it is applied");
    let fault: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(fault["status"]["phase"], "Injected", "{said}");
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("sabotd.toml");
    let path = file.display().to_string();
    for (text, says) in [
        (
            "keep-wram = '5s'",
            vec!["line 1", "unknown field `keep-wram`", "`keep-warm`"],
        ),
        (
            "\n\nmax-duration = 'soon'",
            vec!["line 3", "max-duration", "`soon`", "1h30m"],
        ),
        ("attach = 'some'", vec!["line 1", "`some`", "`recent`", "`all`"]),
        ("keep-warm", vec!["line 1"]),
    ] {
        std::fs::write(&file, text).expect("there is room");
        let daemon = Daemon::spawn(options().flags(&["--config", &path])).expect("it can be started");
        let says = [vec![&*path], says].concat();
        assert_gives_up(daemon, 2, &says);
    }
    let missing = ["--config", "/nonexistent/sabotd.toml"];
    for (flags, code, says) in [
        (&missing[..], 2, ["/nonexistent/sabotd.toml", "No such file"]),
        (&["--max-duration", "0s"], 2, ["max-duration", "above zero"]),
        (&["--keep-warm", "soon"], 2, ["--keep-warm", "soon"]),
        (&["--hook", "xdp"], 2, ["--hook", "tcx, clsact"]),
        (&["--attach", "some"], 2, ["--attach", "recent, all"]),
        (&["--delay-line-bytes", "1KiB"], 2, ["delay-line-bytes", "256KiB"]),
        (&["--log-level", "info,a=b=c"], 2, ["log-level", "a=b=c"]),
        (&["--surprise"], 2, ["--surprise", "--help"]),
    ] {
        let daemon = Daemon::spawn(options().flags(flags)).expect("it can be started");
        assert_gives_up(daemon, code, &says);
    }
}

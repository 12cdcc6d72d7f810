//! The quick forms on the command line.

use serde_json::Value;

use crate::scene::{Scene, USAGE, attached, descriptors};

/// What comes before `--target`, what comes after it, and what is said.
type Case = (
    &'static [&'static str],
    &'static [&'static str],
    &'static [&'static str],
);

fn check(cases: &[Case]) {
    let scene = Scene::new();
    let target = scene.target();
    for (before, after, says) in cases {
        let arguments = [before, &["--target", &target][..], after].concat();
        scene.assert_refused(&arguments, USAGE, says);
    }
}

const FOR: &[&str] = &["--for", "5s"];

#[test]
fn durations_have_bounds() {
    check(&[
        (&["partition"], &[], &["--for <DURATION>"]),
        (
            &["partition"],
            &["--for", "2h"],
            &["spec.duration: `2h` given", "above 0 and up to 1h"],
        ),
        (
            &["partition"],
            &["--for", "0s"],
            &["spec.duration: `0s` given", "above 0 and up to 1h"],
        ),
        (&["partition"], &["--for", "soon"], &["--for", "soon", "1h30m"]),
        (&["partition"], &["--for", "5"], &["--for", "'5'", "5m"]),
    ]);
}

#[test]
fn the_longest_duration_is_the_daemons() {
    let scene = Scene::with(&["--max-duration", "15m"]);
    let target = scene.target();
    let arguments = ["partition", "--target", &target, "--for", "15m1s"];
    scene.assert_refused(&arguments, USAGE, &["spec.duration: `15m 1s` given", "up to 15m"]);
}

#[test]
fn percents_are_from_0_to_100() {
    check(&[
        (&["drop", "101"], FOR, &["101", "a number from 0 to 100"]),
        (&["drop", "100.01%"], FOR, &["100.01%", "a number from 0 to 100"]),
        (&["drop", "-5"], FOR, &["-5", "a number from 0 to 100"]),
        (&["drop", "-0.1"], FOR, &["-0.1", "a number from 0 to 100"]),
        (&["drop", "NaN"], FOR, &["NaN", "a number from 0 to 100"]),
        (&["drop", "inf"], FOR, &["inf", "a number from 0 to 100"]),
        (&["drop", "half"], FOR, &["half", "a number from 0 to 100"]),
        (&["drop"], FOR, &["<PERCENT>"]),
        (&["corrupt", "200%"], FOR, &["200%", "a number from 0 to 100"]),
        (&["corrupt", "-1"], FOR, &["-1", "a number from 0 to 100"]),
        (
            &["corrupt", "5", "--kind", "header"],
            FOR,
            &["--kind", "header", "payload, wire"],
        ),
    ]);
}

#[test]
fn delays_have_bounds() {
    check(&[
        (
            &["delay", "10ms", "--jitter", "11ms"],
            FOR,
            &[
                "spec.action.delay.jitter: `11ms` given",
                "up to the latency, 10ms",
            ],
        ),
        (
            &["delay", "0ms"],
            FOR,
            &["spec.action.delay.latency: `0s` given", "above 0 and up to 1m"],
        ),
        (
            &["delay", "61s"],
            FOR,
            &["spec.action.delay.latency: `1m 1s` given", "up to 1m"],
        ),
        (&["delay", "fast"], FOR, &["LATENCY", "fast", "100ms"]),
        (
            &["delay", "10ms", "--distribution", "cauchy"],
            FOR,
            &["--distribution", "cauchy", "uniform, normal, pareto"],
        ),
    ]);
}

#[test]
fn networks_have_no_host_bits_and_hold_their_exceptions() {
    check(&[
        (
            &["partition", "--peer", "cidr:10.0.0.0/33"],
            FOR,
            &["--peer", "`10.0.0.0/33`", "10.20.0.0/16"],
        ),
        (
            &["partition", "--peer", "cidr:10.0.0.0"],
            FOR,
            &["--peer", "`10.0.0.0`", "10.20.0.0/16"],
        ),
        (
            &["partition", "--peer", "cidr:fd00::/129"],
            FOR,
            &["--peer", "`fd00::/129`", "fd00::/64"],
        ),
        (
            &["partition", "--peer", "cidr:10.0.0.1/8"],
            FOR,
            &[
                "spec.peers[0].cidr: `10.0.0.1/8` given",
                "the network 10.0.0.0/8",
                "10.0.0.1/32",
            ],
        ),
        (
            &[
                "partition",
                "--peer",
                "ip:10.0.0.1",
                "--peer",
                "cidr:10.0.0.0/8,except=11.0.0.0/16",
            ],
            FOR,
            &[
                "spec.peers[1].except[0]: `11.0.0.0/16` given",
                "inside 10.0.0.0/8 and smaller",
            ],
        ),
        (
            &["partition", "--peer", "cidr:10.0.0.0/8,except=10.0.0.0/8"],
            FOR,
            &["spec.peers[0].except[0]: `10.0.0.0/8` given", "smaller than it"],
        ),
        (
            &["partition", "--peer", "cidr:10.0.0.0/8,except=10.0.0.1/16"],
            FOR,
            &[
                "spec.peers[0].except[0]: `10.0.0.1/16` given",
                "the network 10.0.0.0/16",
            ],
        ),
    ]);
}

#[test]
fn peers_have_a_form() {
    check(&[
        (
            &["partition", "--peer", "ip:10.0.0.256"],
            FOR,
            &["--peer", "`10.0.0.256`", "address"],
        ),
        (
            &["partition", "--peer", "planet:mars"],
            FOR,
            &["--peer", "`planet:`", "pods:NS/LABELSELECTOR"],
        ),
        (
            &["partition", "--peer", "pods:NS/app=x"],
            FOR,
            &["--peer", "`NS`", "RFC 1123 label"],
        ),
    ]);
}

#[test]
fn ports_are_of_protocols_that_have_them() {
    check(&[
        (
            &["partition", "--port", "0"],
            FOR,
            &["--port", "`0` is not a port", "from 1 to 65535"],
        ),
        (
            &["partition", "--port", "UDP:0"],
            FOR,
            &["--port", "`0` is not a port", "from 1 to 65535"],
        ),
        (
            &["partition", "--port", "65536"],
            FOR,
            &["--port", "`65536` is not a port", "from 1 to 65535"],
        ),
        (
            &["partition", "--port", "ICMP:256"],
            FOR,
            &["--port", "256", "0 to 255"],
        ),
        (
            &["partition", "--port", "QUIC:443"],
            FOR,
            &["--port", "`QUIC:443`", "TCP, UDP, SCTP"],
        ),
    ]);
}

#[test]
fn names_are_names() {
    check(&[
        (
            &["partition", "--name", "Bad_Name"],
            FOR,
            &["metadata.name: `Bad_Name` given", "RFC 1123 subdomain", "253"],
        ),
        (
            &["partition", "-n", "Team"],
            FOR,
            &["metadata.namespace: `Team` given", "RFC 1123 label", "63"],
        ),
    ]);
}

#[test]
fn there_is_one_target() {
    let scene = Scene::new();
    let target = scene.target();
    let cases: [(&[&str], &[&str]); 7] = [
        (&[], &["--target <FORM>"]),
        (
            &["--target", &target, "--target", "interface:eth0"],
            &["--target <FORM>", "multiple times"],
        ),
        (&["--target", "planet:mars"], &["`planet:`", "interface:NAME"]),
        (&["--target", "interface:a/b"], &["`a/b`", "1 to 15 bytes"]),
        (&["--target", "pods:Team/app=x"], &["`Team`", "RFC 1123 label"]),
        (&["--target", "pods:team-a/app=x=y"], &["app=x=y"]),
        (&["--target", &target, "--pick", "1"], &["--pick", &target]),
    ];
    for (target, says) in cases {
        let arguments = [&["partition", "--for", "5s"][..], target].concat();
        scene.assert_refused(&arguments, USAGE, says);
    }
}

#[test]
fn what_means_nothing_now_is_accepted_and_pending() {
    let scene = Scene::new();
    for (name, target, says) in [
        ("no-pod", "pod:team-a/nobody", "there is no pod team-a/nobody"),
        (
            "no-match",
            "pods:team-a/app=nothing",
            "no pod in namespace team-a matches app=nothing",
        ),
        (
            "no-netns",
            "netns:/run/netns/sabot-none",
            "there is no network namespace /run/netns/sabot-none",
        ),
        (
            "no-device",
            "interface:sabot-none",
            "the node has no interface sabot-none",
        ),
    ] {
        let arguments = [
            "partition",
            "--target",
            target,
            "--for",
            "1m",
            "--name",
            name,
            "-o",
            "json",
        ];
        let said = scene.daemon.sabot_ok(&arguments).expect("it is accepted");
        let fault: Value = serde_json::from_str(&said).expect("JSON");
        let status = &fault["status"];
        assert_eq!(status["phase"], "Pending", "{said}");
        assert!(
            status["message"]
                .as_str()
                .is_some_and(|message| message.contains(says)),
            "{said}"
        );
        assert_eq!(status["targets"], Value::Array(Vec::new()));
        // A person is told the same.
        let table = scene.daemon.sabot_ok(&["get", name]).expect("it is there");
        assert!(table.contains("Pending") && table.contains(says), "{table}");
        scene.daemon.sabot_ok(&["delete", name]).expect("it goes");
    }
    assert_eq!(attached(scene.netns()), 0);
}

#[test]
fn whoever_waits_for_a_pending_fault_is_told_that_it_is_not_in_force() {
    let scene = Scene::new();
    let arguments = [
        "drop",
        "5%",
        "--target",
        "pod:team-a/nobody",
        "--for",
        "1m",
        "--name",
        "waiting",
        "--wait",
        "100ms",
    ];
    let output = scene.daemon.sabot(&arguments).expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("waiting is not in force on all its targets"),
        "{said}"
    );
}

#[test]
fn unknown_names_are_said_to_be_unknown() {
    let scene = Scene::new();
    for command in ["get", "delete"] {
        scene.assert_refused(&[command, "nobody"], 1, &["no fault named nobody"]);
        scene.assert_refused(
            &[command, "-n", "team-a", "nobody"],
            1,
            &["no fault named team-a/nobody"],
        );
    }
}

#[test]
fn a_thousand_refusals_leave_nothing_open() {
    // While the programs' runs are measured, as in the first second, a descriptor is open that isn't later.
    let scene = Scene::with(&["--measure-programs", "never"]);
    let client = scene.daemon.client().expect("it answers");
    let spec = sabot_proto::sabot::v1::FaultSpec::default();
    let refuse = || {
        client
            .apply("bad", spec.clone(), std::time::Duration::ZERO)
            .expect_err("it is empty")
    };
    for _ in 0..10 {
        refuse();
    }
    let before = descriptors(&scene.daemon);
    for _ in 0..1000 {
        refuse();
    }
    assert_eq!(descriptors(&scene.daemon), before);
    assert_eq!(attached(scene.netns()), 0);
}

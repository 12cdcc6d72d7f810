//! Manifests: what is wrong with them is said by line and path.

use std::io::Write as _;
use std::process::Stdio;

use crate::scene::{Scene, USAGE, assert_says, manifest};

/// Applies a manifest from standard input, where `NETNS` stands for the pod's namespace; it must be refused.
fn assert_refused(scene: &Scene, text: &str, says: &[&str]) {
    let text = text.replace("NETNS", &scene.netns().path().display().to_string());
    scene.assert_no_effect(&text, || {
        let mut child = scene
            .daemon
            .sabot_command(&["apply", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut input = child.stdin.take().expect("it reads");
        input.write_all(text.as_bytes()).expect("it reads");
        drop(input);
        let output = child.wait_with_output().expect("it ends");
        assert_says(&output, USAGE, says, &text);
    });
}

const DURATION: &str = "  duration: 5s\n";
const TARGET: &str = "  target: {netns: NETNS}\n";
const ACTION: &str = "  action: {partition: {}}\n";

#[test]
fn unknown_fields_are_named_with_line_path_and_what_is_allowed() {
    let scene = Scene::new();
    for (lines, says) in [
        (
            [DURATION, "  surprise: 1\n", TARGET, ACTION].concat(),
            vec![
                "document 1, line 6, column 3: spec: unknown field `surprise`",
                "`duration`",
                "`action`",
            ],
        ),
        (
            [DURATION, "  target: {netns: NETNS, pod: x}\n", ACTION].concat(),
            vec![
                "line 6",
                "spec.target: unknown field `pod`",
                "`pods`",
                "`interface`",
            ],
        ),
        (
            [DURATION, TARGET, "  action: {drop: {percent: 5, bursts: 3}}\n"].concat(),
            vec!["line 7", "spec.action.drop: unknown field `bursts`", "`percent`"],
        ),
        (
            [DURATION, TARGET, "  action: {drop: {burst: 3}}\n"].concat(),
            vec![
                "line 7",
                "spec.action.drop.burst",
                "`3`",
                "a mapping such as {percent: 2, length: 8}",
            ],
        ),
        (
            [DURATION, TARGET, "  action: {explode: {}}\n"].concat(),
            vec!["line 7", "spec.action: unknown field `explode`", "`partition`"],
        ),
        (
            [
                DURATION,
                TARGET,
                "  peers:\n  - cidr: 10.0.0.0/8\n    but: [10.1.0.0/16]\n",
                ACTION,
            ]
            .concat(),
            vec!["line 9", "spec.peers[0]: unknown field `but`", "`except`"],
        ),
    ] {
        assert_refused(&scene, &manifest(&lines), &says);
    }
}

#[test]
fn of_an_empty_mapping_what_it_may_hold_is_said() {
    let scene = Scene::new();
    for (lines, says) in [
        (
            [DURATION, "  target: {}\n", ACTION].concat(),
            vec![
                "spec.target: nothing given",
                "exactly one of pods, netns, interface",
            ],
        ),
        (
            [DURATION, TARGET, "  action: {}\n"].concat(),
            vec![
                "spec.action: nothing given",
                "exactly one of partition, drop, corrupt, duplicate",
            ],
        ),
        (
            [DURATION, TARGET, "  action: {drop: {}}\n"].concat(),
            vec![
                "spec.action.drop: nothing given",
                "exactly one of percent, gilbertElliott, burst, nth, flows",
            ],
        ),
    ] {
        assert_refused(&scene, &manifest(&lines), &says);
    }
}

#[test]
fn missing_and_mistyped_values_are_named() {
    let scene = Scene::new();
    for (lines, says) in [
        (
            [TARGET, ACTION].concat(),
            vec!["spec.duration: nothing given", "above 0 and up to 1h"],
        ),
        (
            [DURATION, ACTION].concat(),
            vec!["line 5", "spec: missing field `target`"],
        ),
        (
            [DURATION, TARGET].concat(),
            vec!["line 5", "spec: missing field `action`"],
        ),
        (
            ["  duration: 5\n", TARGET, ACTION].concat(),
            vec!["line 5", "spec.duration: `5` is not a duration", "100ms"],
        ),
        (
            ["  duration: -5s\n", TARGET, ACTION].concat(),
            vec!["line 5", "spec.duration: `-5s` is not a duration", "100ms"],
        ),
        (
            ["  duration: [\n", TARGET, ACTION].concat(),
            vec!["line 5", "spec.duration"],
        ),
        (
            [DURATION, TARGET, "  direction: sideways\n", ACTION].concat(),
            vec![
                "line 7",
                "spec.direction",
                "`sideways`",
                "`egress`, `ingress`, `both`",
            ],
        ),
        (
            [DURATION, TARGET, "  ports: [{port: -1}]\n", ACTION].concat(),
            vec!["line 7", "spec.ports[0].port", "`-1`"],
        ),
    ] {
        assert_refused(&scene, &manifest(&lines), &says);
    }
}

#[test]
fn two_of_what_there_is_one_of_are_refused() {
    let scene = Scene::new();
    for (lines, says) in [
        (
            [DURATION, "  target: {netns: NETNS, interface: eth0}\n", ACTION].concat(),
            vec!["spec.target: `netns` and `interface` are given", "one of `"],
        ),
        (
            [
                DURATION,
                TARGET,
                "  action: {partition: {}, drop: {percent: 5}}\n",
            ]
            .concat(),
            vec!["spec.action: `partition` and `drop` are given", "one of `"],
        ),
        (
            [
                DURATION,
                TARGET,
                "  peers: [{ip: 10.0.0.1, cidr: 10.0.0.0/8}]\n",
                ACTION,
            ]
            .concat(),
            vec!["spec.peers[0]: `ip` and `cidr` are given", "one of `"],
        ),
    ] {
        assert_refused(&scene, &manifest(&lines), &says);
    }
}

#[test]
fn every_violation_is_said_at_once() {
    let scene = Scene::new();
    let lines = [
        "  duration: 2h\n",
        TARGET,
        "  peers: [{}, {ip: x}, {cidr: 10.0.0.1/8}, {cidr: 10.0.0.0/33}, {ip: 10.0.0.1, except: [10.0.0.0/8]}]\n",
        "  ports: [{port: 0}, {port: 70000}, {protocol: FOO}, {protocol: ICMP, port: 8}]\n",
        "  action: {delay: {latency: 5ms, jitter: 6ms}}\n",
    ];
    assert_refused(
        &scene,
        &manifest(&lines.concat()),
        &[
            "spec.duration: `2h` given",
            "spec.peers[0]: nothing given; allowed: exactly one of ip, cidr, pods",
            "spec.peers[1].ip: `x` given",
            "spec.peers[2].cidr: `10.0.0.1/8` given; allowed: the network 10.0.0.0/8",
            "spec.peers[3].cidr: `10.0.0.0/33` given",
            "spec.peers[4].except: `10.0.0.0/8` given; allowed: except only beside cidr",
            "spec.ports[0].port: `0` given; allowed: a port from 1 to 65535",
            "spec.ports[1].port: `70000` given",
            "spec.ports[2].protocol: `FOO` given",
            "spec.ports[3].port: `8` given; allowed: no port, since ICMP has none",
            "spec.action.delay.jitter: `6ms` given",
        ],
    );
    for (percent, shown) in [("101", "101"), ("-1", "-1"), (".nan", "NaN"), (".inf", "inf")] {
        let action = format!("  action: {{drop: {{percent: {percent}}}}}\n");
        let says = format!("spec.action.drop.percent: `{shown}` given; allowed: a number from 0 to 100");
        assert_refused(&scene, &manifest(&[DURATION, TARGET, &action].concat()), &[&says]);
    }
}

#[test]
fn of_several_documents_all_are_applied_or_none() {
    let scene = Scene::new();
    let good = manifest(&[DURATION, TARGET, ACTION].concat()).replace("name: bad", "name: good");
    for (bad, says) in [
        (
            manifest(&["  duration: 2h\n", TARGET, ACTION].concat()),
            vec!["checking bad", "spec.duration: `2h` given", "nothing was applied"],
        ),
        (
            manifest(&[DURATION, TARGET, "  action: {explode: {}}\n"].concat()),
            vec!["document 2", "unknown field `explode`"],
        ),
        (good.clone(), vec!["good", "twice"]),
        (
            "kind: Pod\napiVersion: v1\n".to_owned(),
            vec!["document 2", "`v1` given", "sabot.dev/v1alpha1"],
        ),
    ] {
        assert_refused(&scene, &format!("{good}\n---\n{bad}"), &says);
    }
    assert_refused(&scene, "", &["the input is empty"]);
    assert_refused(&scene, "{", &["document 1"]);
    scene.assert_refused(
        &["apply", "-f", "/nonexistent/x.yaml"],
        1,
        &["/nonexistent/x.yaml", "No such file"],
    );
}

use clap::Parser as _;
use sabot_core::manifest::parse_manifests;

use super::*;
use crate::args::{Cli, Command};

fn parse(line: &[&str]) -> Result<Manifest, CliError> {
    let cli = Cli::try_parse_from(line).unwrap_or_else(|e| panic!("{line:?}: {e}"));
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000);
    let Command::Quick(command) = cli.command else {
        panic!("{line:?} describes no fault");
    };
    match faults(&command, now)?.0 {
        Quick::One(manifest) => Ok(*manifest),
        Quick::Ends(_) => panic!("{line:?} describes two faults"),
    }
}

fn assert_same(line: &[&str], spec: &str) {
    let yaml = format!(
        "apiVersion: sabot.dev/v1alpha1\nkind: NetworkFault\nmetadata: {{name: cut, namespace: team-a}}\nspec:\n{spec}"
    );
    let expected = parse_manifests(&yaml).expect(spec);
    let mut full = vec!["sabot"];
    full.extend(line);
    full.extend(["--name", "cut", "-n", "team-a"]);
    assert_eq!([parse(&full).expect("a manifest")], expected[..]);
}

#[test]
fn a_partition_says_the_same_as_its_manifest() {
    assert_same(
        &[
            "partition",
            "--target",
            "pods:team-a/app=web",
            "--peer",
            "pods:team-b/app=cli",
            "--peer",
            "cidr:10.0.0.0/8,except=10.1.0.0/16",
            "--port",
            "UDP:53",
            "--port",
            "8443",
            "--direction",
            "egress",
            "--for",
            "20s",
            "--no-spare-node",
            "--sample-every",
            "5",
            "--pick",
            "50%",
            "--seed",
            "7",
        ],
        "  duration: 20s
  target:
    pods: {namespace: team-a, selector: {matchLabels: {app: web}}, pick: {percent: 50, seed: 7}}
  peers:
  - pods: {namespace: team-b, selector: {matchLabels: {app: cli}}}
  - {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}
  direction: egress
  ports: [{protocol: UDP, port: 53}, {port: 8443}]
  spareNode: false
  seed: 7
  sampleEvery: 5
  action: {partition: {}}
",
    );
}

#[test]
fn the_other_actions_say_the_same_as_their_manifests() {
    assert_same(
        &["drop", "20%", "--target", "interface:eth0", "--for", "1m"],
        "  duration: 1m\n  target: {interface: eth0}\n  action: {drop: {percent: 20}}\n",
    );
    assert_same(
        &[
            "delay",
            "100ms",
            "--jitter",
            "20ms",
            "--distribution",
            "uniform",
            "--target",
            "pod:team-a/web-0",
            "--for",
            "1m",
            "--starts-in",
            "10s",
        ],
        "  duration: 1m
  startsAt: 2030-03-17T17:46:50Z
  target: {pods: {namespace: team-a, name: web-0}}
  action: {delay: {latency: 100ms, jitter: 20ms, distribution: uniform}}
",
    );
    assert_same(
        &[
            "corrupt",
            "0.5",
            "--kind",
            "payload",
            "--target",
            "netns:/run/netns/x",
            "--for",
            "1m",
            "--starts-at",
            "2030-01-31T12:00:00Z",
        ],
        "  duration: 1m
  startsAt: 2030-01-31T12:00:00Z
  target: {netns: /run/netns/x}
  action: {corrupt: {kind: payload, percent: 0.5}}
",
    );
}

#[test]
fn a_pick_needs_pods_to_pick_from() {
    let error = parse(&[
        "sabot",
        "partition",
        "--target",
        "interface:eth0",
        "--for",
        "5s",
        "--pick",
        "1",
    ])
    .expect_err("there is one interface");
    assert_eq!(
        error.to_string(),
        "--pick takes some of several pods, but --target is interface:eth0"
    );
}

/// A line in words, and the action that it stands for.
fn assert_action(words: &str, action: &str) {
    let mut line: Vec<_> = words.split(' ').collect();
    line.extend(["--target", "interface:eth0", "--for", "1m"]);
    assert_same(
        &line,
        &format!("  duration: 1m\n  target: {{interface: eth0}}\n  action: {{{action}}}\n"),
    );
}

#[test]
fn each_loss_model_says_the_same_as_its_manifest() {
    assert_action("drop 20% --only syn", "drop: {percent: 20, only: syn}");
    assert_action("drop --only handshake", "drop: {only: handshake}");
    assert_action("drop --burst 2%:8", "drop: {burst: {percent: 2, length: 8}}");
    assert_action(
        "drop --gilbert-elliott 1:25:0:100",
        "drop: {gilbertElliott: {p: 1, r: 25, lossGood: 0, lossBad: 100}}",
    );
    assert_action("drop --every 10", "drop: {nth: {every: 10}}");
    assert_action("drop --first 3", "drop: {nth: {first: 3}}");
    assert_action("drop --flows 20%", "drop: {flows: {percent: 20}}");
}

#[test]
fn each_action_says_the_same_as_its_manifest() {
    assert_action(
        "delay 100ms --jitter 20ms --distribution paretoNormal --correlation 25 --allow-reorder",
        "delay: {latency: 100ms, jitter: 20ms, distribution: paretoNormal, correlation: 25, allowReorder: true}",
    );
    assert_action(
        "delay --quantiles 5ms,9ms,40ms --correlation 25%",
        "delay: {quantiles: [5ms, 9ms, 40ms], correlation: 25}",
    );
    assert_action(
        "corrupt 1% --kind wire --bits 2 --offset 0-100",
        "corrupt: {percent: 1, kind: wire, bits: 2, offset: {from: 0, to: 100}}",
    );
    assert_action(
        "corrupt 1 --offset -100",
        "corrupt: {percent: 1, offset: {to: 100}}",
    );
    assert_action(
        "duplicate 5% --copies 2 --delay 10ms",
        "duplicate: {percent: 5, copies: 2, delay: 10ms}",
    );
    assert_action("reorder 5% --gap 3", "reorder: {percent: 5, gap: 3}");
    assert_action("reorder 5% --delay 10ms", "reorder: {percent: 5, delay: 10ms}");
    assert_action(
        "rate-limit 10mbit --burst 16KiB --queue-time 100ms",
        "rateLimit: {rate: 10mbit, burst: 16KiB, queueTime: 100ms}",
    );
    assert_action(
        "rate-limit 1.5Gbit --queue-bytes 256KiB",
        "rateLimit: {rate: 1.5Gbit, queueBytes: 256KiB}",
    );
    assert_action("reject", "reject: {}");
    assert_action(
        "reject --code admin-prohibited",
        "reject: {code: admin-prohibited}",
    );
    assert_action("reset --to target", "reset: {to: target}");
}

#[test]
fn what_all_faults_have_says_the_same_as_a_manifest() {
    let line = "drop 5% --target interface:eth0 --for 1m --seed 7 --pulse 10s/5s --ramp 60s:10..100 --dscp 46,0 \
                --length 100-1500 --port TCP:8000-8099 --port source:TCP:443 --port destination:UDP:53 --port ICMP:8/0 \
                --peer host:api.example.com";
    let line: Vec<_> = line.split_whitespace().collect();
    assert_same(
        &line,
        "  duration: 1m
  target: {interface: eth0}
  seed: 7
  pulse: {onTime: 10s, offTime: 5s}
  ramp: {over: 60s, from: 10, to: 100}
  packets: {dscp: [46, 0], minLength: 100, maxLength: 1500}
  ports:
  - {protocol: TCP, port: 8000, endPort: 8099}
  - {protocol: TCP, port: 443, end: source}
  - {protocol: UDP, port: 53, end: destination}
  - {protocol: ICMP, icmpType: 8, icmpCode: 0}
  peers: [{host: api.example.com}]
  action: {drop: {percent: 5}}
",
    );
}

#[test]
fn a_name_may_have_its_namespace_before_it() {
    let line = |name: &[&'static str]| {
        let rest = [
            "sabot",
            "drop",
            "5",
            "--target",
            "netns:lab",
            "--for",
            "1m",
            "--name",
        ];
        parse(&[&rest, name].concat())
    };
    for name in [
        &["shop/cut"][..],
        &["cut", "-n", "shop"],
        &["shop/cut", "-n", "shop"],
    ] {
        let metadata = line(name).expect("a fault").metadata;
        assert_eq!((&*metadata.namespace, &*metadata.name), ("shop", "cut"));
    }
    for (wrong, said) in [
        (
            &["shop/cut", "-n", "other"][..],
            "`shop/cut` is not in the namespace other",
        ),
        (
            &["shop/"],
            "`shop/` is not a fault's name: NAME or NAMESPACE/NAME",
        ),
    ] {
        let error = line(wrong).expect_err("it can't be meant").to_string();
        assert!(error.starts_with(said), "{error}");
    }
}

#[test]
fn two_ends_are_two_faults_each_with_the_other_as_its_peer() {
    let line =
        "sabot partition --between pods:shop/app=a --and pod:db/b-0 --for 20s --name cut -n shop --port 5432";
    let cli = Cli::try_parse_from(line.split(' ')).expect("a command line");
    let Command::Quick(command) = cli.command else {
        panic!("it describes a fault");
    };
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000);
    let (quick, _) = faults(&command, now).expect("it is valid");
    let yaml = "
apiVersion: sabot.dev/v1alpha1
kind: NetworkFault
metadata: {name: cut-a, namespace: shop}
spec:
  duration: 20s
  target: {pods: {namespace: shop, selector: {matchLabels: {app: a}}}}
  peers: [{pods: {namespace: db, name: b-0}}]
  ports: [{port: 5432}]
  action: {partition: {}}
---
apiVersion: sabot.dev/v1alpha1
kind: NetworkFault
metadata: {name: cut-b, namespace: shop}
spec:
  duration: 20s
  target: {pods: {namespace: db, name: b-0}}
  peers: [{pods: {namespace: shop, selector: {matchLabels: {app: a}}}}]
  ports: [{port: 5432}]
  action: {partition: {}}
";
    let expected = parse_manifests(yaml).expect("two manifests");
    match quick {
        Quick::Ends(ends) => assert_eq!(ends[..], expected[..]),
        Quick::One(one) => panic!("{one:?} is one"),
    }

    let made_up = "sabot partition --between pods:shop/app=a --and pod:db/b-0 --for 20s";
    let cli = Cli::try_parse_from(made_up.split(' ')).expect("a command line");
    let Command::Quick(command) = cli.command else {
        panic!("it describes a fault");
    };
    match faults(&command, now).expect("it is valid").0 {
        Quick::Ends(ends) => {
            let [a, b] = *ends;
            let stem = a.metadata.name.strip_suffix("-a").expect("the first end");
            assert!(stem.starts_with("partition-a-"), "{stem}");
            assert_eq!(b.metadata.name, format!("{stem}-b"));
        }
        Quick::One(one) => panic!("{one:?} is one"),
    }
}

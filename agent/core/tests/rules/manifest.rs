use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use sabot_core::spec::{Action, Manifest, Partition};
use sabot_core::{parse_manifests, to_yaml};

const VALID: &str = "apiVersion: sabot.dev/v1alpha1
kind: NetworkFault
metadata: {name: cut-payments, namespace: shop}
spec:
  duration: 1h30m
  startsAt: 2030-01-02T03:04:05Z
  target:
    pods: {selector: {matchLabels: {app: checkout}}, pick: {percent: 50, seed: 7}}
  peers:
  - cidr: 10.20.0.0/16
    except: [10.20.7.0/24]
  direction: egress
  ports: [{protocol: TCP, port: 8443}, {protocol: UDP, port: 53}]
  action:
    delay: {latency: 100ms, jitter: 20ms, distribution: uniform}
";

fn error(yaml: &str) -> String {
    match parse_manifests(yaml) {
        Ok(manifests) => panic!("{yaml:?} was read as {manifests:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_manifest_reads_as_written_and_round_trips() {
    let manifests = parse_manifests(VALID).expect("a valid manifest");
    let [manifest] = manifests.as_slice() else {
        panic!("{manifests:?}");
    };
    assert_eq!(manifest.spec.duration, Some(Duration::from_secs(5400)));
    let delay = manifest.spec.action.delay.as_ref().expect("a delay");
    assert_eq!(
        (delay.latency, delay.jitter),
        (Some(Duration::from_millis(100)), Some(Duration::from_millis(20)))
    );
    let pods = manifest.spec.target.pods.as_ref().expect("pods");
    assert_eq!(pods.pick.as_ref().expect("a pick").percent, Some(50.0));
    let yaml = to_yaml(manifest).expect("a time that can be written");
    assert_eq!(parse_manifests(&yaml).expect(&yaml), manifests);
}

#[test]
fn several_documents_are_read_and_empty_ones_skipped() {
    let yaml = format!(
        "---\n# nothing\n---\n{VALID}---\n{}",
        VALID.replace("cut-payments", "second")
    );
    let names: Vec<String> = parse_manifests(&yaml)
        .expect("two")
        .into_iter()
        .map(|m| m.metadata.name)
        .collect();
    assert_eq!(names, ["cut-payments", "second"]);
}

#[test]
fn nothing_to_read_is_an_error() {
    for yaml in ["", "\n", "# a comment\n", "---\n---\n", "null"] {
        assert!(
            error(yaml).starts_with("the input is empty; allowed: "),
            "{:?}: {}",
            yaml,
            error(yaml)
        );
    }
}

#[test]
fn another_kind_or_version_is_refused_for_what_it_is() {
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nspec: {replicas: 3}\n";
    assert_eq!(
        error(deployment),
        "document 1: apiVersion: `apps/v1` given; allowed: sabot.dev/v1alpha1"
    );
    let kind = VALID.replace("kind: NetworkFault", "kind: DiskFault");
    assert_eq!(
        error(&kind),
        "document 1: kind: `DiskFault` given; allowed: NetworkFault, ClusterNetworkFault"
    );
    assert_eq!(
        error("metadata: {}"),
        "document 1: apiVersion: nothing given; allowed: sabot.dev/v1alpha1"
    );
}

#[test]
fn a_fault_of_the_cluster_is_in_no_namespace() {
    let of_cluster = |metadata: &str| {
        format!(
            "apiVersion: sabot.dev/v1alpha1\nkind: ClusterNetworkFault\nmetadata: {metadata}\n\
             spec: {{duration: 1m, target: {{node: worker-1}}, action: {{partition: {{}}}}}}\n"
        )
    };
    let manifests = parse_manifests(&of_cluster("{name: cut}")).expect("a manifest");
    assert_eq!(manifests[0].kind, "ClusterNetworkFault");
    assert_eq!(
        error(&of_cluster("{name: cut, namespace: shop}")),
        "document 1: metadata.namespace: `shop` given; allowed: none, a ClusterNetworkFault is in no namespace"
    );
}

#[test]
fn an_unknown_field_is_named_with_its_place_and_what_is_allowed() {
    let yaml = format!("{VALID}---\n{}", VALID.replace("jitter: 20ms", "jiter: 20ms"));
    let text = error(&yaml);
    assert!(text.starts_with("document 2, line 31, column "), "{text}");
    assert!(
        text.contains("spec.action.delay: unknown field `jiter`, expected one of `latency`, `jitter`"),
        "{text}"
    );
    assert!(!text.contains(" at line"), "the place is named once: {text}");
}

#[test]
fn wrong_values_are_named_with_their_path() {
    for (from, to, expected) in [
        (
            "latency: 100ms",
            "latency: fast",
            "spec.action.delay.latency: `fast` is not a duration",
        ),
        (
            "duration: 1h30m",
            "duration: 5",
            "spec.duration: `5` is not a duration such as 100ms, 5m or 1h30m: time unit needed",
        ),
        (
            "2030-01-02T03:04:05Z",
            "tomorrow",
            "spec.startsAt: `tomorrow` is not an RFC 3339 time",
        ),
        (
            "direction: egress",
            "direction: up",
            "spec.direction: unknown variant `up`, expected one of",
        ),
        (
            "port: 53",
            "port: -1",
            "spec.ports[1].port: invalid type: integer `-1`",
        ),
        (
            "percent: 50",
            "percent: half",
            "spec.target.pods.pick.percent: invalid type: string \"half\"",
        ),
    ] {
        assert!(VALID.contains(from), "{from}");
        let text = error(&VALID.replace(from, to));
        assert!(text.contains(expected), "{to}: {text}");
        assert!(text.starts_with("document 1, line "), "{text}");
    }
}

#[test]
fn broken_yaml_is_an_error_with_a_place() {
    let text = error("apiVersion: [\n");
    assert!(text.starts_with("document 1, line "), "{text}");
}

#[test]
fn a_time_that_can_not_be_written_is_an_error() {
    let mut manifest: Manifest = parse_manifests(VALID).expect("valid").remove(0);
    manifest.spec.action = Action {
        partition: Some(Partition {}),
        ..Action::default()
    };
    manifest.spec.starts_at = Some(std::time::SystemTime::UNIX_EPOCH - Duration::from_secs(1));
    assert!(
        to_yaml(&manifest)
            .expect_err("before 1970")
            .message
            .contains("1970")
    );
}

/// The time that a manifest with this many peers takes to read, and one to write again.
fn read_and_write(count: u32) -> (Duration, Duration) {
    let mut yaml = VALID.replace(
        "  peers:\n  - cidr: 10.20.0.0/16\n    except: [10.20.7.0/24]\n",
        "  peers:\n",
    );
    for n in 0..count {
        yaml.push_str(&format!("  - ip: {}\n", Ipv4Addr::from(0x0a00_0000 + n)));
    }
    // Behind the other fields the peers are found as well as before them.
    let (head, peers) = yaml.split_once("  peers:\n").expect("its peers");
    let (rest, peers) = peers.split_once("  - ip").expect("a peer");
    let yaml = format!("{head}{rest}  peers:\n  - ip{peers}");
    let start = Instant::now();
    let manifests = parse_manifests(&yaml).unwrap_or_else(|e| panic!("{e}"));
    let read = start.elapsed();
    assert_eq!(manifests[0].spec.peers.len(), count as usize);
    let start = Instant::now();
    let text = to_yaml(&manifests[0]).expect("a time that can be written");
    assert!(text.len() > 10 * count as usize);
    (read, start.elapsed())
}

#[test]
fn a_manifest_with_150_000_peers_is_read_in_linear_time() {
    let few: Vec<_> = (0..3).map(|_| read_and_write(15_000)).collect();
    let few_read = *few.iter().map(|(read, _)| read).min().expect("three runs");
    let few_written = *few.iter().map(|(_, written)| written).min().expect("three runs");
    let (read, written) = read_and_write(150_000);
    println!(
        "15,000 peers: read in {few_read:?}, written in {few_written:?}; 150,000: {read:?} and {written:?}"
    );
    // Ten times as many; a hundred times as long would be quadratic.
    assert!(read < few_read * 40, "{few_read:?} and {read:?}");
    assert!(written < few_written * 40, "{few_written:?} and {written:?}");
}

//! Documents to render, made of what a daemon sends.

use std::time::{Duration, SystemTime};

use sabot_core::manifest::parse_manifests;
use sabot_core::spec;
use sabot_proto::convert::{metadata_to_proto, spec_to_proto, timestamp_to_proto};
use sabot_proto::sabot::v1;

use crate::view::FaultDoc;

const MANIFEST: &str = "
apiVersion: sabot.dev/v1alpha1
kind: NetworkFault
metadata: {name: slow, namespace: team-a}
spec:
  duration: 60s
  target: {pods: {namespace: team-a, selector: {matchLabels: {app: web}}, pick: {percent: 50, seed: 7}}}
  peers: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}]
  ports: [{protocol: UDP, port: 53}]
  action: {delay: {latency: 100ms, jitter: 20ms}}
";

/// As a manifest says it: `partition: {}`.
pub(crate) fn action(yaml: &str) -> spec::Action {
    let manifest = format!(
        "{{apiVersion: sabot.dev/v1alpha1, kind: NetworkFault, metadata: {{name: a}}, \
         spec: {{target: {{}}, action: {{{yaml}}}}}}}"
    );
    parse_manifests(&manifest).expect(yaml).remove(0).spec.action
}

pub(crate) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000)
}

pub(crate) fn target_ref() -> v1::TargetRef {
    v1::TargetRef {
        pod_namespace: "team-a".into(),
        pod_name: "web-0".into(),
        device: "eth0".into(),
        ifindex: 2,
        netns: 4_026_532_281,
    }
}

fn ledger(direction: v1::Direction, packets: u64) -> v1::LedgerEntry {
    let tally = |packets| {
        Some(v1::Tally {
            packets,
            bytes: packets * 100,
        })
    };
    v1::LedgerEntry {
        target: Some(target_ref()),
        direction: direction.into(),
        ledger: Some(v1::Ledger {
            matched: tally(packets),
            delayed: tally(packets),
            released: tally(packets - 1),
            lost_late: tally(1),
            ..v1::Ledger::default()
        }),
        first_match_at: None,
    }
}

/// A delay that runs for another 42 s, on one of two targets.
pub(crate) fn wire_fault() -> v1::Fault {
    let manifest = parse_manifests(MANIFEST).expect("a valid manifest").remove(0);
    v1::Fault {
        metadata: Some(metadata_to_proto(&manifest.metadata)),
        spec: Some(spec_to_proto(&manifest.spec).expect("a valid spec")),
        status: Some(v1::FaultStatus {
            names: Vec::new(),
            phase: v1::Phase::Partial.into(),
            message: "1 target failed".into(),
            created_at: Some(timestamp_to_proto(now() - Duration::from_secs(18))),
            starts_at: Some(timestamp_to_proto(now() - Duration::from_secs(18))),
            expires_at: Some(timestamp_to_proto(now() + Duration::from_millis(41_500))),
            injected_at: None,
            ended_at: None,
            targets: vec![
                v1::TargetStatus {
                    target: Some(target_ref()),
                    phase: v1::TargetPhase::Injected.into(),
                    reason: String::new(),
                },
                v1::TargetStatus {
                    target: Some(v1::TargetRef {
                        pod_name: "web-1".into(),
                        ..target_ref()
                    }),
                    phase: v1::TargetPhase::Failed.into(),
                    reason: "no memory".into(),
                },
            ],
            ledgers: vec![
                ledger(v1::Direction::Egress, 7),
                ledger(v1::Direction::Ingress, 20),
            ],
            seed: Some(42),
            expected_loss: None,
        }),
    }
}

pub(crate) fn fault() -> FaultDoc {
    wire_fault().try_into().expect("it is understood")
}

//! The faults that are measured, as a gRPC client writes them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, bail};
use sabot_proto::sabot::v1::{
    Action, Delay, Direction, Drop, Fault, FaultSpec, LabelSelector, Partition, Peer, Phase, Target,
    TargetPhase, TargetPods, action, delay, drop, peer, target,
};
use sabot_testkit::LabPod;

/// Longer than a bench; each fault is deleted when it was measured.
const LIFETIME: Duration = Duration::from_secs(600);
/// How long enforcement is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A fault in both directions.
pub(super) fn fault(target: target::Kind, peers: Vec<Peer>, action: action::Kind) -> FaultSpec {
    FaultSpec {
        duration: LIFETIME.try_into().ok(),
        target: Some(Target { kind: Some(target) }),
        peers,
        direction: Direction::Both.into(),
        action: Some(Action { kind: Some(action) }),
        ..FaultSpec::default()
    }
}

pub(super) fn netns(pod: &LabPod) -> target::Kind {
    target::Kind::Netns(pod.netns().path().display().to_string())
}

/// Pods by one label.
pub(super) fn pods(namespace: &str, key: &str, value: &str) -> target::Kind {
    target::Kind::Pods(TargetPods {
        namespace: Some(namespace.to_owned()),
        selector: Some(label(key, value)),
        ..TargetPods::default()
    })
}

pub(super) fn label(key: &str, value: &str) -> LabelSelector {
    LabelSelector {
        match_labels: HashMap::from([(key.to_owned(), value.to_owned())]),
        ..LabelSelector::default()
    }
}

pub(super) fn address(ip: IpAddr) -> Peer {
    Peer {
        kind: Some(peer::Kind::Ip(ip.to_string())),
        except: Vec::new(),
    }
}

pub(super) fn network(cidr: String) -> Peer {
    Peer {
        kind: Some(peer::Kind::Cidr(cidr)),
        except: Vec::new(),
    }
}

pub(super) fn partition() -> action::Kind {
    action::Kind::Partition(Partition {})
}

pub(super) fn drop_share(percent: f64) -> action::Kind {
    action::Kind::Drop(Drop {
        model: Some(drop::Model::Percent(percent)),
        only: None,
    })
}

pub(super) fn delay(latency: Duration) -> action::Kind {
    action::Kind::Delay(Delay {
        base: latency.try_into().ok().map(delay::Base::Latency),
        ..Delay::default()
    })
}

/// # Errors
///
/// The daemon answered without enforcing the fault on that many targets.
pub(super) fn ensure_injected(fault: &Fault, targets: usize) -> Result<()> {
    let Some(status) = &fault.status else {
        bail!("the daemon answered without a status");
    };
    let injected = status.targets.iter().filter(|target| {
        let phase = target.phase();
        phase == TargetPhase::Injected
    });
    let injected = injected.count();
    if status.phase() != Phase::Injected || injected != targets {
        bail!(
            "the fault is {:?} on {injected} of {targets} targets: {}",
            status.phase(),
            status.message
        );
    }
    Ok(())
}

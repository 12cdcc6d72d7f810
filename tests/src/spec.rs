//! Faults on a pod of a lab, as tests write them.

use std::net::IpAddr;
use std::time::Duration;

use sabot_proto::sabot::v1::{
    Action, Corrupt, Delay, Direction, Drop, FaultSpec, Partition, Peer, Port, Target, action, peer, target,
};

use crate::lab::LabPod;

/// Longer than any test looks.
const LIFETIME: Duration = Duration::from_secs(120);

/// A fault in both directions, with every other end, for two minutes; unless said otherwise.
#[derive(Clone, Debug)]
pub struct Spec(FaultSpec);

impl Spec {
    pub fn partition(target: &LabPod) -> Self {
        Self::new(target, action::Kind::Partition(Partition {}))
    }

    pub fn drop(target: &LabPod, percent: f64) -> Self {
        let percent = Some(percent);
        Self::new(target, action::Kind::Drop(Drop { percent }))
    }

    pub fn corrupt(target: &LabPod, percent: f64) -> Self {
        let percent = Some(percent);
        Self::new(target, action::Kind::Corrupt(Corrupt { kind: None, percent }))
    }

    pub fn delay(target: &LabPod, latency: Duration) -> Self {
        Self::new(target, action::Kind::Delay(delay(latency)))
    }

    pub fn delay_with_jitter(target: &LabPod, latency: Duration, jitter: Duration) -> Self {
        let delay = Delay {
            jitter: jitter.try_into().ok(),
            ..delay(latency)
        };
        Self::new(target, action::Kind::Delay(delay))
    }

    fn new(target: &LabPod, action: action::Kind) -> Self {
        let path = target.netns().path().display().to_string();
        Self(FaultSpec {
            duration: LIFETIME.try_into().ok(),
            target: Some(Target {
                kind: Some(target::Kind::Netns(path)),
            }),
            action: Some(Action { kind: Some(action) }),
            sample_every: Some(0),
            ..FaultSpec::default()
        })
    }

    #[must_use]
    pub fn lasting(mut self, duration: Duration) -> Self {
        self.0.duration = duration.try_into().ok();
        self
    }

    #[must_use]
    pub fn peer(mut self, ip: IpAddr) -> Self {
        self.0.peers.push(Peer {
            kind: Some(peer::Kind::Ip(ip.to_string())),
            except: Vec::new(),
        });
        self
    }

    #[must_use]
    pub fn peers_in(mut self, cidr: &str, except: &[String]) -> Self {
        self.0.peers.push(Peer {
            kind: Some(peer::Kind::Cidr(cidr.to_owned())),
            except: except.to_vec(),
        });
        self
    }

    #[must_use]
    pub fn egress(mut self) -> Self {
        self.0.direction = Direction::Egress as i32;
        self
    }

    #[must_use]
    pub fn ingress(mut self) -> Self {
        self.0.direction = Direction::Ingress as i32;
        self
    }

    /// A port of a protocol, or all of the protocol.
    #[must_use]
    pub fn port(mut self, protocol: &str, port: Option<u16>) -> Self {
        self.0.ports.push(Port {
            protocol: Some(protocol.to_owned()),
            port: port.map(u32::from),
        });
        self
    }
}

impl From<Spec> for FaultSpec {
    fn from(spec: Spec) -> Self {
        spec.0
    }
}

fn delay(latency: Duration) -> Delay {
    Delay {
        latency: latency.try_into().ok(),
        ..Delay::default()
    }
}

//! Faults on a pod of a lab, as tests write them.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use sabot_core::spec::{
    Action, Corrupt, Delay, Direction, Drop, FaultSpec, Packets, Partition, Peer, Port, Pulse, Ramp, Target,
};
use sabot_proto::convert::spec_to_proto;
use sabot_proto::sabot::v1;

use crate::lab::LabPod;

/// Longer than any test looks.
const LIFETIME: Duration = Duration::from_secs(120);

/// A fault in both directions, with every other end, for two minutes; unless said otherwise.
#[derive(Clone, Debug)]
pub struct Spec(FaultSpec);

impl Spec {
    /// An action as a manifest has it, in YAML: `drop: {burst: {percent: 2, length: 8}}`.
    ///
    /// # Panics
    ///
    /// It isn't one.
    pub fn action(target: &LabPod, yaml: &str) -> Self {
        let action = serde_norway::from_str(yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"));
        Self::new(target, action)
    }

    pub fn partition(target: &LabPod) -> Self {
        let action = Action {
            partition: Some(Partition {}),
            ..Action::default()
        };
        Self::new(target, action)
    }

    pub fn drop(target: &LabPod, percent: f64) -> Self {
        let drop = Drop {
            percent: Some(percent),
            ..Drop::default()
        };
        let action = Action {
            drop: Some(drop),
            ..Action::default()
        };
        Self::new(target, action)
    }

    pub fn corrupt(target: &LabPod, percent: f64) -> Self {
        let corrupt = Corrupt {
            percent,
            ..Corrupt::default()
        };
        let action = Action {
            corrupt: Some(corrupt),
            ..Action::default()
        };
        Self::new(target, action)
    }

    pub fn delay(target: &LabPod, latency: Duration) -> Self {
        Self::new(target, delay(latency, None))
    }

    pub fn delay_with_jitter(target: &LabPod, latency: Duration, jitter: Duration) -> Self {
        Self::new(target, delay(latency, Some(jitter)))
    }

    fn new(target: &LabPod, action: Action) -> Self {
        let path = target.netns().path().display().to_string();
        Self(FaultSpec {
            duration: Some(LIFETIME),
            starts_at: None,
            target: Target {
                netns: Some(path),
                ..Target::default()
            },
            peers: Vec::new(),
            direction: None,
            ports: Vec::new(),
            packets: None,
            spare_node: None,
            allow_control_plane: None,
            sample_every: Some(0),
            seed: None,
            pulse: None,
            ramp: None,
            action,
        })
    }

    #[must_use]
    pub fn lasting(mut self, duration: Duration) -> Self {
        self.0.duration = Some(duration);
        self
    }

    #[must_use]
    pub fn starting(mut self, at: SystemTime) -> Self {
        self.0.starts_at = Some(at);
        self
    }

    #[must_use]
    pub fn peer(mut self, ip: IpAddr) -> Self {
        self.0.peers.push(Peer {
            ip: Some(ip.to_string()),
            ..Peer::default()
        });
        self
    }

    /// A peer by its DNS name.
    #[must_use]
    pub fn host(mut self, name: &str) -> Self {
        self.0.peers.push(Peer {
            host: Some(name.to_owned()),
            ..Peer::default()
        });
        self
    }

    #[must_use]
    pub fn peers_in(mut self, cidr: &str, except: &[String]) -> Self {
        self.0.peers.push(Peer {
            cidr: Some(cidr.to_owned()),
            except: except.to_vec(),
            ..Peer::default()
        });
        self
    }

    #[must_use]
    pub fn egress(mut self) -> Self {
        self.0.direction = Some(Direction::Egress);
        self
    }

    #[must_use]
    pub fn ingress(mut self) -> Self {
        self.0.direction = Some(Direction::Ingress);
        self
    }

    /// A port of a protocol, or all of the protocol.
    #[must_use]
    pub fn port(self, protocol: &str, port: Option<u16>) -> Self {
        self.traffic(Port {
            protocol: Some(protocol.to_owned()),
            port: port.map(u32::from),
            ..Port::default()
        })
    }

    #[must_use]
    pub fn traffic(mut self, port: Port) -> Self {
        self.0.ports.push(port);
        self
    }

    #[must_use]
    pub fn packets(mut self, packets: Packets) -> Self {
        self.0.packets = Some(packets);
        self
    }

    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.0.seed = Some(seed);
        self
    }

    #[must_use]
    pub fn sampling(mut self, every: u32) -> Self {
        self.0.sample_every = Some(every);
        self
    }

    #[must_use]
    pub fn pulse(mut self, on_time: Duration, off_time: Duration) -> Self {
        self.0.pulse = Some(Pulse { on_time, off_time });
        self
    }

    /// From a percentage of the action's value to another.
    #[must_use]
    pub fn ramp(mut self, over: Duration, from: f64, to: f64) -> Self {
        self.0.ramp = Some(Ramp {
            over,
            from: Some(from),
            to: Some(to),
        });
        self
    }
}

impl From<Spec> for v1::FaultSpec {
    fn from(spec: Spec) -> Self {
        spec_to_proto(&spec.0).expect("a fault of a test can be sent")
    }
}

fn delay(latency: Duration, jitter: Option<Duration>) -> Action {
    Action {
        delay: Some(Delay {
            latency: Some(latency),
            jitter,
            ..Delay::default()
        }),
        ..Action::default()
    }
}

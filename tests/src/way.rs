//! Traffic between a target and its peer, out of the target or into it.

use std::net::IpAddr;
use std::time::Duration;

use sabot_proto::sabot::v1::Direction;

use crate::books::Books;
use crate::lab::LabPod;
use crate::rig::Rig;
use crate::spec::Spec;
use crate::traffic::{UdpLoad, UdpReceiver, UdpReport};

/// Which of a rig's pods is the target, and which the other end.
pub const TARGET: usize = 0;
pub const PEER: usize = 1;

/// Nothing more comes when nothing has come for so long.
const QUIET: Duration = Duration::from_millis(500);

/// Both ways to send: from the target, and towards it.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    Egress,
    Ingress,
}

impl Way {
    pub const BOTH: [Self; 2] = [Self::Egress, Self::Ingress];

    pub fn direction(self) -> Direction {
        match self {
            Self::Egress => Direction::Egress,
            Self::Ingress => Direction::Ingress,
        }
    }

    /// Sender and receiver.
    pub fn ends(self, rig: &Rig) -> (&LabPod, &LabPod) {
        let (target, peer) = (rig.lab.pod(TARGET), rig.lab.pod(PEER));
        match self {
            Self::Egress => (target, peer),
            Self::Ingress => (peer, target),
        }
    }

    pub fn limit(self, spec: Spec) -> Spec {
        match self {
            Self::Egress => spec.egress(),
            Self::Ingress => spec.ingress(),
        }
    }

    pub fn pick(self, [egress, ingress]: [Books; 2]) -> Books {
        match self {
            Self::Egress => egress,
            Self::Ingress => ingress,
        }
    }
}

/// Sends a load and says what arrived.
pub fn send(load: UdpLoad, from: &LabPod, to: &LabPod, ip: IpAddr) -> UdpReport {
    let receiver = UdpReceiver::start(to.netns(), ip).expect("it binds");
    load.send(from.netns(), receiver.address()).expect("it is sent");
    receiver.finish(load.datagrams, QUIET)
}

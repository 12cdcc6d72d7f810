//! The pods that the demo plays on.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Result;
use sabot_testkit::{Lab, NetnsRef};

pub(super) const CLIENT: usize = 0;
pub(super) const SERVER: usize = 1;
pub(super) const BYSTANDER: usize = 2;

/// One pod, whatever made it.
pub(super) struct StagePod {
    pub(super) netns: NetnsRef,
    pub(super) ip: IpAddr,
    /// As `sabot --target` takes it.
    pub(super) target: String,
    /// As `sabot --peer` takes it.
    pub(super) peer: String,
}

/// Three pods that reach each other. Dropping it takes them down.
pub(super) trait Stage {
    fn description(&self) -> &str;
    /// [`CLIENT`], [`SERVER`] and [`BYSTANDER`].
    fn pods(&self) -> &[StagePod];
    /// The namespace that the daemon lives in as the node's; `None`: the one we are in.
    fn node(&self) -> Option<&NetnsRef>;
    /// The CRI socket, where there is a runtime.
    fn runtime(&self) -> Option<PathBuf>;
}

/// Pods that are network namespaces.
pub(super) struct NetnsStage {
    pods: Vec<StagePod>,
    lab: Lab,
}

impl NetnsStage {
    pub(super) fn new() -> Result<Self> {
        let lab = Lab::new(3)?;
        let pods = lab
            .pods()
            .iter()
            .map(|pod| StagePod {
                netns: (**pod.netns()).clone(),
                ip: pod.ipv4(),
                target: pod.target(),
                peer: format!("ip:{}", pod.ipv4()),
            })
            .collect();
        Ok(Self { pods, lab })
    }
}

impl Stage for NetnsStage {
    fn description(&self) -> &str {
        "network namespaces on a bridge"
    }

    fn pods(&self) -> &[StagePod] {
        &self.pods
    }

    fn node(&self) -> Option<&NetnsRef> {
        Some(self.lab.node())
    }

    fn runtime(&self) -> Option<PathBuf> {
        None
    }
}

//! The pods that the demo plays on.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use sabot_testkit::cri::{Containerd, PodSpec};
use sabot_testkit::{Lab, NetnsRef};
use tempfile::TempDir;

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

/// The pods' names, in the order of their indices.
const NAMES: [&str; 3] = ["client", "server", "bystander"];
/// Their Kubernetes namespace.
const NAMESPACE: &str = "demo";

/// Pods that are network namespaces.
pub(super) struct NetnsStage {
    pods: Vec<StagePod>,
    lab: Lab,
}

impl NetnsStage {
    pub(super) fn new() -> Result<Self> {
        let lab = Lab::new(NAMES.len())?;
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

/// Pods that a private containerd made, on a node of their own.
pub(super) struct ContainerdStage {
    pods: Vec<StagePod>,
    node: NetnsRef,
    // It ends before its folder goes.
    containerd: Containerd,
    _folder: TempDir,
}

impl ContainerdStage {
    pub(super) fn new() -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("sabot-demo-")
            .tempdir()
            .context("no temporary folder")?;
        let containerd = Containerd::start(folder.path())?;
        let mut pods = Vec::new();
        for name in NAMES {
            let pod = containerd.run_pod(&PodSpec::idle(NAMESPACE, name).label("app", name))?;
            pods.push(StagePod {
                netns: NetnsRef::open(&pod.netns)?,
                ip: pod.ip(),
                target: format!("pods:{NAMESPACE}/app={name}"),
                peer: format!("pods:{NAMESPACE}/app={name}"),
            });
        }
        Ok(Self {
            pods,
            node: NetnsRef::open(containerd.node_netns())?,
            containerd,
            _folder: folder,
        })
    }
}

impl Stage for ContainerdStage {
    fn description(&self) -> &str {
        "pods that a private containerd made through CRI"
    }

    fn pods(&self) -> &[StagePod] {
        &self.pods
    }

    fn node(&self) -> Option<&NetnsRef> {
        Some(&self.node)
    }

    fn runtime(&self) -> Option<PathBuf> {
        Some(self.containerd.socket())
    }
}

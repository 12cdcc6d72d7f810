//! From a sandbox as the runtime describes it to a pod with devices.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use sabot_core::guard::ANNOTATIONS;
use sabot_core::model::{NetnsId, Pod, Workload};
use sabot_proto::runtime::v1::{NamespaceMode, PodSandboxState, PodSandboxStatus, PodSandboxStatusResponse};
use serde::Deserialize;

use crate::kernel::nsfs::netns_id;
use crate::targets::netns::{InspectError, inspect, own_netns, target_device};

#[derive(Debug, thiserror::Error)]
pub(super) enum SandboxError {
    #[error("its status has no {0}")]
    Missing(&'static str),
    #[error("it is no longer ready")]
    NotReady,
    #[error("its status info is not the JSON that containerd and CRI-O give: {0}")]
    Info(#[from] serde_json::Error),
    #[error("its status info names neither a process nor a network namespace")]
    NoNetns,
    #[error(transparent)]
    Inspect(#[from] InspectError),
}

/// A ready sandbox, as far as it is known.
#[derive(Clone, Debug)]
pub(super) struct Sandbox {
    pub(super) pod: Pod,
    /// `None` on the node's own network.
    netns: Option<Netns>,
}

#[derive(Clone, Debug)]
struct Netns {
    path: PathBuf,
    id: NetnsId,
    inspected: Instant,
}

impl Sandbox {
    /// Reads its devices; blocks for a fraction of a millisecond.
    pub(super) fn discover(description: Description) -> Result<Self, SandboxError> {
        let Description { pod, netns_paths } = description;
        if pod.host_network {
            return Ok(Self { pod, netns: None });
        }
        let mut failure = SandboxError::NoNetns;
        for path in netns_paths {
            match Self::inspected(pod.clone(), path) {
                Ok(sandbox) => return Ok(sandbox),
                Err(e) => failure = e.into(),
            }
        }
        Err(failure)
    }

    fn inspected(mut pod: Pod, path: PathBuf) -> Result<Self, InspectError> {
        let inspection = inspect(&path)?;
        if inspection.id == own_netns() {
            // Whatever its runtime says, a fault on these devices would be one on the node.
            pod.host_network = true;
            return Ok(Self { pod, netns: None });
        }
        pod.netns_path = Some(path.clone());
        let owner = format!("{}/{}", pod.namespace, pod.name);
        pod.devices = inspection
            .meant()
            .map(|link| target_device(link, inspection.id, &path, &owner))
            .collect();
        let netns = Netns {
            path,
            id: inspection.id,
            inspected: Instant::now(),
        };
        Ok(Self {
            pod,
            netns: Some(netns),
        })
    }

    /// Its network namespace is where it was found. A process id that was used again, for one, isn't.
    pub(super) fn is_there(&self) -> bool {
        self.netns
            .as_ref()
            .is_none_or(|n| netns_id(&n.path) == Some(n.id))
    }

    /// Its devices were read after `moment`, or there are none to read.
    pub(super) fn is_fresh(&self, moment: Instant) -> bool {
        self.netns.as_ref().is_none_or(|n| n.inspected > moment)
    }

    /// The same sandbox with its devices read anew.
    pub(super) fn reinspected(self) -> Result<Self, SandboxError> {
        match self.netns {
            Some(netns) => Ok(Self::inspected(self.pod, netns.path)?),
            None => Ok(self),
        }
    }
}

/// What a runtime says of a sandbox, before anything is looked at.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Description {
    pod: Pod,
    /// Where its network namespace may be found, the best place first.
    netns_paths: Vec<PathBuf>,
}

#[cfg(feature = "fuzzing")]
impl Description {
    pub(super) fn into_parts(self) -> (Pod, Vec<PathBuf>) {
        (self.pod, self.netns_paths)
    }
}

impl TryFrom<PodSandboxStatusResponse> for Description {
    type Error = SandboxError;

    fn try_from(response: PodSandboxStatusResponse) -> Result<Self, Self::Error> {
        let status = response.status.ok_or(SandboxError::Missing("`status`"))?;
        if status.state() != PodSandboxState::SandboxReady {
            return Err(SandboxError::NotReady);
        }
        let host_network = is_host_network(&status);
        let info = match response.info.get("info") {
            // Nothing of a pod on the node's network depends on it.
            info if host_network => info.and_then(|info| serde_json::from_str::<Info>(info).ok()),
            Some(info) => Some(serde_json::from_str::<Info>(info)?),
            None => return Err(SandboxError::Missing("`info`")),
        }
        .unwrap_or_default();
        let netns_paths = if host_network {
            Vec::new()
        } else {
            info.netns_paths()
        };
        let metadata = status.metadata.ok_or(SandboxError::Missing("`metadata`"))?;
        let pod = Pod {
            namespace: metadata.namespace,
            name: metadata.name,
            uid: metadata.uid,
            sandbox: status.id,
            labels: status.labels.into_iter().collect(),
            annotations: status
                .annotations
                .into_iter()
                .filter(|(key, _)| key.starts_with(ANNOTATIONS))
                .collect(),
            addresses: status
                .network
                .into_iter()
                .flat_map(|n| std::iter::once(n.ip).chain(n.additional_ips.into_iter().map(|ip| ip.ip)))
                .filter_map(|ip| ip.parse::<IpAddr>().ok())
                .collect(),
            host_network,
            workload: Workload::Unknown,
            netns_path: None,
            process: (info.pid != 0).then_some(info.pid),
            devices: Vec::new(),
        };
        Ok(Self { pod, netns_paths })
    }
}

fn is_host_network(status: &PodSandboxStatus) -> bool {
    let namespaces = status.linux.as_ref().and_then(|linux| linux.namespaces.as_ref());
    namespaces
        .and_then(|n| n.options.as_ref())
        .is_some_and(|options| options.network() == NamespaceMode::Node)
}

/// The part of the verbose status that containerd and CRI-O have in common.
#[derive(Debug, Default, Deserialize)]
struct Info {
    /// Of the sandbox's first process; 0 or absent where there is none.
    #[serde(default)]
    pid: u32,
    #[serde(default, rename = "runtimeSpec")]
    runtime_spec: Option<RuntimeSpec>,
}

// Options, because Go writes an absent list or object as `null`.
#[derive(Debug, Default, Deserialize)]
struct RuntimeSpec {
    linux: Option<RuntimeLinux>,
}

#[derive(Debug, Default, Deserialize)]
struct RuntimeLinux {
    namespaces: Option<Vec<RuntimeNamespace>>,
}

#[derive(Debug, Deserialize)]
struct RuntimeNamespace {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: PathBuf,
}

impl Info {
    /// The mounted namespace first: unlike a process id, its path can't come to mean another one. A daemon in a
    /// container may not see that mount, but sees the process if it shares the node's pid namespace.
    fn netns_paths(&self) -> Vec<PathBuf> {
        let linux = self.runtime_spec.iter().filter_map(|spec| spec.linux.as_ref());
        let namespaces = linux.filter_map(|linux| linux.namespaces.as_ref()).flatten();
        let mounted = namespaces
            .filter(|n| n.kind == "network" && n.path != Path::new(""))
            .map(|n| n.path.clone());
        let process = (self.pid != 0).then(|| PathBuf::from(format!("/proc/{}/ns/net", self.pid)));
        mounted.chain(process).collect()
    }
}

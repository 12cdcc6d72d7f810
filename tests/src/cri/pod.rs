//! Pods as a test asks for them and as the runtime made them.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Instant;

use sabot_proto::runtime::v1::{
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption, PodSandboxConfig,
    PodSandboxMetadata,
};

/// A pod with one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSpec {
    pub namespace: String,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// Run by the container, in an image that has busybox and its applets.
    pub command: Vec<String>,
    /// On the node's network, as a test's own process inside the node.
    pub host_network: bool,
    /// The container's own name.
    pub container: String,
}

impl PodSpec {
    /// A pod that does nothing but be there; for [`super::Containerd::exec`].
    pub fn idle(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            labels: BTreeMap::new(),
            command: vec!["sleep".into(), "2147483647".into()],
            host_network: false,
            container: "main".into(),
        }
    }

    /// A pod that serves its own name over HTTP on port 80.
    pub fn web(namespace: &str, name: &str) -> Self {
        let script = format!("echo {name} >/www/index.html && exec httpd -f -p 80 -h /www");
        Self {
            command: vec!["sh".into(), "-c".into(), script],
            ..Self::idle(namespace, name)
        }
    }

    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    #[must_use]
    pub fn container(mut self, name: &str) -> Self {
        self.container = name.into();
        self
    }

    /// Instead of what its container would run.
    #[must_use]
    pub fn running(mut self, script: &str) -> Self {
        self.command = ["sh", "-c", script].map(str::to_owned).to_vec();
        self
    }

    #[must_use]
    pub fn host_network(mut self) -> Self {
        self.host_network = true;
        self
    }

    /// What a kubelet would ask for: its labels are among the pod's.
    pub(super) fn sandbox_config(&self, uid: &str, attempt: u32, cgroup: &str) -> PodSandboxConfig {
        let mut labels: HashMap<_, _> = self.labels.clone().into_iter().collect();
        for (key, value) in [
            ("name", self.name.as_str()),
            ("namespace", &self.namespace),
            ("uid", uid),
        ] {
            labels.insert(format!("io.kubernetes.pod.{key}"), value.to_owned());
        }
        let network = if self.host_network {
            NamespaceMode::Node
        } else {
            NamespaceMode::Pod
        };
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: self.name.clone(),
                uid: uid.into(),
                namespace: self.namespace.clone(),
                attempt,
            }),
            hostname: if self.host_network {
                String::new()
            } else {
                self.name.clone()
            },
            labels,
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("{cgroup}/pod{uid}"),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(NamespaceOption {
                        network: network.into(),
                        pid: NamespaceMode::Container.into(),
                        ..NamespaceOption::default()
                    }),
                    ..LinuxSandboxSecurityContext::default()
                }),
            }),
            ..PodSandboxConfig::default()
        }
    }
}

/// A pod that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub spec: PodSpec,
    pub uid: String,
    /// Grows with each new sandbox.
    pub attempt: u32,
    /// Id of the sandbox.
    pub sandbox: String,
    /// Id of the container.
    pub container: String,
    /// IPv4 first; none on the node's network.
    pub addresses: Vec<IpAddr>,
    /// Of the container's first process.
    pub pid: i32,
    /// Opens its network namespace.
    pub netns: PathBuf,
    /// Its container's path in the cgroup v2 hierarchy.
    pub cgroup: String,
    /// When the runtime said that its sandbox is ready; its container came later.
    pub sandbox_ready: Instant,
}

impl Pod {
    /// Its IPv4 address.
    ///
    /// # Panics
    /// If it has none: it is on the node's network.
    pub fn ip(&self) -> IpAddr {
        self.address(IpAddr::is_ipv4)
    }

    /// Its IPv6 address.
    ///
    /// # Panics
    /// If it has none: it is on the node's network.
    pub fn ipv6(&self) -> IpAddr {
        self.address(IpAddr::is_ipv6)
    }

    fn address(&self, is_wanted: impl Fn(&IpAddr) -> bool) -> IpAddr {
        let mut addresses = self.addresses.iter().copied();
        addresses
            .find(is_wanted)
            .unwrap_or_else(|| panic!("the pod {} has no such address: {self:?}", self.spec.name))
    }
}

/// What became of a command in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecResult {
    /// `None`: it was killed when its time was over.
    pub exit_code: Option<i32>,
    /// Empty where it was killed.
    pub stdout: String,
    pub stderr: String,
}

impl ExecResult {
    pub fn success(&self) -> bool {
        self.exit_code == Some(0)
    }

    pub fn timed_out(&self) -> bool {
        self.exit_code.is_none()
    }
}

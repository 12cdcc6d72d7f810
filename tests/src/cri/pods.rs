//! What a kubelet does with a runtime: sandboxes, containers and commands in them.

use std::collections::HashMap;
use std::fs;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sabot_proto::runtime::v1::{
    ContainerConfig, ContainerMetadata, ContainerStatusRequest, CreateContainerRequest, ExecSyncRequest,
    ImageSpec, LinuxContainerConfig, LinuxContainerSecurityContext, NamespaceMode, NamespaceOption,
    PodSandboxConfig, PodSandboxStatusRequest, RemovePodSandboxRequest, RunPodSandboxRequest,
    StartContainerRequest, StopContainerRequest, StopPodSandboxRequest,
};
use tonic::{Code, Status};

use super::client::Cri;
use super::image::IMAGE;
use super::{Containerd, ExecResult, Pod, PodSpec, TEARDOWN_TIMEOUT};

/// A sandbox, and when the runtime said that it is ready.
struct Sandbox {
    id: String,
    ready: Instant,
}

impl Containerd {
    /// Starts a pod and its container, and returns when both run.
    pub fn run_pod(&self, spec: &PodSpec) -> Result<Pod> {
        let number = self.pods.fetch_add(1, Ordering::Relaxed);
        let uid = format!("{:08x}-{number:04x}", std::process::id());
        self.run_attempt(spec, &uid, 0)
    }

    /// Ends a pod and removes its sandbox.
    pub fn stop_pod(&self, pod: &Pod) -> Result<()> {
        self.remove_sandbox(&pod.sandbox)
            .with_context(|| format!("stopping the pod {}/{}", pod.spec.namespace, pod.spec.name))
    }

    /// Ends a pod's container at once, as a kubelet does when its liveness probe fails; the sandbox stays.
    pub fn stop_container(&self, pod: &Pod) -> Result<()> {
        let stop = StopContainerRequest {
            container_id: pod.container.clone(),
            timeout: 0,
        };
        let stop = |mut cri: Cri| async move { cri.stop_container(stop).await };
        self.client
            .call_within(TEARDOWN_TIMEOUT, "StopContainer", stop)
            .map(drop)
    }

    /// Gives the same pod a new sandbox, as a kubelet does after the old one died: new addresses, new namespaces.
    pub fn restart_sandbox(&self, pod: &Pod) -> Result<Pod> {
        self.stop_pod(pod)?;
        self.run_attempt(&pod.spec, &pod.uid, pod.attempt + 1)
    }

    /// Runs a command in the pod's container; after `limit`, rounded up to whole seconds, it is killed.
    pub fn exec(&self, pod: &Pod, argv: &[&str], limit: Duration) -> Result<ExecResult> {
        let request = ExecSyncRequest {
            container_id: pod.container.clone(),
            cmd: argv.iter().map(|word| (*word).to_owned()).collect(),
            timeout: limit.as_millis().div_ceil(1000).max(1).try_into()?,
        };
        match self
            .client
            .call("ExecSync", |mut cri| async move { cri.exec_sync(request).await })
        {
            Ok(done) => Ok(ExecResult {
                exit_code: Some(done.exit_code),
                stdout: String::from_utf8_lossy(&done.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
            }),
            Err(e) if e.downcast_ref().is_some_and(is_exec_timeout) => Ok(ExecResult {
                exit_code: None,
                stdout: String::new(),
                stderr: String::new(),
            }),
            Err(e) => Err(e.context(format!("running {argv:?} in the pod {}", pod.spec.name))),
        }
    }

    fn run_attempt(&self, spec: &PodSpec, uid: &str, attempt: u32) -> Result<Pod> {
        let sandbox = spec.sandbox_config(uid, attempt, &self.layout.cgroup());
        self.run_config(spec, uid, sandbox, container_config(spec))
    }

    /// Runs a sandbox and a container in it.
    pub(super) fn run_config(
        &self,
        spec: &PodSpec,
        uid: &str,
        config: PodSandboxConfig,
        container: ContainerConfig,
    ) -> Result<Pod> {
        let attempt = config.metadata.as_ref().map_or(0, |metadata| metadata.attempt);
        self.run_sandbox(&config)
            .and_then(|sandbox| {
                let container = self.run_container(&sandbox.id, container, config)?;
                self.describe(spec, uid, attempt, sandbox, container)
            })
            .with_context(|| {
                format!(
                    "running the pod {}/{}; {}",
                    spec.namespace,
                    spec.name,
                    self.log_tail()
                )
            })
    }

    fn run_sandbox(&self, config: &PodSandboxConfig) -> Result<Sandbox> {
        let request = RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: String::new(),
        };
        let run = |mut cri: Cri| async move { cri.run_pod_sandbox(request).await };
        let id = self.client.call("RunPodSandbox", run)?.pod_sandbox_id;
        let ready = Instant::now();
        self.made_sandboxes().push(id.clone());
        Ok(Sandbox { id, ready })
    }

    fn run_container(
        &self,
        sandbox: &str,
        container: ContainerConfig,
        config: PodSandboxConfig,
    ) -> Result<String> {
        let create = CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(container),
            sandbox_config: Some(config),
        };
        let create = |mut cri: Cri| async move { cri.create_container(create).await };
        let container = self.client.call("CreateContainer", create)?.container_id;
        let start = StartContainerRequest {
            container_id: container.clone(),
        };
        self.client.call("StartContainer", |mut cri| async move {
            cri.start_container(start).await
        })?;
        Ok(container)
    }

    fn describe(
        &self,
        spec: &PodSpec,
        uid: &str,
        attempt: u32,
        sandbox: Sandbox,
        container: String,
    ) -> Result<Pod> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: sandbox.id.clone(),
            verbose: false,
        };
        let status = self.client.call("PodSandboxStatus", |mut cri| async move {
            cri.pod_sandbox_status(request).await
        })?;
        let network = status.status.and_then(|s| s.network).unwrap_or_default();
        let addresses = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|ip| ip.ip));
        let request = ContainerStatusRequest {
            container_id: container.clone(),
            verbose: true,
        };
        let status = self.client.call("ContainerStatus", |mut cri| async move {
            cri.container_status(request).await
        })?;
        let info = status
            .info
            .get("info")
            .context("the container's status has no info")?;
        let info: serde_json::Value = serde_json::from_str(info)?;
        let pid = info["pid"]
            .as_i64()
            .context("the container's info has no pid")?
            .try_into()?;
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).context("the container has ended")?;
        let mut addresses: Vec<_> = addresses
            .filter(|ip| !ip.is_empty())
            .map(|ip| ip.parse())
            .collect::<Result<_, _>>()?;
        addresses.sort();
        Ok(Pod {
            spec: spec.clone(),
            uid: uid.to_owned(),
            attempt,
            sandbox: sandbox.id,
            container,
            addresses,
            pid,
            netns: format!("/proc/{pid}/ns/net").into(),
            cgroup: cgroups
                .lines()
                .find_map(|line| line.strip_prefix("0::"))
                .unwrap_or_default()
                .to_owned(),
            sandbox_ready: sandbox.ready,
        })
    }

    pub(super) fn remove_sandbox(&self, id: &str) -> Result<()> {
        let stop = StopPodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        let stop = |mut cri: Cri| async move { cri.stop_pod_sandbox(stop).await };
        self.client
            .call_within(TEARDOWN_TIMEOUT, "StopPodSandbox", stop)?;
        let remove = RemovePodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        let remove = |mut cri: Cri| async move { cri.remove_pod_sandbox(remove).await };
        self.client
            .call_within(TEARDOWN_TIMEOUT, "RemovePodSandbox", remove)?;
        Ok(())
    }
}

/// The one container of a test's pod.
fn container_config(spec: &PodSpec) -> ContainerConfig {
    let options = NamespaceOption {
        network: if spec.host_network {
            NamespaceMode::Node
        } else {
            NamespaceMode::Pod
        }
        .into(),
        pid: NamespaceMode::Container.into(),
        ..NamespaceOption::default()
    };
    ContainerConfig {
        metadata: Some(ContainerMetadata {
            name: spec.container.clone(),
            attempt: 0,
        }),
        image: Some(ImageSpec { image: IMAGE.into() }),
        command: spec.command.clone(),
        labels: HashMap::from([("io.kubernetes.container.name".into(), spec.container.clone())]),
        linux: Some(LinuxContainerConfig {
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: Some(options),
                ..LinuxContainerSecurityContext::default()
            }),
        }),
        ..ContainerConfig::default()
    }
}

fn is_exec_timeout(status: &Status) -> bool {
    status.code() == Code::DeadlineExceeded || status.message().contains("deadline exceeded")
}

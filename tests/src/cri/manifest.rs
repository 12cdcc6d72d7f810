//! Pods as a manifest describes them, asked for as a kubelet does: with exactly its security context, its mounts and its
//! environment.

use std::collections::HashMap;
use std::fs;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail, ensure};
use sabot_proto::runtime::v1::security_profile::ProfileType;
use sabot_proto::runtime::v1::{
    Capability, ContainerConfig, ContainerMetadata, ImageSpec, Int64Value, KeyValue, LinuxContainerConfig,
    LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, Mount,
    MountPropagation, NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata, SecurityProfile,
};
use serde_json::Value;

use super::{Containerd, Pod, PodSpec};

/// What a kubelet hides from containers that aren't privileged, and what it lets them read alone.
const MASKED: [&str; 9] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/scsi",
    "/sys/firmware",
];
const READONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// A pod template of one container, as it stands in a workload's `spec.template`, and where it is to run.
#[derive(Clone, Debug)]
pub struct ManifestPod {
    pub namespace: String,
    pub name: String,
    pub node: String,
    pub template: Value,
}

impl ManifestPod {
    fn spec(&self) -> &Value {
        &self.template["spec"]
    }

    fn container(&self) -> Result<&Value> {
        match self.spec()["containers"].as_array().map(Vec::as_slice) {
            Some([container]) => Ok(container),
            _ => bail!("a template with one container is needed: {:#}", self.spec()),
        }
    }

    fn namespaces(&self) -> NamespaceOption {
        let of_node = |flag: &str, other: NamespaceMode| {
            if self.spec()[flag] == true {
                NamespaceMode::Node
            } else {
                other
            }
        };
        NamespaceOption {
            network: of_node("hostNetwork", NamespaceMode::Pod).into(),
            pid: of_node("hostPID", NamespaceMode::Container).into(),
            ipc: of_node("hostIPC", NamespaceMode::Pod).into(),
        }
    }

    fn sandbox(&self, uid: &str, cgroup: &str) -> PodSandboxConfig {
        let mut labels = texts(&self.template["metadata"]["labels"]);
        for (key, value) in [
            ("name", self.name.as_str()),
            ("namespace", &self.namespace),
            ("uid", uid),
        ] {
            labels.insert(format!("io.kubernetes.pod.{key}"), value.to_owned());
        }
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: self.name.clone(),
                uid: uid.to_owned(),
                namespace: self.namespace.clone(),
                attempt: 0,
            }),
            labels,
            annotations: texts(&self.template["metadata"]["annotations"]),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("{cgroup}/pod{uid}"),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(self.namespaces()),
                    seccomp: Some(profile(ProfileType::RuntimeDefault)),
                    apparmor: Some(profile(ProfileType::Unconfined)),
                }),
            }),
            ..PodSandboxConfig::default()
        }
    }

    fn container_config(&self) -> Result<ContainerConfig> {
        let container = self.container()?;
        let name = text(container, "name")?;
        Ok(ContainerConfig {
            metadata: Some(ContainerMetadata {
                name: name.clone(),
                attempt: 0,
            }),
            image: Some(ImageSpec {
                image: text(container, "image")?,
            }),
            command: list(&container["command"]),
            args: list(&container["args"]),
            envs: self.environment(container)?,
            mounts: self.mounts(container)?,
            labels: HashMap::from([("io.kubernetes.container.name".to_owned(), name)]),
            linux: Some(LinuxContainerConfig {
                security_context: Some(self.security(container)?),
            }),
            ..ContainerConfig::default()
        })
    }

    fn environment(&self, container: &Value) -> Result<Vec<KeyValue>> {
        entries(&container["env"])
            .map(|entry| {
                let value = match entry["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
                    None => text(entry, "value")?,
                    Some("spec.nodeName") => self.node.clone(),
                    Some(other) => bail!("the field {other} isn't known here"),
                };
                Ok(KeyValue {
                    key: text(entry, "name")?,
                    value,
                })
            })
            .collect()
    }

    fn mounts(&self, container: &Value) -> Result<Vec<Mount>> {
        entries(&container["volumeMounts"])
            .map(|mount| {
                let name = text(mount, "name")?;
                let volume = entries(&self.spec()["volumes"]).find(|volume| volume["name"] == name.as_str());
                let volume = volume.with_context(|| format!("no volume {name}"))?;
                let host_path = text(&volume["hostPath"], "path")?;
                prepare(
                    &host_path,
                    volume["hostPath"]["type"].as_str().unwrap_or_default(),
                )?;
                let propagation = match mount["mountPropagation"].as_str() {
                    None | Some("None") => MountPropagation::PropagationPrivate,
                    Some("HostToContainer") => MountPropagation::PropagationHostToContainer,
                    Some(other) => bail!("the propagation {other} isn't known here"),
                };
                Ok(Mount {
                    container_path: text(mount, "mountPath")?,
                    host_path,
                    readonly: mount["readOnly"] == true,
                    propagation: propagation.into(),
                })
            })
            .collect()
    }

    fn security(&self, container: &Value) -> Result<LinuxContainerSecurityContext> {
        let context = &container["securityContext"];
        let number = |name: &str| context[name].as_i64().map(|value| Int64Value { value });
        let seccomp = match context["seccompProfile"]["type"].as_str() {
            Some("RuntimeDefault") => ProfileType::RuntimeDefault,
            Some("Unconfined") | None => ProfileType::Unconfined,
            Some(other) => bail!("the seccomp profile {other} isn't known here"),
        };
        let privileged = context["privileged"] == true;
        let hidden = |paths: &[&str]| match privileged {
            true => Vec::new(),
            false => paths.iter().map(|&path| path.to_owned()).collect(),
        };
        Ok(LinuxContainerSecurityContext {
            capabilities: Some(Capability {
                add_capabilities: list(&context["capabilities"]["add"]),
                drop_capabilities: list(&context["capabilities"]["drop"]),
            }),
            privileged,
            namespace_options: Some(self.namespaces()),
            run_as_user: number("runAsUser"),
            run_as_group: number("runAsGroup"),
            readonly_rootfs: context["readOnlyRootFilesystem"] == true,
            no_new_privs: context["allowPrivilegeEscalation"] == false,
            masked_paths: hidden(&MASKED),
            readonly_paths: hidden(&READONLY),
            seccomp: Some(profile(seccomp)),
            apparmor: Some(profile(ProfileType::Unconfined)),
        })
    }
}

impl Containerd {
    /// Runs a manifest's pod, and returns when its container runs.
    ///
    /// # Errors
    ///
    /// The manifest says what this kubelet doesn't know, or the runtime refuses it; with its log.
    pub fn run_manifest(&self, pod: &ManifestPod) -> Result<Pod> {
        let number = self.pods.fetch_add(1, Ordering::Relaxed);
        let uid = format!("{:08x}-{number:04x}", std::process::id());
        let sandbox = pod.sandbox(&uid, &self.layout.cgroup());
        let spec = PodSpec {
            host_network: pod.spec()["hostNetwork"] == true,
            ..PodSpec::idle(&pod.namespace, &pod.name)
        };
        self.run_config(&spec, &uid, sandbox, pod.container_config()?)
    }
}

/// What a volume's type asks for.
fn prepare(path: &str, kind: &str) -> Result<()> {
    use std::os::unix::fs::FileTypeExt;
    let kind_of = |path: &str| fs::metadata(path).map(|metadata| metadata.file_type());
    match kind {
        "DirectoryOrCreate" => {
            fs::create_dir_all(path).with_context(|| format!("making {path}"))?;
        }
        "Directory" => ensure!(kind_of(path)?.is_dir(), "{path} is no directory"),
        "CharDevice" => ensure!(kind_of(path)?.is_char_device(), "{path} is no device"),
        other => bail!("the volume type `{other}` isn't known here"),
    }
    Ok(())
}

fn profile(kind: ProfileType) -> SecurityProfile {
    SecurityProfile {
        profile_type: kind.into(),
        localhost_ref: String::new(),
    }
}

fn entries(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn list(value: &Value) -> Vec<String> {
    let texts = entries(value).filter_map(|entry| entry.as_str());
    texts.map(str::to_owned).collect()
}

fn texts(value: &Value) -> HashMap<String, String> {
    let entries = value.as_object().into_iter().flatten();
    let texts = entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    texts.collect()
}

fn text(value: &Value, field: &str) -> Result<String> {
    let text = value[field].as_str();
    text.map(str::to_owned)
        .with_context(|| format!("`{field}` is missing: {value}"))
}

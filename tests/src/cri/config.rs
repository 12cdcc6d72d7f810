//! What is written for a private containerd: its configuration and that of its one CNI network.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

use super::image::IMAGE;

pub(super) const CNI_PLUGINS: &str = "/usr/lib/cni";

/// Where everything of one containerd lies.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) root: PathBuf,
    /// Unique on this machine: names the network and the cgroups.
    pub(super) id: String,
}

impl Layout {
    pub(super) fn socket(&self) -> PathBuf {
        self.root.join("containerd.sock")
    }

    pub(super) fn config(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.root.join("containerd.log")
    }

    pub(super) fn image(&self) -> PathBuf {
        self.root.join("image.tar")
    }

    pub(super) fn node(&self) -> PathBuf {
        self.root.join("node")
    }

    /// The directory of what the shims run.
    pub(super) fn bundles(&self) -> PathBuf {
        self.root.join("state/io.containerd.runtime.v2.task/k8s.io")
    }

    fn cni(&self) -> PathBuf {
        self.root.join("cni")
    }

    /// The cgroup above those of all pods.
    pub(super) fn cgroup(&self) -> String {
        format!("/{}", self.id)
    }

    pub(super) fn write(&self) -> Result<()> {
        write(&self.config(), &self.containerd_config())?;
        fs::create_dir_all(self.cni()).context("creating the CNI directory")?;
        let network = serde_json::to_string_pretty(&self.cni_network())?;
        write(&self.cni().join("10-bridge.conflist"), &network)
    }

    fn containerd_config(&self) -> String {
        let dir = self.root.display();
        let socket = self.socket();
        format!(
            r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.restart",
]

[grpc]
address = "{socket}"

[plugins."io.containerd.internal.v1.opt"]
path = "{dir}/opt"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{IMAGE}"
# Without CAP_SYS_RESOURCE a score can't be lowered, and runc would fail.
restrict_oom_score_adj = true
disable_apparmor = true
# Otherwise the pods' namespaces are mounted under /var/run, where a killed test would leave them.
netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI_PLUGINS}"
conf_dir = "{cni}"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
Root = "{dir}/runc"
"#,
            socket = socket.display(),
            cni = self.cni().display(),
        )
    }

    fn cni_network(&self) -> serde_json::Value {
        json!({
            "cniVersion": "0.4.0",
            "name": self.id,
            "plugins": [{
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": self.root.join("ipam"),
                    "ranges": [[{"subnet": "10.88.0.0/16"}], [{"subnet": "fd00:88::/64"}]],
                    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
                },
            }],
        })
    }
}

fn write(path: &Path, content: &str) -> Result<()> {
    fs::write(path, content).with_context(|| format!("writing {}", path.display()))
}

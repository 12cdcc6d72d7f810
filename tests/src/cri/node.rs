//! The node of a private runtime: a network namespace that nobody else uses, named by a file.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// Unmounted on drop; the namespace goes with its last process.
#[derive(Debug)]
pub(super) struct Node {
    path: PathBuf,
}

impl Node {
    /// Makes the namespace and mounts it on the new file `path`.
    pub(super) fn create(path: PathBuf) -> Result<Self> {
        File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        let target = path.clone();
        let unshared = thread::spawn(move || -> Result<()> {
            unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace")?;
            mount(
                Some("/proc/thread-self/ns/net"),
                &target,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )
            .with_context(|| format!("mounting a network namespace on {}", target.display()))
        });
        unshared
            .join()
            .map_err(|_| anyhow!("the thread that makes the namespace panicked"))??;
        let node = Self { path };
        let up = node
            .command("ip")
            .args(["link", "set", "lo", "up"])
            .status()
            .context("running ip")?;
        ensure!(up.success(), "`ip link set lo up` failed in the node's namespace");
        Ok(node)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A command that runs inside. `ip netns exec` would hide /sys/fs/cgroup.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.path.display()))
            .arg("--")
            .arg(program);
        command
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Already unmounted is as good.
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
    }
}

//! What a machine needs for a private containerd.

use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use nix::unistd::geteuid;

use super::config::CNI_PLUGINS;
use super::image::BUSYBOX;

/// Everything that is needed and not there, in one error.
pub(super) fn check() -> Result<()> {
    ensure!(geteuid().is_root(), "a private containerd needs root");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = |program: &str| std::env::split_paths(&path).any(|dir| dir.join(program).exists());
    let present = |file: &str| match file.strip_prefix('/') {
        Some(_) => Path::new(file).exists(),
        None => on_path(file),
    };
    let bridge = format!("{CNI_PLUGINS}/bridge");
    let needs = [
        ("containerd", "containerd"),
        ("ctr", "containerd"),
        ("containerd-shim-runc-v2", "containerd"),
        ("runc", "runc"),
        (bridge.as_str(), "containernetworking-plugins"),
        (BUSYBOX, "busybox-static"),
        ("ip", "iproute2"),
        ("nsenter", "util-linux"),
    ];
    let missing: Vec<_> = needs.iter().filter(|(file, _)| !present(file)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let files: Vec<_> = missing.iter().map(|(file, _)| *file).collect();
    let mut packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    packages.dedup();
    Err(anyhow!(
        "missing for a private containerd: {}; run `apt-get install --no-install-recommends {}`",
        files.join(", "),
        packages.join(" ")
    ))
}

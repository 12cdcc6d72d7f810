//! Debian's packages, through apt-get.

use std::process::Command;

use anyhow::{Result, bail};

use crate::process;
use crate::ui::Step;

/// Why this machine's packages can't be installed by us.
pub(crate) fn refusal() -> Option<&'static str> {
    if process::find_program("apt-get").is_none() {
        Some("this system has no apt-get")
    } else if !process::is_root() {
        Some("installing packages needs root")
    } else {
        None
    }
}

/// Installs packages, after one look for newer lists.
///
/// # Errors
///
/// Names the packages that no configured archive has, or holds what apt-get said.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let update = Step::start("apt-get update");
    match process::run_quietly(&update, apt_get().arg("update")) {
        Ok(()) => update.done("package lists are current"),
        // An unreachable mirror doesn't matter if the lists and the packages are here already.
        Err(_) => update.failed("didn't succeed; going on with the lists that are here"),
    }
    let unknown: Vec<&str> = packages
        .iter()
        .copied()
        .filter(|package| !is_known(package))
        .collect();
    if !unknown.is_empty() {
        bail!("no package archive of this system has {}", unknown.join(", "));
    }
    let step = Step::start(&format!("apt-get install {}", packages.join(" ")));
    let mut command = apt_get();
    command
        .args(["install", "--yes", "--no-install-recommends"])
        .args(packages);
    match process::run_quietly(&step, &mut command) {
        Ok(()) => step.done("installed"),
        Err(error) => {
            step.failed("failed");
            return Err(error);
        }
    }
    Ok(())
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        // Another apt-get that runs now is waited for.
        .args(["--option", "DPkg::Lock::Timeout=300"]);
    command
}

fn is_known(package: &str) -> bool {
    process::succeeds(Command::new("apt-cache").args(["show", "--no-all-versions", package]))
}

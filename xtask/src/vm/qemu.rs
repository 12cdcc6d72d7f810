//! A qemu that runs these guests without KVM.
//!
//! One from 8 on: Debian 12's 7.2 corrupts newer guests when the machine is busy. Where the machine has none, its suite's
//! backports have one, which is unpacked into the cache and not installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::apt::{self, Apt, Archive, Suite};
use crate::process;
use crate::ui::{self, Step};

const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";
const OLDEST: u32 = 8;
/// Where the packages have their libraries, and what the machine itself is made of.
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
const FIRMWARE: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];

/// qemu, wherever it is.
pub(super) struct Qemu {
    program: PathBuf,
    /// What it was unpacked into; `None` for one that is installed.
    root: Option<PathBuf>,
}

impl Qemu {
    /// The machine's own, or the cache's, fetched before if it isn't there.
    ///
    /// # Errors
    ///
    /// There is none, and none can be fetched.
    pub(super) fn get(cache: &Path) -> Result<Self> {
        let installed = process::find_program(PROGRAM).map(|program| Self { program, root: None });
        if let Some(qemu) = installed
            && let Ok(version) = qemu.version()
            && major(&version).is_some_and(|major| major >= OLDEST)
        {
            ui::found("qemu", &version);
            return Ok(qemu);
        }
        let root = cache.join("qemu");
        if !root.is_dir() {
            fetch(cache, &root)?;
        }
        let qemu = Self {
            program: root.join("usr/bin").join(PROGRAM),
            root: Some(root),
        };
        let version = qemu.version()?;
        ui::found("qemu", &format!("{version}, {}", qemu.program.display()));
        Ok(qemu)
    }

    pub(super) fn command(&self) -> Command {
        // Guests are for whoever has time: whatever else runs here comes first.
        let mut command = Command::new("nice");
        command.args(["-n", "10"]).arg(&self.program);
        if let Some(root) = &self.root {
            let libraries = LIBRARIES.map(|folder| root.join(folder).display().to_string());
            command.env("LD_LIBRARY_PATH", libraries.join(":"));
            for folder in FIRMWARE {
                command.arg("-L").arg(root.join(folder));
            }
        }
        command
    }

    fn version(&self) -> Result<String> {
        let text = apt::output(self.command().arg("--version"))?;
        let line = text.lines().next().unwrap_or_default();
        Ok(line.trim_start_matches("QEMU emulator version ").to_owned())
    }
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

fn fetch(cache: &Path, root: &Path) -> Result<()> {
    let text = fs::read_to_string("/etc/os-release").context("/etc/os-release can't be read")?;
    let Some(codename) = codename(&text) else {
        bail!("this machine has no {PROGRAM} from {OLDEST} on, and isn't Debian: install one");
    };
    let backports = format!("{codename}-backports");
    let suites = [
        Suite::new(Archive::Main, codename),
        Suite::new(Archive::Security, &format!("{codename}-security")),
        Suite::new(Archive::Main, &backports),
    ];
    let apt = Apt::with(&cache.join("apt/qemu"), &suites)?;
    fs::create_dir_all(cache)?;
    let scratch = tempfile::tempdir_in(cache)?;
    let (archives, unpacked) = (scratch.path().join("archives"), scratch.path().join("root"));
    let step = Step::start(&format!("fetch {PACKAGE} of {backports}"));
    apt.download_with_needs(&step, &backports, PACKAGE, &archives)?;
    for package in apt::packages(&archives)? {
        apt::unpack(&package, &unpacked)?;
    }
    fs::rename(&unpacked, root).with_context(|| format!("{} can't be made", root.display()))?;
    step.done(&root.display().to_string());
    Ok(())
}

/// Of `/etc/os-release`; `None` where it isn't Debian's.
fn codename(text: &str) -> Option<&str> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.strip_prefix('=')?.trim_matches('"'))
    };
    (field("ID")? == "debian").then(|| field("VERSION_CODENAME"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_a_major_number() {
        assert_eq!(major("10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)"), Some(10));
        assert_eq!(major("unknown"), None);
    }

    #[test]
    fn only_debian_has_a_codename_for_us() {
        assert_eq!(
            codename("ID=debian\nVERSION_CODENAME=bookworm\n"),
            Some("bookworm")
        );
        assert_eq!(codename("ID=\"fedora\"\nVERSION_CODENAME=\"\"\n"), None);
        assert_eq!(codename(""), None);
    }
}

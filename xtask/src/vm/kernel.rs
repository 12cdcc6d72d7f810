//! Debian's kernels, fetched and unpacked but never installed.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::apt::{self, Apt, Archive, Suite};
use crate::ui::{self, Step};

/// A line of kernels, what Debian publishes of it, and what it can't do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    /// As `--kernel` takes it, and how the release begins.
    pub(super) version: &'static str,
    suites: &'static [(Archive, &'static str)],
    /// The features that GetNode may say are missing, and what else tests may do without. Of all others a test fails that
    /// finds them missing.
    pub(super) may_lack: &'static [&'static str],
}

pub(super) const FAMILIES: [Family; 4] = [
    Family {
        version: "5.10",
        suites: &[(Archive::Security, "bullseye-security")],
        may_lack: &[
            "tcx",
            "atomics",
            "departures",
            "tcp_tracepoints",
            "drop_reasons",
            "dns_queries",
            "ingress_ifindex",
        ],
    },
    Family {
        version: "6.1",
        suites: &[
            (Archive::Main, "bookworm"),
            (Archive::Security, "bookworm-security"),
        ],
        may_lack: &["tcx"],
    },
    Family {
        version: "6.12",
        suites: &[(Archive::Main, "bookworm-backports")],
        may_lack: &[],
    },
    Family {
        version: "7.2",
        suites: &[(Archive::Main, "trixie-backports")],
        may_lack: &[],
    },
];

/// An unpacked kernel.
pub(super) struct Kernel {
    /// As `uname -r`.
    pub(super) release: String,
    pub(super) image: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    /// The family's kernel in the cache, fetched before if it isn't there.
    ///
    /// # Errors
    ///
    /// It can't be fetched.
    pub(super) fn get(family: &Family, cache: &Path) -> Result<Self> {
        let folder = cache.join(family.version);
        if !folder.is_dir() {
            fetch(family, cache, &folder)?;
        }
        let kernel = Self::find(&folder)?;
        ui::found(&format!("Linux {}", family.version), &kernel.release);
        Ok(kernel)
    }

    /// Newer packages have everything below `usr/lib/modules`, older ones have the image in `boot`.
    fn find(folder: &Path) -> Result<Self> {
        let places = ["usr/lib/modules", "lib/modules"].map(|place| folder.join(place));
        let places = places.iter().filter_map(|place| fs::read_dir(place).ok());
        let modules = places.flatten().flatten().map(|entry| entry.path()).next();
        let modules = modules.with_context(|| format!("{} has no modules", folder.display()))?;
        let release = modules
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let images = [
            modules.join("vmlinuz"),
            folder.join(format!("boot/vmlinuz-{release}")),
        ];
        let image = images.into_iter().find(|image| image.is_file());
        Ok(Self {
            image: image.with_context(|| format!("{} has no kernel image", folder.display()))?,
            release,
            modules,
        })
    }

    /// Some modules with all that they need, in the order in which they can be loaded. What is built in isn't a module.
    ///
    /// # Errors
    ///
    /// A module can't be read.
    pub(super) fn modules(&self, wanted: &[&str]) -> Result<Vec<Module>> {
        let mut files = BTreeMap::new();
        index(&self.modules.join("kernel"), &mut files)?;
        let mut ordered = Vec::new();
        for name in wanted {
            add(name, &files, &mut ordered)?;
        }
        Ok(ordered)
    }
}

/// A kernel module, ready for `insmod`.
pub(super) struct Module {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

fn add(name: &str, files: &BTreeMap<String, PathBuf>, ordered: &mut Vec<Module>) -> Result<()> {
    if ordered.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let Some(file) = files.get(name) else {
        return Ok(());
    };
    let bytes = read_module(file)?;
    for need in needs(&bytes) {
        add(&need, files, ordered)?;
    }
    ordered.push(Module {
        name: name.to_owned(),
        bytes,
    });
    Ok(())
}

/// Every module's file by the module's name, in which dashes are underscores.
fn index(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("{} can't be read", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            index(&path, files)?;
            continue;
        }
        let file = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let stem = file.strip_suffix(".ko").or_else(|| file.strip_suffix(".ko.xz"));
        if let Some(stem) = stem {
            files.insert(stem.replace('-', "_"), path);
        }
    }
    Ok(())
}

fn read_module(file: &Path) -> Result<Vec<u8>> {
    if file.extension().is_some_and(|extension| extension == "xz") {
        let mut xz = Command::new("xz");
        xz.args(["--decompress", "--stdout"]).arg(file);
        let output = xz.output().context("xz can't be started")?;
        ensure!(output.status.success(), "xz can't unpack {}", file.display());
        return Ok(output.stdout);
    }
    fs::read(file).with_context(|| format!("{} can't be read", file.display()))
}

/// The modules that one names in its `.modinfo`, where strings follow each other with a zero between them.
fn needs(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let list = module[at + KEY.len()..].split(|byte| *byte == 0).next();
    let list = String::from_utf8_lossy(list.unwrap_or_default()).replace('-', "_");
    list.split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Fetches the newest kernel of a family. What is half unpacked never looks like a kernel.
fn fetch(family: &Family, cache: &Path, folder: &Path) -> Result<()> {
    let suites: Vec<Suite> = family
        .suites
        .iter()
        .map(|(archive, name)| Suite::new(*archive, name))
        .collect();
    let apt = Apt::with(&cache.join("apt").join(family.version), &suites)?;
    let names = apt.names(&format!("linux-image-{}.", family.version))?;
    let newest = names
        .iter()
        .filter_map(|name| Some((release(name, family.version)?, name)))
        .max_by(|a, b| by_version(a.0, b.0));
    let (release, image) = newest.with_context(|| {
        let names: Vec<&str> = family.suites.iter().map(|(_, name)| *name).collect();
        format!("{} has no Linux {}", names.join(", "), family.version)
    })?;
    // Newer packages are split: the image of the name of old is empty, and needs those that aren't.
    let mut packages = apt.depends(image)?;
    packages.retain(|name| name.starts_with("linux-") && name.ends_with(release));
    packages.push(image.clone());

    fs::create_dir_all(cache)?;
    let scratch = tempfile::tempdir_in(cache)?;
    let (archives, root) = (scratch.path().join("archives"), scratch.path().join("root"));
    fs::create_dir(&archives)?;
    let step = Step::start(&format!("fetch Linux {release}"));
    apt.download(&step, &packages, &archives)?;
    for package in apt::packages(&archives)? {
        apt::unpack(&package, &root)?;
    }
    fs::rename(&root, folder).with_context(|| format!("{} can't be made", folder.display()))?;
    step.done(&folder.display().to_string());
    Ok(())
}

/// The release of an image package of the usual flavour: neither the cloud's, real-time, nor unsigned.
fn release<'a>(package: &'a str, version: &str) -> Option<&'a str> {
    let release = package.strip_prefix("linux-image-")?;
    let usual = release.strip_suffix("-amd64")?;
    // Of backports the flavour stands behind the distribution's number.
    let (numbers, behind) = usual.split_once('+').unwrap_or((usual, ""));
    let is_usual = !behind.contains('-');
    let is_plain = numbers
        .split(['.', '-'])
        .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    let is_of_family = usual
        .strip_prefix(version)
        .is_some_and(|rest| rest.starts_with('.'));
    (is_usual && is_plain && is_of_family).then_some(release)
}

/// By the numbers in it, one after the other.
fn by_version(a: &str, b: &str) -> Ordering {
    let numbers = |text: &str| -> Vec<u64> {
        text.split(|character: char| !character.is_ascii_digit())
            .filter_map(|part| part.parse().ok())
            .collect()
    };
    numbers(a).cmp(&numbers(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_usual_flavour_of_the_family_is_taken() {
        let is = |package| release(package, "6.1").is_some();
        assert!(is("linux-image-6.1.0-56-amd64"));
        assert!(!is("linux-image-6.1.0-56-cloud-amd64"));
        assert!(!is("linux-image-6.1.0-56-amd64-dbg"));
        assert!(!is("linux-image-6.1.0-56-rt-amd64"));
        assert!(!is("linux-image-6.1-amd64"));
        assert!(!is("linux-image-6.12.95+deb12-amd64"));
        assert!(release("linux-image-6.12.95+deb12-amd64", "6.12").is_some());
        for flavour in ["cloud", "rt"] {
            let package = format!("linux-image-6.12.95+deb12-{flavour}-amd64");
            assert_eq!(release(&package, "6.12"), None, "{package}");
        }
        // Debian 11's build of 6.1 has the compiler of Debian 11.
        assert!(!is("linux-image-6.1.0-0.deb11.52-amd64"));
    }

    #[test]
    fn versions_are_numbers() {
        assert_eq!(
            by_version("7.2.9+deb13-amd64", "7.2.12+deb13-amd64"),
            Ordering::Less
        );
        assert_eq!(by_version("5.10.0-9-amd64", "5.10.0-46-amd64"), Ordering::Less);
    }

    #[test]
    fn modules_name_what_they_need() {
        let module = b"\x7fELF\0license=GPL\0depends=bridge,nf-tables\0name=x\0";
        assert_eq!(needs(module), ["bridge", "nf_tables"]);
        assert!(needs(b"\0depends=\0name=x\0").is_empty());
        assert!(needs(b"nothing").is_empty());
    }
}

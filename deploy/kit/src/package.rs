//! Packages for plain machines: a Debian package and a tarball of the same files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::image::VERSION;
use crate::oci::{self, Layer, architecture};

/// An archive of archives, as `ar` writes them: that is what a Debian package is.
const AR: &[u8] = b"!<arch>\n";

/// The service is neither enabled nor started: whoever installs a fault injector says when it runs.
const POSTINST: &str = "#!/bin/sh\nset -e\nif [ -d /run/systemd/system ]; then systemctl daemon-reload; fi\n";
/// Before its files go: what the daemon has in force ends with it.
const PRERM: &str = "#!/bin/sh\nset -e\nif [ \"$1\" = remove ] && [ -d /run/systemd/system ]; then\n    \
                     systemctl --no-reload disable --now sabotd.service\nfi\n";
const POSTRM: &str = "#!/bin/sh\nset -e\nif [ -d /run/systemd/system ]; then systemctl daemon-reload; fi\n";

/// Kept as the user changed it when a newer package is installed.
const CONFIGURATION: &str = "etc/sabot/sabotd.toml";

/// The binaries, and the repository that they were built from.
pub struct Content<'a> {
    pub sabotd: &'a Path,
    pub sabot: &'a Path,
    pub repository: &'a Path,
}

/// A file of the package: its mode and its content.
type Files = BTreeMap<String, (u32, Vec<u8>)>;

/// Writes `sabot_VERSION_ARCHITECTURE.deb` into a folder.
///
/// # Errors
///
/// A file can't be read, or the package can't be written.
pub fn write_deb(content: &Content<'_>, folder: &Path) -> Result<PathBuf> {
    let files = files(content)?;
    let installed: usize = files.values().map(|(_, text)| text.len()).sum();
    let control = control(&c_library()?, installed);
    let mut scripts = Files::from([
        ("control".to_owned(), (0o644, control.into_bytes())),
        (
            "conffiles".to_owned(),
            (0o644, format!("/{CONFIGURATION}\n").into_bytes()),
        ),
    ]);
    for (name, text) in [("postinst", POSTINST), ("prerm", PRERM), ("postrm", POSTRM)] {
        scripts.insert(name.to_owned(), (0o755, text.as_bytes().to_vec()));
    }
    let mut package = AR.to_vec();
    for (name, member) in [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.gz", archive("./", &scripts)?),
        ("data.tar.gz", archive("./", &files)?),
    ] {
        append_member(&mut package, name, &member);
    }
    let path = folder.join(format!("sabot_{VERSION}_{}.deb", architecture()));
    oci::replace(&path, &package)?;
    Ok(path)
}

/// Writes `sabot-VERSION-linux-ARCHITECTURE.tar.gz` into a folder: one folder, with the files as they lie below `/`.
///
/// # Errors
///
/// A file can't be read, or the tarball can't be written.
pub fn write_tarball(content: &Content<'_>, folder: &Path) -> Result<PathBuf> {
    let name = format!("sabot-{VERSION}-linux-{}", architecture());
    let path = folder.join(format!("{name}.tar.gz"));
    oci::replace(&path, &archive(&format!("{name}/"), &files(content)?)?)?;
    Ok(path)
}

fn files(content: &Content<'_>) -> Result<Files> {
    let deploy = content.repository.join("deploy");
    let mut files = Files::new();
    for (place, mode, from) in [
        ("usr/bin/sabotd", 0o755, content.sabotd.to_owned()),
        ("usr/bin/sabot", 0o755, content.sabot.to_owned()),
        (
            "usr/lib/systemd/system/sabotd.service",
            0o644,
            deploy.join("systemd/sabotd.service"),
        ),
        (CONFIGURATION, 0o644, deploy.join("systemd/sabotd.toml")),
    ] {
        files.insert(place.to_owned(), (mode, oci::read(&from)?));
    }
    for name in [
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "ebpf/LICENSE-GPL-2.0",
        "README.md",
    ] {
        let from = content.repository.join(name);
        let name = from.file_name().unwrap_or_default().to_string_lossy();
        files.insert(format!("usr/share/doc/sabot/{name}"), (0o644, oci::read(&from)?));
    }
    for folder in ["scenarios", "scenarios/cluster", "prometheus", "grafana"] {
        let folder = deploy.join(folder);
        let listing = || format!("listing {}", folder.display());
        for entry in folder.read_dir().with_context(listing)? {
            let from = entry.with_context(listing)?.path();
            if from.is_file() {
                let place = from.strip_prefix(&deploy).unwrap_or(&from).display();
                let place = format!("usr/share/doc/sabot/examples/{place}");
                files.insert(place, (0o644, oci::read(&from)?));
            }
        }
    }
    Ok(files)
}

/// A compressed archive of files and their folders, below `root`; in `usr/bin` also `kubectl-sabot`, by which kubectl
/// finds the client.
fn archive(root: &str, files: &Files) -> Result<Vec<u8>> {
    let mut layer = Layer::default();
    layer.directory(root, 0o755)?;
    let mut made = std::collections::BTreeSet::new();
    for (path, (mode, text)) in files {
        let outer: Vec<_> = Path::new(path).ancestors().skip(1).collect();
        for folder in outer.into_iter().rev().filter(|folder| *folder != Path::new("")) {
            if made.insert(folder.to_owned()) {
                layer.directory(&format!("{root}{}", folder.display()), 0o755)?;
            }
        }
        layer.file(&format!("{root}{path}"), *mode, text)?;
    }
    if made.contains(Path::new("usr/bin")) {
        layer.link(&format!("{root}usr/bin/kubectl-sabot"), "sabot")?;
    }
    oci::gzip(&layer.finish()?)
}

/// A member's header has 60 bytes of text; members begin at even places.
fn append_member(package: &mut Vec<u8>, name: &str, member: &[u8]) {
    let header = format!(
        "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n",
        0,
        0,
        0,
        "100644",
        member.len()
    );
    package.extend_from_slice(header.as_bytes());
    package.extend_from_slice(member);
    if member.len() % 2 == 1 {
        package.push(b'\n');
    }
}

fn control(c_library: &str, installed: usize) -> String {
    format!(
        "Package: sabot\n\
         Version: {VERSION}\n\
         Architecture: {}\n\
         Maintainer: The Sabot authors <sabot@sabot.dev>\n\
         Installed-Size: {}\n\
         Depends: libc6 (>= {c_library}), libgcc-s1\n\
         Section: net\n\
         Priority: optional\n\
         Description: network fault injector and observer for Kubernetes and plain Linux\n \
         sabotd injects network faults into pods, network namespaces and devices of a\n \
         node by eBPF, and shows what they do; sabot is its client.\n",
        architecture(),
        installed.div_ceil(1024),
    )
}

/// The version of the C library that the binaries were linked with, so that an older one isn't tried.
fn c_library() -> Result<String> {
    let output = Command::new("ldd")
        .arg("--version")
        .env("LC_ALL", "C")
        .output()
        .context("`ldd` can't be started; on Debian it is in libc-bin")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    last_word(&text).with_context(|| format!("`ldd --version` tells no version: {text}"))
}

/// The first line ends with the version, as `ldd (Debian GLIBC 2.36-9) 2.36`.
fn last_word(text: &str) -> Option<String> {
    let word = text.lines().next()?.split(' ').next_back()?;
    word.starts_with(|c: char| c.is_ascii_digit())
        .then(|| word.to_owned())
}

#[cfg(test)]
mod tests;

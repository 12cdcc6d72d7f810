//! A container image made by hand, because a test has no registry: busybox, its applets and `/pause`.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Its name in the image store; sandboxes and workloads use the same image.
pub(super) const IMAGE: &str = "sabot.test/busybox:latest";
pub(super) const BUSYBOX: &str = "/bin/busybox";

/// Long enough for any test; Debian's busybox knows no `sleep infinity`.
const PAUSE: &str = "#!/bin/sh\nexec sleep 2147483647\n";

/// Writes an OCI image archive to `path`.
pub(super) fn write_archive(path: &Path, applets: &[String]) -> Result<()> {
    let layer = layer(applets)?;
    let layer_digest = digest(&layer);
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "Env": ["PATH=/bin"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
        "history": [{"created_by": "sabot-testkit"}],
    });
    let config = serde_json::to_vec(&config)?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    }))?;
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    entry["annotations"] = json!({"io.containerd.image.name": IMAGE});
    let index = json!({"schemaVersion": 2, "manifests": [entry]});

    let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
    let mut archive = tar::Builder::new(file);
    append_file(
        &mut archive,
        "oci-layout",
        0o644,
        br#"{"imageLayoutVersion":"1.0.0"}"#,
    )?;
    append_file(&mut archive, "index.json", 0o644, &serde_json::to_vec(&index)?)?;
    for blob in [&layer, &config, &manifest] {
        let name = format!("blobs/sha256/{}", hex(blob));
        append_file(&mut archive, &name, 0o644, blob)?;
    }
    archive.finish().context("finishing the image archive")
}

/// The one layer: `/bin/busybox`, a link for each applet, `/pause`, and directories to write to.
fn layer(applets: &[String]) -> Result<Vec<u8>> {
    let busybox = fs::read(BUSYBOX).with_context(|| format!("reading {BUSYBOX}"))?;
    ensure!(
        is_static(&busybox),
        "{BUSYBOX} is dynamically linked and can't run in an image of its own; apt-get install busybox-static"
    );
    let mut archive = tar::Builder::new(Vec::new());
    for directory in ["bin/", "dev/", "etc/", "proc/", "sys/", "tmp/", "www/"] {
        let mut header = header(0o755, 0);
        header.set_entry_type(tar::EntryType::Directory);
        archive.append_data(&mut header, directory, std::io::empty())?;
    }
    append_file(&mut archive, "bin/busybox", 0o755, &busybox)?;
    append_file(&mut archive, "pause", 0o755, PAUSE.as_bytes())?;
    for applet in applets.iter().filter(|name| *name != "busybox") {
        let mut header = header(0o777, 0);
        header.set_entry_type(tar::EntryType::Symlink);
        archive.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
    }
    archive.into_inner().context("finishing the image layer")
}

fn append_file<W: std::io::Write>(
    archive: &mut tar::Builder<W>,
    name: &str,
    mode: u32,
    mut content: &[u8],
) -> Result<()> {
    let mut header = header(mode, content.len() as u64);
    archive
        .append_data(&mut header, name, content.by_ref())
        .with_context(|| format!("adding {name} to an archive"))
}

fn header(mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(size);
    header
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(blob), "size": blob.len()})
}

fn digest(blob: &[u8]) -> String {
    format!("sha256:{}", hex(blob))
}

fn hex(blob: &[u8]) -> String {
    Sha256::digest(blob)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Go's name for this machine.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// An ELF file of 64 bits without a program header of type `PT_INTERP`.
fn is_static(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, size: usize| -> Option<usize> {
        let bytes = elf.get(at..at + size)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0, |value, byte| value << 8 | usize::from(*byte)),
        )
    };
    let headers = || {
        let (offset, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        (0..count)
            .map(|i| number(offset + i * size, 4))
            .collect::<Option<Vec<_>>>()
    };
    elf.starts_with(b"\x7fELF\x02") && headers().is_some_and(|kinds| !kinds.contains(&(PT_INTERP as usize)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linkage_is_read_from_the_headers() {
        // The test binary is dynamically linked.
        assert!(!is_static(&fs::read("/proc/self/exe").unwrap()));
        assert!(!is_static(b"#!/bin/sh\n"));
        assert!(is_static(&fs::read(BUSYBOX).unwrap()));
    }
}

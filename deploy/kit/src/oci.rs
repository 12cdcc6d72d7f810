//! Container images of one layer, and archives of them that containerd, `kind` and Docker take alike.
//!
//! The same content makes the same bytes: there is no time in an image, and everything belongs to root.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A layer as it grows. Entries stay in the order in which they are added.
pub struct Layer(tar::Builder<Vec<u8>>);

impl Default for Layer {
    fn default() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }
}

impl Layer {
    /// A directory; `path` has no leading slash.
    ///
    /// # Errors
    ///
    /// The path doesn't fit into an archive.
    pub fn directory(&mut self, path: &str, mode: u32) -> Result<()> {
        let mut header = header(mode, 0);
        header.set_entry_type(tar::EntryType::Directory);
        let path = format!("{}/", path.trim_end_matches('/'));
        self.0
            .append_data(&mut header, &path, std::io::empty())
            .with_context(|| format!("adding the directory {path} to a layer"))
    }

    /// A file with its content.
    ///
    /// # Errors
    ///
    /// The path doesn't fit into an archive.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        append(&mut self.0, path, mode, content)
    }

    /// A symbolic link.
    ///
    /// # Errors
    ///
    /// A path doesn't fit into an archive.
    pub fn link(&mut self, path: &str, target: &str) -> Result<()> {
        let mut header = header(0o777, 0);
        header.set_entry_type(tar::EntryType::Symlink);
        self.0
            .append_link(&mut header, path, target)
            .with_context(|| format!("adding the link {path} to a layer"))
    }

    /// The layer's archive.
    ///
    /// # Errors
    ///
    /// Never in practice: it is written to memory.
    pub fn finish(self) -> Result<Vec<u8>> {
        self.0.into_inner().context("finishing a layer")
    }
}

/// An image: its name, how it runs, and its only layer.
pub struct Image {
    /// As `example.org/sabot:0.1.0`: with a registry and a tag, or tools would add their own.
    pub name: String,
    pub entrypoint: Vec<String>,
    pub environment: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub layer: Layer,
    /// Smaller, but it takes a while.
    pub compressed: bool,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Of the manifest: what a registry would call the image.
    pub digest: String,
    /// Bytes of the archive.
    pub archive: u64,
    /// Bytes of the layer as it is unpacked on a node.
    pub unpacked: u64,
}

impl Image {
    /// Writes an OCI image layout as one archive, with Docker's `manifest.json` beside the index. The file is complete
    /// when it appears.
    ///
    /// # Errors
    ///
    /// The file can't be written.
    pub fn write(self, path: &Path) -> Result<Written> {
        let layer = self.layer.finish()?;
        let config = serde_json::to_vec(&json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "Entrypoint": self.entrypoint,
                "Env": self.environment,
                "Labels": self.labels,
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
            "history": [{"created_by": "sabot"}],
        }))?;
        let unpacked = layer.len() as u64;
        let (kind, layer) = if self.compressed {
            (format!("{LAYER}+gzip"), gzip(&layer)?)
        } else {
            (LAYER.to_owned(), layer)
        };
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config),
            "layers": [descriptor(&kind, &layer)],
        }))?;
        let blobs = [&layer, &config, &manifest];
        let archive = archive(&self.name, blobs)?;
        replace(path, &archive)?;
        Ok(Written {
            digest: digest(&manifest),
            archive: archive.len() as u64,
            unpacked,
        })
    }
}

/// Puts a layer, its image's configuration and manifest into one archive.
fn archive(name: &str, [layer, config, manifest]: [&Vec<u8>; 3]) -> Result<Vec<u8>> {
    let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    let mut entry = descriptor(MANIFEST, manifest);
    // The first for containerd, the second for tools that keep to the layout's specification.
    entry["annotations"] = json!({
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": tag,
    });
    entry["platform"] = json!({"architecture": architecture(), "os": "linux"});
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    let docker = json!([{
        "Config": blob_path(config),
        "RepoTags": [name],
        "Layers": [blob_path(layer)],
    }]);
    let mut archive = tar::Builder::new(Vec::new());
    let layout = json!({"imageLayoutVersion": "1.0.0"});
    for (path, document) in [
        ("oci-layout", layout),
        ("index.json", index),
        ("manifest.json", docker),
    ] {
        append(&mut archive, path, 0o644, &serde_json::to_vec(&document)?)?;
    }
    for blob in [layer, config, manifest] {
        append(&mut archive, &blob_path(blob), 0o644, blob)?;
    }
    archive.into_inner().context("finishing an image archive")
}

/// Writes a file that appears complete or not at all.
///
/// # Errors
///
/// The file can't be written; with its path.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        let mut file = tempfile::Builder::new()
            .prefix(".sabot-")
            .tempfile_in(folder.unwrap_or(Path::new(".")))?;
        file.write_all(content)?;
        // A temporary file is for its owner alone.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.as_file().set_permissions(mode)?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("writing {}", path.display()))
}

pub(crate) fn gzip(content: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), Compression::default());
    encoder.write_all(content).context("compressing")?;
    encoder.finish().context("compressing")
}

pub(crate) fn append<W: Write>(
    archive: &mut tar::Builder<W>,
    path: &str,
    mode: u32,
    mut content: &[u8],
) -> Result<()> {
    let mut header = header(mode, content.len() as u64);
    archive
        .append_data(&mut header, path, content.by_ref())
        .with_context(|| format!("adding {path} to an archive"))
}

fn header(mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(size);
    // Absent numbers aren't zeros.
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn descriptor(kind: &str, blob: &[u8]) -> Value {
    json!({"mediaType": kind, "digest": digest(blob), "size": blob.len()})
}

fn blob_path(blob: &[u8]) -> String {
    format!("blobs/sha256/{}", hex(blob))
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

/// Go's name for this machine, which Debian uses as well.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Reads a file; the error names it.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

#[cfg(test)]
mod tests;

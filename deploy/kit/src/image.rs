//! Sabot's container image: the daemon, the client, and the shared libraries that they need; no shell, no packages.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::libraries;
use crate::oci::{self, Image, Layer, Written};

/// The image's name up to the tag, as the chart has it.
pub const REPOSITORY: &str = "sabot.dev/sabot";

/// The version of everything in this repository.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Names are looked up in the files and by DNS; both are a part of the C library.
const NSSWITCH: &[u8] = b"passwd: files\ngroup: files\nhosts: files dns\n";
const PASSWD: &[u8] = b"root:x:0:0:root:/:/usr/bin/sabot\n";
const GROUP: &[u8] = b"root:x:0:\n";

/// What is mounted onto must be there already, since the root is read-only.
const MOUNT_POINTS: [&str; 8] = [
    "dev/net",
    "etc/sabot",
    "proc",
    "run/netns",
    "run/sabot",
    "sys",
    "tmp",
    "var",
];

/// What goes into the image.
pub struct Content<'a> {
    pub sabotd: &'a Path,
    pub sabot: &'a Path,
    /// The texts of the licences.
    pub licenses: &'a [PathBuf],
}

/// The name that the chart asks for, unless it is told otherwise.
pub fn default_name() -> String {
    format!("{REPOSITORY}:{VERSION}")
}

/// Writes the image as an archive for `ctr images import`, `kind load image-archive` and `docker load`.
///
/// # Errors
///
/// A file or a library can't be read, or the archive can't be written.
pub fn write(content: &Content<'_>, name: &str, compressed: bool, output: &Path) -> Result<Written> {
    let image = Image {
        name: name.to_owned(),
        entrypoint: vec!["/usr/bin/sabotd".to_owned()],
        environment: vec!["PATH=/usr/bin".to_owned()],
        labels: BTreeMap::from([
            ("org.opencontainers.image.title".to_owned(), "sabot".to_owned()),
            ("org.opencontainers.image.version".to_owned(), VERSION.to_owned()),
            (
                "org.opencontainers.image.licenses".to_owned(),
                env!("CARGO_PKG_LICENSE").to_owned(),
            ),
        ]),
        layer: layer(content)?,
        compressed,
    };
    image.write(output)
}

fn layer(content: &Content<'_>) -> Result<Layer> {
    let mut files: BTreeMap<String, (u32, Vec<u8>)> = BTreeMap::new();
    for (path, mode, text) in [
        ("etc/group", 0o644, GROUP),
        ("etc/nsswitch.conf", 0o644, NSSWITCH),
        ("etc/passwd", 0o644, PASSWD),
    ] {
        files.insert(path.to_owned(), (mode, text.to_vec()));
    }
    for (name, path) in [("sabotd", content.sabotd), ("sabot", content.sabot)] {
        files.insert(format!("usr/bin/{name}"), (0o755, oci::read(path)?));
    }
    for path in libraries::of(&[content.sabotd, content.sabot])? {
        let name = path.display().to_string();
        files.insert(
            name.trim_start_matches('/').to_owned(),
            (0o755, oci::read(&path)?),
        );
    }
    for path in content.licenses {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let place = format!("usr/share/doc/sabot/{name}");
        files.insert(place, (0o644, oci::read(path)?));
    }
    let mut layer = Layer::default();
    for folder in folders(files.keys()) {
        layer.directory(&folder, if folder == "tmp" { 0o1777 } else { 0o755 })?;
    }
    layer.link("var/run", "../run")?;
    for (path, (mode, text)) in files {
        layer.file(&path, mode, &text)?;
    }
    Ok(layer)
}

/// The folders of these files, and those that are mounted onto; outer ones first.
fn folders<'a>(files: impl Iterator<Item = &'a String>) -> BTreeSet<String> {
    let files = files.filter_map(|file| Path::new(file).parent());
    let mut all = BTreeSet::new();
    for folder in files.chain(MOUNT_POINTS.iter().map(Path::new)) {
        let outer = folder.ancestors().filter(|place| *place != Path::new(""));
        all.extend(outer.map(|place| place.display().to_string()));
    }
    all
}

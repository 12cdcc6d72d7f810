//! Cgroups of version 2, by their ids, and the containers' ids in their paths.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use super::super::keys::unified_root;

/// A cgroup that went is still known for this long.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Cgroups that are known by processes in them alone; beyond, they wait for the next look at all.
const MOST_MET: usize = 4096;
/// Hexadecimal digits in the id of a container.
const ID_LENGTH: usize = 64;

/// The ids in a cgroup's path that may be a container's, the innermost first.
pub(super) type Ids = Arc<[String]>;

pub(super) struct Groups {
    root: Option<&'static Path>,
    known: HashMap<u64, (Ids, Instant)>,
    /// The directories of those that are now, by the id in their own name.
    places: BTreeMap<String, PathBuf>,
}

/// What there is at one moment.
#[derive(Default)]
pub(super) struct Found {
    groups: HashMap<u64, Ids>,
    places: BTreeMap<String, PathBuf>,
}

impl Groups {
    /// Without a root no cgroup is known.
    pub(super) fn new(root: Option<&'static Path>) -> Self {
        Self {
            root,
            known: HashMap::new(),
            places: BTreeMap::new(),
        }
    }

    pub(super) fn root(&self) -> Option<&'static Path> {
        self.root
    }

    /// `None` for a cgroup that isn't known, and that the process isn't in any more.
    pub(super) fn container_ids(&mut self, cgroup: u64, process: u32) -> Option<Ids> {
        if let Some((ids, _)) = self.known.get(&cgroup) {
            return Some(Arc::clone(ids));
        }
        let path = path_of(process)?;
        let metadata = fs::metadata(self.root?.join(&path)).ok()?;
        // The process may have moved, or its id may be another one's by now.
        if metadata.ino() != cgroup {
            return None;
        }
        let ids = container_ids(&path);
        if self.known.len() < MOST_MET {
            self.known.insert(cgroup, (Arc::clone(&ids), Instant::now()));
        }
        Some(ids)
    }

    /// The directory of a container's cgroup, if there was one at the last look.
    pub(super) fn place(&self, container: &str) -> Option<&Path> {
        self.places.get(container).map(PathBuf::as_path)
    }

    /// These are all that there are now.
    pub(super) fn replace(&mut self, found: Found) {
        let now = Instant::now();
        self.known
            .retain(|_, (_, seen)| now.duration_since(*seen) < REMEMBERED);
        self.known
            .extend(found.groups.into_iter().map(|(id, ids)| (id, (ids, now))));
        self.places = found.places;
    }
}

/// The cgroup of a process, below the root.
fn path_of(process: u32) -> Option<PathBuf> {
    if process == 0 {
        return None;
    }
    let text = fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(PathBuf::from(path))
}

/// All cgroups.
pub(super) fn read_all(root: &Path) -> Found {
    let mut found = Found::default();
    if let Ok(metadata) = fs::metadata(root) {
        found.groups.insert(metadata.ino(), Ids::default());
    }
    collect(root, &Ids::default(), &mut found);
    found
}

fn collect(group: &Path, outer: &Ids, found: &mut Found) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let name = entry.file_name();
            let path = group.join(&name);
            let ids = match container_id(&name.to_string_lossy()) {
                Some(id) => {
                    found.places.insert(id.to_owned(), path.clone());
                    std::iter::once(id.to_owned())
                        .chain(outer.iter().cloned())
                        .collect()
                }
                None => Arc::clone(outer),
            };
            // A cgroup's id is the inode of its directory.
            found.groups.insert(entry.ino(), Arc::clone(&ids));
            collect(&path, &ids, found);
        }
    }
}

fn container_ids(path: &Path) -> Ids {
    let parts = path.components().rev();
    parts
        .filter_map(|part| container_id(&part.as_os_str().to_string_lossy()).map(str::to_owned))
        .collect()
}

/// Of a directory as runtimes name it: `ID`, and with systemd `cri-containerd-ID.scope`, `crio-ID.scope`, `docker-ID.scope`.
/// A container's monitor isn't in it.
fn container_id(directory: &str) -> Option<&str> {
    let name = directory.strip_suffix(".scope").unwrap_or(directory);
    let (of, id) = name.rsplit_once('-').unwrap_or(("", name));
    if of.ends_with("conmon") {
        return None;
    }
    let is_id = id.len() == ID_LENGTH && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_runtimes_way_to_name_a_cgroup_is_known() {
        let id = "5f2c8e0b7a6d4c3b2a190f8e7d6c5b4a39281706f5e4d3c2b1a0f9e8d7c6b5a4";
        for directory in [
            id.to_owned(),
            format!("cri-containerd-{id}.scope"),
            format!("crio-{id}.scope"),
        ] {
            assert_eq!(container_id(&directory), Some(id), "{directory}");
        }
        let (service, monitor) = (format!("{id}.service"), format!("crio-conmon-{id}.scope"));
        for directory in ["kubelet.service", "pod0f3e", "", &id[1..], &service, &monitor] {
            assert_eq!(container_id(directory), None, "{directory}");
        }
    }

    #[test]
    fn the_innermost_id_comes_first() {
        let (outer, inner) = ("a".repeat(64), "b".repeat(64));
        let path = format!("docker/{outer}/kubelet/pod7/{inner}/init");
        assert_eq!(*container_ids(Path::new(&path)), [inner, outer]);
    }
}

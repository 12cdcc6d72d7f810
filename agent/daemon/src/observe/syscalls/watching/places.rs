//! Whose cgroups are watched: a path's and a container's come and go while they are asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use sabot_abi::MAX_WATCHED_CGROUPS;
use sabot_core::Violation;

use super::Tracing;
use crate::observe::identity::containers::{Containers, unified_root};

/// What has cgroups. As text it is the label that its calls are counted under, which no name of a process can be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::observe::syscalls) enum Place {
    /// The path of one below the root of cgroup v2, with all that is below it.
    Path(Arc<str>),
    /// All containers of this name in pods of this namespace.
    Container { namespace: Arc<str>, name: Arc<str> },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => f.write_str(path),
            Self::Container { namespace, name } => write!(f, "{namespace}/{name}"),
        }
    }
}

/// The cgroups that there are now: by id the number that each counts for, and its open directory.
#[derive(Debug, Default)]
pub(in crate::observe::syscalls) struct Found {
    pub(in crate::observe::syscalls) cgroups: BTreeMap<u64, (u32, Arc<File>)>,
    /// Those that the programs have no room for.
    pub(in crate::observe::syscalls) left_out: usize,
}

impl Found {
    /// Ids and numbers.
    pub(in crate::observe::syscalls) fn numbers(&self) -> BTreeMap<u64, u32> {
        let cgroups = self.cgroups.iter();
        cgroups.map(|(&id, &(number, _))| (id, number)).collect()
    }

    fn add(&mut self, number: u32, directory: &Path) {
        // One that went since is as if it had gone before.
        let opened = File::open(directory).and_then(|file| Ok((file.metadata()?, file)));
        let Ok((metadata, file)) = opened else { return };
        if !metadata.is_dir() || self.cgroups.contains_key(&metadata.ino()) {
            return;
        }
        if self.cgroups.len() >= MAX_WATCHED_CGROUPS as usize {
            self.left_out += 1;
            return;
        }
        self.cgroups.insert(metadata.ino(), (number, Arc::new(file)));
    }
}

/// Looks for the cgroups of numbered places.
pub(in crate::observe::syscalls) fn find(places: &BTreeMap<Place, u32>, containers: &Containers) -> Found {
    let mut found = Found::default();
    for (place, &number) in places {
        for directory in directories(place, containers) {
            found.add(number, &directory);
        }
    }
    found
}

fn directories(place: &Place, containers: &Containers) -> Vec<PathBuf> {
    match place {
        Place::Path(path) => {
            let below = path.trim_start_matches('/');
            unified_root().map(|root| root.join(below)).into_iter().collect()
        }
        Place::Container { namespace, name } => containers.cgroups(namespace, name),
    }
}

/// What the operator said, with what is wrong with it.
pub(super) fn places(tracing: &Tracing, violations: &mut Vec<Violation>) -> BTreeSet<Place> {
    let mut places = BTreeSet::new();
    let mut take = |field: &str, given: &[String], read: fn(&str) -> Option<Place>, allowed: &str| {
        for (index, text) in given.iter().enumerate() {
            match read(text) {
                Some(place) => {
                    places.insert(place);
                }
                None => violations.push(Violation {
                    field: format!("tracing.{field}[{index}]"),
                    value: text.clone(),
                    allowed: allowed.to_owned(),
                }),
            }
        }
    };
    take("cgroups", &tracing.cgroups, path, CGROUP);
    take("containers", &tracing.containers, container, CONTAINER);
    if places.len() > MAX_WATCHED_CGROUPS as usize {
        violations.push(Violation {
            field: "tracing.cgroups".to_owned(),
            value: format!("{} cgroups and containers", places.len()),
            allowed: format!("at most {MAX_WATCHED_CGROUPS}"),
        });
    }
    places
}

/// What is allowed for a cgroup.
pub const CGROUP: &str = "an absolute path below the root of cgroup v2, as `/kubepods.slice`";
/// What is allowed for a container.
pub const CONTAINER: &str =
    "NAMESPACE/CONTAINER: a pod's namespace and a container's name, as `kube-system/etcd`";

fn path(text: &str) -> Option<Place> {
    let below = Path::new(text).strip_prefix("/").ok()?;
    let is_below = below.components().next().is_some()
        && below
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
    is_below.then(|| Place::Path(Arc::from(text.trim_end_matches('/'))))
}

fn container(text: &str) -> Option<Place> {
    let (namespace, name) = text.split_once('/')?;
    let is_name = |part: &str| {
        let is_known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !part.is_empty() && part.bytes().all(is_known)
    };
    (is_name(namespace) && is_name(name)).then(|| Place::Container {
        namespace: Arc::from(namespace),
        name: Arc::from(name),
    })
}

/// Whether it can be the path of a cgroup.
pub fn is_cgroup(text: &str) -> bool {
    path(text).is_some()
}

/// Whether it can name containers.
pub fn is_container(text: &str) -> bool {
    container(text).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_written_alike() {
        for text in ["/kubepods.slice", "/a/b"] {
            assert_eq!(path(text).map(|place| place.to_string()).as_deref(), Some(text));
        }
        assert_eq!(path("/a/").map(|place| place.to_string()).as_deref(), Some("/a"));
        let etcd = container("kube-system/etcd").map(|place| place.to_string());
        assert_eq!(etcd.as_deref(), Some("kube-system/etcd"));
        for text in ["relative", "/", "/a/../b", ""] {
            assert!(!is_cgroup(text), "{text}");
        }
        for text in ["etcd", "/etcd", "kube-system/", "a/b/c", "Kube/etcd", ""] {
            assert!(!is_container(text), "{text}");
        }
    }

    #[test]
    fn what_is_not_there_is_found_when_it_is() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let late = root.path().join("late");
        let find = || {
            let mut found = Found::default();
            found.add(3, &late);
            found.numbers()
        };
        assert_eq!(find(), BTreeMap::new());
        std::fs::create_dir(&late).expect("it is made");
        let first = find();
        assert_eq!(first.values().copied().collect::<Vec<_>>(), [3]);
        std::fs::remove_dir(&late).expect("it is empty");
        std::fs::write(&late, "").expect("it is written");
        assert_eq!(find(), BTreeMap::new(), "a file is no cgroup");
    }

    #[test]
    fn what_there_is_no_room_for_is_counted_and_no_cgroup_counts_twice() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let mut found = Found::default();
        for number in 0..MAX_WATCHED_CGROUPS + 2 {
            let directory = root.path().join(number.to_string());
            std::fs::create_dir(&directory).expect("it is made");
            found.add(number + 1, &directory);
            found.add(99, &directory);
        }
        assert_eq!(found.cgroups.len(), MAX_WATCHED_CGROUPS as usize);
        assert!(found.left_out > 0 && found.numbers().values().all(|&number| number != 99));
    }
}

//! What the kernel knows an owner by.

use std::collections::HashMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sabot_abi::OwnerKey;
use sabot_core::model::NetnsId;

use crate::kernel::netns;
use crate::kernel::nsfs::{NetnsFile, netns_id};

/// Cookies of network namespaces. To read one takes a thread inside the namespace, so that each is read once.
#[derive(Default)]
pub(super) struct Cookies {
    /// A sandbox keeps its namespace for life.
    sandboxes: HashMap<String, u64>,
    paths: HashMap<PathBuf, (NetnsId, u64)>,
}

impl Cookies {
    /// `None` when the namespace isn't there, or can't be entered.
    pub(super) fn of_sandbox(&mut self, sandbox: &str, path: &Path) -> Option<u64> {
        if let Some(&cookie) = self.sandboxes.get(sandbox) {
            return Some(cookie);
        }
        let cookie = read(path)?;
        self.sandboxes.insert(sandbox.to_owned(), cookie);
        Some(cookie)
    }

    /// Of the namespace that is there now.
    pub(super) fn of_path(&mut self, path: &Path) -> Option<u64> {
        let id = netns_id(path)?;
        if let Some((_, cookie)) = self.paths.get(path).filter(|(known, _)| *known == id) {
            return Some(*cookie);
        }
        let cookie = read(path)?;
        // Should another namespace have taken the place meanwhile, the next look finds another id.
        self.paths.insert(path.to_owned(), (id, cookie));
        Some(cookie)
    }

    pub(super) fn keep(&mut self, is_there: impl Fn(&str) -> bool, is_named: impl Fn(&Path) -> bool) {
        self.sandboxes.retain(|sandbox, _| is_there(sandbox));
        self.paths.retain(|path, _| is_named(path));
    }
}

fn read(path: &Path) -> Option<u64> {
    let read = || -> Result<u64, Box<dyn std::error::Error>> {
        let namespace = NetnsFile::open(path)?;
        Ok(netns::cookie(namespace.as_fd())?)
    };
    read()
        .inspect_err(|error| {
            tracing::debug!(path = %path.display(), %error, "a network namespace has no cookie for us");
        })
        .ok()
}

/// The cgroup of a pod on the node's own network, in which those of its sandbox and of its containers are. `None` where
/// processes are not in the unified hierarchy.
pub(super) fn cgroup_key(cookie: u64, process: u32, uid: &str) -> Option<OwnerKey> {
    let text = fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
    let group = unified_root()?.join(pod_group(own_group(&text)?, uid));
    // A cgroup's id is the inode of its directory.
    let cgroup = fs::metadata(group).ok()?.ino();
    Some(OwnerKey { cookie, cgroup })
}

/// The group around a sandbox's own one that has the pod's uid in its name, as the kubelet makes one, `pod1-2` or
/// `kubepods-pod1_2.slice`. Without one a pod has its sandbox's alone: what is around that, others share.
fn pod_group<'a>(own: &'a Path, uid: &str) -> &'a Path {
    let underscored = uid.replace('-', "_");
    let is_pods = |group: &&Path| {
        let name = group.file_name().unwrap_or_default().to_string_lossy();
        !uid.is_empty() && (name.contains(uid) || name.contains(&underscored))
    };
    own.ancestors().skip(1).find(is_pods).unwrap_or(own)
}

/// The path below the unified hierarchy's root from the text of `/proc/PID/cgroup`; `None` for the root itself.
fn own_group(text: &str) -> Option<&Path> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    (!path.is_empty()).then(|| Path::new(path))
}

/// Where the unified hierarchy is mounted.
pub fn unified_root() -> Option<&'static Path> {
    static ROOT: OnceLock<Option<PathBuf>> = OnceLock::new();
    ROOT.get_or_init(|| {
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (path, kind) = (words.next()?, words.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(path))
        })
    })
    .as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_hierarchy_is_the_one_without_controllers() {
        let hybrid = "12:pids:/kubepods/pod1/a\n1:name=systemd:/kubepods/pod1/a\n0::/kubepods/pod1/a\n";
        assert_eq!(own_group(hybrid), Some(Path::new("kubepods/pod1/a")));
        assert_eq!(own_group("12:pids:/kubepods/pod1/a\n0::/\n"), None);
        assert_eq!(own_group("12:pids:/a\n"), None);
    }

    #[test]
    fn a_pods_group_is_the_one_with_its_uid_and_no_other_around_a_sandbox() {
        let uid = "0c1d-22";
        for (own, group) in [
            (
                "kubepods/burstable/pod0c1d-22/abc",
                "kubepods/burstable/pod0c1d-22",
            ),
            (
                "kubepods.slice/kubepods-pod0c1d_22.slice/cri-containerd-abc.scope/init",
                "kubepods.slice/kubepods-pod0c1d_22.slice",
            ),
            ("system.slice/abc", "system.slice/abc"),
            ("abc", "abc"),
        ] {
            assert_eq!(pod_group(own.as_ref(), uid), Path::new(group));
        }
        assert_eq!(pod_group("k8s.io/abc".as_ref(), ""), Path::new("k8s.io/abc"));
    }

    #[test]
    fn a_process_that_is_gone_has_no_cgroup() {
        assert_eq!(cgroup_key(1, u32::MAX, "uid"), None);
    }
}

//! Taking away what a containerd leaves behind when it is not stopped in order.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// libcni keeps the results of its calls here; the directory can't be configured.
const CNI_CACHE: &str = "/var/lib/cni/results";
/// How long the kernel may take to bury a killed process.
const BURIAL: Duration = Duration::from_secs(10);

/// The shims of the containerd that listens on `socket`: each has it among its arguments.
pub(super) fn shims_of(socket: &Path) -> Vec<Pid> {
    let socket = socket.as_os_str().as_encoded_bytes();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let mut words = line.split(|byte| *byte == 0);
            let program = String::from_utf8_lossy(words.next()?).into_owned();
            let is_shim = Path::new(&program)
                .file_name()?
                .to_str()?
                .starts_with("containerd-shim");
            (is_shim && words.any(|word| word == socket)).then(|| Pid::from_raw(pid))
        })
        .collect()
}

/// Processes in the cgroup `path` and below, in any hierarchy.
pub(super) fn processes_in_cgroup(path: &str) -> Vec<Pid> {
    let mut found = Vec::new();
    for root in cgroup_roots() {
        for directory in descend(&root.join(path.trim_start_matches('/'))) {
            let list = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
            found.extend(
                list.lines()
                    .filter_map(|line| line.parse().ok())
                    .map(Pid::from_raw),
            );
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Kills processes and waits until they are gone.
pub(super) fn kill_all(find: impl Fn() -> Vec<Pid>) {
    let deadline = Instant::now() + BURIAL;
    loop {
        let found = find();
        if found.is_empty() || Instant::now() > deadline {
            return;
        }
        for pid in found {
            // One that ended by itself is as good.
            let _ = kill(pid, Signal::SIGKILL);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Mount points below `directory`, innermost first.
pub fn mounts_below(directory: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from);
    let mut below: Vec<_> = points.filter(|point| point.starts_with(directory)).collect();
    below.reverse();
    below
}

pub(super) fn unmount_below(directory: &Path) {
    for point in mounts_below(directory) {
        let _ = umount2(&point, MntFlags::MNT_DETACH);
    }
}

/// Removes the cgroup `path` and those below it from every hierarchy.
pub(super) fn remove_cgroup(path: &str) {
    for root in cgroup_roots() {
        for directory in descend(&root.join(path.trim_start_matches('/'))) {
            let _ = fs::remove_dir(directory);
        }
    }
}

/// Removes libcni's notes on the network `name` and on these sandboxes.
pub(super) fn remove_cni_cache(name: &str, sandboxes: &[String]) {
    for entry in fs::read_dir(CNI_CACHE).into_iter().flatten().flatten() {
        let file = entry.file_name();
        let file = file.to_string_lossy();
        if file.starts_with(&format!("{name}-")) || sandboxes.iter().any(|id| file.contains(id.as_str())) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Removes the sockets of shims that were killed; their bundles say where those are, outside the containerd's directory.
pub(super) fn remove_shim_sockets(bundles: &Path) {
    for bundle in fs::read_dir(bundles).into_iter().flatten().flatten() {
        let address = fs::read_to_string(bundle.path().join("address")).unwrap_or_default();
        if let Some(socket) = address.strip_prefix("unix://") {
            let _ = fs::remove_file(socket);
        }
    }
}

/// Where cgroup hierarchies are mounted, of either version.
fn cgroup_roots() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields
        .filter(|fields| matches!(fields.get(2), Some(&("cgroup" | "cgroup2"))))
        .map(|fields| PathBuf::from(fields[1]))
        .collect()
}

/// The directory and all below it, innermost first; nothing if there is none.
fn descend(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let children = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut all: Vec<_> = children.flat_map(|entry| descend(&entry.path())).collect();
    all.push(directory.to_owned());
    all
}

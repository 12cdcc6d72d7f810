//! What is traced, as the operator says it and as the programs are told.

pub(super) mod places;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sabot_abi::{COMM_LENGTH, MAX_PROCESSES, SYSCALL_BITMAP_WORDS};
use sabot_core::Violation;

use self::places::{Found, Place, places};
use crate::kernel::syscalls::{Comm, Watch};
use crate::observe::names::{UNKNOWN, syscall_name, syscall_number};

/// The kubelet and kube-proxy where they run on the host, runtimes and what they start for a pod: shims, the low-level
/// runtimes under all the names that they give themselves, and the plugins of CNI. The kernel keeps 15 bytes of a name:
/// `containerd-shim` is also `containerd-shim-runc-v2`.
pub const DEFAULT_PROCESSES: [&str; 30] = [
    "kubelet",
    "kube-proxy",
    "containerd",
    "containerd-shim",
    "crio",
    "conmon",
    "conmonrs",
    "dockerd",
    "runc",
    "runc:[0:PARENT]",
    "runc:[1:CHILD]",
    "runc:[2:INIT]",
    "crun",
    "youki",
    "bridge",
    "ptp",
    "host-local",
    "loopback",
    "portmap",
    "bandwidth",
    "firewall",
    "tuning",
    "dhcp",
    "multus",
    "calico",
    "calico-ipam",
    "cilium-cni",
    "flannel",
    "weave-net",
    "kindnet",
];

/// kube-proxy where it is a pod.
pub const DEFAULT_CONTAINERS: [&str; 1] = ["kube-system/kube-proxy"];

/// They never return, or return a register's old value instead of a result.
const UNMEASURED: [&str; 3] = ["exit", "exit_group", "rt_sigreturn"];

/// Whose calls are traced, and which.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tracing {
    /// Names of processes; what is beyond 15 bytes doesn't count, for the kernel keeps no more.
    pub processes: Vec<String>,
    /// Names of syscalls; empty: all.
    pub syscalls: Vec<String>,
    /// Paths of cgroups below the v2 root, as `/kubepods.slice`; all that is below them is traced too. One that isn't there is
    /// waited for.
    pub cgroups: Vec<String>,
    /// Containers by the namespace of their pods and their own name, as `kube-system/etcd`.
    pub containers: Vec<String>,
}

impl Tracing {
    pub fn of_processes(processes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            processes: processes.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }
}

/// A checked [`Tracing`].
#[derive(Debug)]
pub(super) struct Wanted {
    /// A name as it was given, by what the kernel keeps of it.
    processes: BTreeMap<Comm, Arc<str>>,
    places: BTreeSet<Place>,
    syscalls: BTreeSet<u32>,
}

/// # Errors
///
/// Everything that is wrong with it.
pub(super) fn check(tracing: &Tracing) -> Result<Wanted, Vec<Violation>> {
    let mut violations = Vec::new();
    let wanted = Wanted {
        processes: processes(&tracing.processes, &mut violations),
        places: places(tracing, &mut violations),
        syscalls: syscalls(&tracing.syscalls, &mut violations),
    };
    if violations.is_empty() {
        Ok(wanted)
    } else {
        Err(violations)
    }
}

fn processes(names: &[String], violations: &mut Vec<Violation>) -> BTreeMap<Comm, Arc<str>> {
    let mut comms: BTreeMap<Comm, Arc<str>> = BTreeMap::new();
    for (index, name) in names.iter().enumerate() {
        let Some(comm) = comm(name) else {
            violations.push(Violation {
                field: format!("tracing.processes[{index}]"),
                value: name.clone(),
                allowed: "a process's name (see /proc/PID/comm), without `/` and NUL".to_owned(),
            });
            continue;
        };
        // Two names that the kernel can't tell apart are one process; the shorter one names it honestly.
        let known = comms.entry(comm).or_insert_with(|| Arc::from(name.as_str()));
        if name.len() < known.len() {
            *known = Arc::from(name.as_str());
        }
    }
    if comms.len() > MAX_PROCESSES as usize {
        violations.push(Violation {
            field: "tracing.processes".to_owned(),
            value: format!("{} names", comms.len()),
            allowed: format!("at most {MAX_PROCESSES}"),
        });
    }
    comms
}

/// `None` for what can't be a process's name.
fn comm(name: &str) -> Option<Comm> {
    if name.is_empty() || name.contains(['/', '\0']) {
        return None;
    }
    let kept = name.len().min(COMM_LENGTH - 1);
    let mut comm = [0; COMM_LENGTH];
    comm[..kept].copy_from_slice(&name.as_bytes()[..kept]);
    Some(comm)
}

fn syscalls(names: &[String], violations: &mut Vec<Violation>) -> BTreeSet<u32> {
    let measured = |name: &str| !UNMEASURED.contains(&name);
    if names.is_empty() {
        let all = 0..(SYSCALL_BITMAP_WORDS * 64) as u32;
        // A number without a name is measured too: a newer kernel's.
        return all.filter(|&number| measured(syscall_name(number))).collect();
    }
    let mut numbers = BTreeSet::new();
    for (index, name) in names.iter().enumerate() {
        let allowed = match syscall_number(name) {
            Some(number) if measured(name) => {
                numbers.insert(number);
                continue;
            }
            Some(_) => "a syscall that returns a result",
            None => "the name of a syscall of this machine, as `openat`",
        };
        violations.push(Violation {
            field: format!("tracing.syscalls[{index}]"),
            value: name.clone(),
            allowed: allowed.to_owned(),
        });
    }
    numbers
}

/// The numbers of names and places. One that stays keeps its number, and with it its counters; no number is used again.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    last: u32,
    /// Names of processes and of places, of now.
    live: BTreeMap<u32, Arc<str>>,
    /// Those of before, whose last events may still be on their way.
    gone: BTreeMap<u32, Arc<str>>,
    processes: BTreeMap<Comm, u32>,
    places: BTreeMap<Place, u32>,
    syscalls: BTreeSet<u32>,
    tracing: Tracing,
}

impl Numbers {
    /// The numbers when this is traced.
    pub(super) fn assign(&self, tracing: &Tracing, wanted: Wanted) -> Self {
        let mut next = Self {
            last: self.last,
            tracing: tracing.clone(),
            syscalls: wanted.syscalls,
            gone: self.live.clone(),
            ..Self::default()
        };
        for (comm, name) in wanted.processes {
            let number = self.processes.get(&comm).copied();
            let number = number.unwrap_or_else(|| next.take());
            next.live.insert(number, name);
            next.processes.insert(comm, number);
        }
        for place in wanted.places {
            let number = self.places.get(&place).copied();
            let number = number.unwrap_or_else(|| next.take());
            next.live.insert(number, Arc::from(place.to_string()));
            next.places.insert(place, number);
        }
        next
    }

    /// What the programs are to be told, with the cgroups that were found of the places.
    pub(super) fn watch(&self, found: Found) -> Watch {
        Watch {
            processes: self.processes.clone(),
            places: self.places.values().copied().collect(),
            cgroups: found.cgroups,
            syscalls: self.syscalls.clone(),
        }
    }

    pub(super) fn places(&self) -> &BTreeMap<Place, u32> {
        &self.places
    }

    fn take(&mut self) -> u32 {
        self.last += 1;
        self.last
    }

    /// Never takes the numbers that others have taken.
    pub(super) fn skip(&mut self, others: &Self) {
        self.last = self.last.max(others.last);
    }

    /// The label that a number stands for.
    pub(super) fn label(&self, number: u32) -> Arc<str> {
        let label = self.live.get(&number).or_else(|| self.gone.get(&number));
        label.cloned().unwrap_or_else(|| Arc::from(UNKNOWN))
    }

    pub(super) fn is_live(&self, number: u32) -> bool {
        self.live.contains_key(&number)
    }

    pub(super) fn tracing(&self) -> &Tracing {
        &self.tracing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assign(numbers: &Numbers, tracing: &Tracing) -> (Watch, Numbers) {
        let next = numbers.assign(tracing, check(tracing).expect("a valid set"));
        (next.watch(Found::default()), next)
    }

    #[test]
    fn names_that_the_kernel_cannot_tell_apart_are_one() {
        let tracing = Tracing::of_processes(["containerd-shim-runc-v2", "kubelet", "containerd-shim"]);
        let (watch, numbers) = assign(&Numbers::default(), &tracing);
        let comms: Vec<_> = watch.processes.keys().copied().collect();
        assert_eq!(comms, [*b"containerd-shim\0", *b"kubelet\0\0\0\0\0\0\0\0\0"]);
        assert_eq!(&*numbers.label(1), "containerd-shim");
        assert_eq!(&*numbers.label(2), "kubelet");
        assert_eq!(&*numbers.label(3), UNKNOWN);
    }

    #[test]
    fn the_defaults_are_names_that_fit() {
        let tracing = Tracing::of_processes(DEFAULT_PROCESSES);
        let (watch, _) = assign(&Numbers::default(), &tracing);
        assert_eq!(watch.processes.len(), DEFAULT_PROCESSES.len());
        assert!(DEFAULT_PROCESSES.iter().all(|name| name.len() < COMM_LENGTH));
    }

    #[test]
    fn all_that_is_wrong_is_said_with_what_is_allowed() {
        let tracing = Tracing {
            processes: ["", "kubelet", "/usr/bin/kubelet", "kube\0let"]
                .map(str::to_owned)
                .to_vec(),
            syscalls: ["openat", "no_such_call", "exit_group"]
                .map(str::to_owned)
                .to_vec(),
            cgroups: ["relative", "/", "/a/../b", "/no-such-cgroup"]
                .map(str::to_owned)
                .to_vec(),
            containers: ["kube-system/etcd", "etcd"].map(str::to_owned).to_vec(),
        };
        let violations = check(&tracing).expect_err("most of it is wrong");
        let fields: Vec<_> = violations
            .iter()
            .map(|violation| violation.field.as_str())
            .collect();
        assert_eq!(
            fields,
            [
                "tracing.processes[0]",
                "tracing.processes[2]",
                "tracing.processes[3]",
                "tracing.cgroups[0]",
                "tracing.cgroups[1]",
                "tracing.cgroups[2]",
                "tracing.containers[1]",
                "tracing.syscalls[1]",
                "tracing.syscalls[2]",
            ]
        );
        assert_eq!(violations[7].value, "no_such_call");
        assert!(
            violations[6].allowed.contains("`kube-system/etcd`"),
            "{}",
            violations[6]
        );
        assert!(violations[8].allowed.contains("returns a result"));
    }

    #[test]
    fn too_many_names_are_refused() {
        let tracing = Tracing::of_processes((0..65).map(|i| format!("p{i}")));
        let violations = check(&tracing).expect_err("one too many");
        assert_eq!(
            violations[0].to_string(),
            "tracing.processes: `65 names` given; allowed: at most 64"
        );
    }

    #[test]
    fn who_stays_keeps_his_number_and_no_number_comes_again() {
        let (_, numbers) = assign(&Numbers::default(), &Tracing::of_processes(["a", "b"]));
        let (watch, numbers) = assign(&numbers, &Tracing::of_processes(["b", "c"]));
        assert_eq!(watch.processes.values().copied().collect::<Vec<_>>(), [2, 3]);
        assert_eq!(&*numbers.label(1), "a", "its last events are still named");
        assert!(!numbers.is_live(1));
        let (watch, _) = assign(&numbers, &Tracing::of_processes(["a"]));
        assert_eq!(watch.processes.values().copied().collect::<Vec<_>>(), [4]);
    }

    #[test]
    fn a_place_keeps_its_number_whether_it_has_cgroups_or_not() {
        let of = |containers: &[&str]| Tracing {
            cgroups: vec!["/late/".to_owned()],
            containers: containers.iter().map(|&name| name.to_owned()).collect(),
            ..Tracing::default()
        };
        let (watch, numbers) = assign(&Numbers::default(), &of(&["kube-system/etcd"]));
        assert_eq!(watch.places, [1, 2].into());
        assert!(watch.cgroups.is_empty() && watch.processes.is_empty());
        let label = |number| numbers.label(number).to_string();
        assert_eq!([label(1), label(2)], ["/late", "kube-system/etcd"]);
        let (watch, numbers) = assign(&numbers, &of(&["shop/etcd"]));
        assert_eq!(watch.places, [1, 3].into());
        assert_eq!(&*numbers.label(3), "shop/etcd");
    }

    #[test]
    fn the_default_containers_are_names() {
        let tracing = Tracing {
            containers: DEFAULT_CONTAINERS.map(str::to_owned).to_vec(),
            ..Tracing::default()
        };
        assert_eq!(assign(&Numbers::default(), &tracing).0.places.len(), 1);
    }

    #[test]
    fn no_names_of_syscalls_mean_all_that_have_a_result() {
        let (watch, _) = assign(&Numbers::default(), &Tracing::default());
        let has = |name| watch.syscalls.contains(&syscall_number(name).expect("it exists"));
        assert!(has("openat") && has("mseal"));
        assert!(!has("exit_group") && !has("rt_sigreturn"));
    }
}

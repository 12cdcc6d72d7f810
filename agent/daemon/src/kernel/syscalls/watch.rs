//! Whose calls are measured, and which: changed while the programs run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{Array, CgroupArray, HashMap, MapData, MapError};
use sabot_abi::{
    COMM_FILTER_WORDS, MAX_PROCESSES, MAX_WATCHED_CGROUPS, SYSCALL_BITMAP_WORDS, SyscallSettings,
    comm_filter_bit,
};

use super::{Comm, SYSCALLS, SyscallProgramError};

const PROCESSES: &str = "PROCESSES";
const CGROUPS: &str = "CGROUPS";
const SETTINGS: &str = ".data.settings";

const SLOTS: usize = MAX_WATCHED_CGROUPS as usize;

/// What is watched. Numbers stand for names and cgroups in keys and events; they begin at 1, and are never used again.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// At most [`MAX_PROCESSES`].
    pub processes: BTreeMap<Comm, u32>,
    /// Numbers of what has cgroups, whether there are any of it now or not.
    pub places: BTreeSet<u32>,
    /// By a cgroup's id the number that it counts for, and its open directory; at most [`MAX_WATCHED_CGROUPS`].
    pub cgroups: BTreeMap<u64, (u32, Arc<File>)>,
    /// The numbers of the syscalls that are measured.
    pub syscalls: BTreeSet<u32>,
}

impl Watch {
    pub(super) fn check(&self) -> Result<(), SyscallProgramError> {
        if self.processes.len() > MAX_PROCESSES as usize {
            return Err(SyscallProgramError::TooManyProcesses(self.processes.len()));
        }
        if self.cgroups.len() > SLOTS {
            return Err(SyscallProgramError::TooManyCgroups(self.cgroups.len()));
        }
        Ok(())
    }

    /// Whether calls of this name or cgroup and of this syscall are measured.
    pub(super) fn measures(&self, number: u32, syscall: u32) -> bool {
        let watched = self.places.contains(&number) || self.processes.values().any(|&known| known == number);
        watched && self.syscalls.contains(&syscall)
    }
}

/// The maps that say it to the programs, and what they say.
pub(super) struct WatchMaps {
    processes: HashMap<MapData, Comm, u32>,
    cgroups: CgroupArray<MapData>,
    settings: Array<MapData, SyscallSettings>,
    /// Ids of the cgroups in the array, and their numbers.
    slots: [Option<(u64, u32)>; SLOTS],
    current: Watch,
    generation: u32,
    streamed: bool,
}

impl WatchMaps {
    pub(super) fn new(object: &mut Ebpf) -> Result<Self, SyscallProgramError> {
        Ok(Self {
            processes: SYSCALLS.take(object, PROCESSES)?,
            cgroups: SYSCALLS.take(object, CGROUPS)?,
            settings: SYSCALLS.take(object, SETTINGS)?,
            slots: [None; SLOTS],
            current: Watch::default(),
            generation: 0,
            streamed: false,
        })
    }

    pub(super) fn current(&self) -> &Watch {
        &self.current
    }

    pub(super) fn set_streamed(&mut self, streamed: bool) -> Result<(), SyscallProgramError> {
        let before = std::mem::replace(&mut self.streamed, streamed);
        let current = self.current.clone();
        self.publish(&current).inspect_err(|_| self.streamed = before)
    }

    /// Replaces what is watched; when the kernel refuses, what was watched before is watched again.
    pub(super) fn replace(&mut self, watch: &Watch) -> Result<(), SyscallProgramError> {
        if let Err(error) = self.write(watch) {
            let before = self.current.clone();
            if let Err(again) = self.write(&before) {
                tracing::error!(error = %again, "what was watched before can't be restored");
            }
            return Err(error);
        }
        self.current = watch.clone();
        Ok(())
    }

    /// What stays is watched all along. A slot's number is cleared before its cgroup changes, so that no call is counted for
    /// the wrong one. The generation changes when nothing else does any more: what programs find in it stays true.
    fn write(&mut self, watch: &Watch) -> Result<(), SyscallProgramError> {
        for (comm, number) in &watch.processes {
            self.processes
                .insert(comm, number, 0)
                .map_err(|source| SyscallProgramError::map(PROCESSES, source))?;
        }
        let before = self.slots;
        for slot in &mut self.slots {
            let stays = |(id, number): &(u64, u32)| {
                let wanted = watch.cgroups.get(id);
                wanted.is_some_and(|(known, _)| known == number)
            };
            *slot = slot.filter(stays);
        }
        self.publish(watch)?;
        for (&id, &(number, ref directory)) in &watch.cgroups {
            if self.slots.contains(&Some((id, number))) {
                continue;
            }
            let free = (0..SLOTS).find(|&slot| self.slots[slot].is_none());
            let free = free.ok_or(SyscallProgramError::TooManyCgroups(watch.cgroups.len()))?;
            self.cgroups
                .set(free as u32, Arc::clone(directory), 0)
                .map_err(|source| SyscallProgramError::map(CGROUPS, source))?;
            self.slots[free] = Some((id, number));
        }
        for slot in (0..SLOTS).filter(|&slot| self.slots[slot].is_none() && before[slot].is_some()) {
            // The array holds on to its cgroups, and would keep a removed one half alive.
            missing_is_fine(self.cgroups.unset(slot as u32))
                .map_err(|e| SyscallProgramError::map(CGROUPS, e))?;
        }
        self.publish(watch)?;
        let known: Vec<Comm> = self.processes.keys().filter_map(Result::ok).collect();
        for comm in known.iter().filter(|comm| !watch.processes.contains_key(*comm)) {
            missing_is_fine(self.processes.remove(comm))
                .map_err(|e| SyscallProgramError::map(PROCESSES, e))?;
        }
        self.publish(watch)?;
        self.generation = self.generation.wrapping_add(1);
        self.publish(watch)
    }

    fn publish(&mut self, watch: &Watch) -> Result<(), SyscallProgramError> {
        let bits = watch.processes.keys().map(|comm| comm_filter_bit(words(comm)));
        let last = self.slots.iter().rposition(Option::is_some);
        let settings = SyscallSettings {
            comm_filter: bitmap::<COMM_FILTER_WORDS>(bits),
            measured: bitmap::<SYSCALL_BITMAP_WORDS>(watch.syscalls.iter().copied()),
            cgroups: self.slots.map(|slot| slot.map_or(0, |(_, number)| number)),
            cgroup_count: last.map_or(0, |last| last as u32 + 1),
            generation: self.generation,
            streamed: u32::from(self.streamed),
            reserved: 0,
        };
        self.settings
            .set(0, settings, 0)
            .map_err(|source| SyscallProgramError::map(SETTINGS, source))
    }
}

pub(super) fn missing_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Waits until every program that began before has ended.
pub(super) fn wait_for_programs() {
    /// `MEMBARRIER_CMD_GLOBAL`: the kernel waits for a grace period of RCU, which the programs are readers of.
    const GLOBAL: libc::c_int = 1;
    // SAFETY: the call takes numbers only.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if result != 0 {
        // A kernel that leaves CPUs without ticks refuses. The programs take microseconds, and aren't preempted.
        thread::sleep(Duration::from_millis(100));
    }
}

fn words(comm: &Comm) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *comm;
    [
        u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
    ]
}

/// Members beyond the bitmap are in no set, on both sides.
pub(super) fn bitmap<const WORDS: usize>(members: impl Iterator<Item = u32>) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    for member in members {
        if let Some(word) = words.get_mut((member / u64::BITS) as usize) {
            *word |= 1 << (member % u64::BITS);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bitmap_holds_its_members_and_ignores_those_beyond_it() {
        assert_eq!(
            bitmap::<2>([0, 63, 64, 127, 128, 4095].into_iter()),
            [1 | 1 << 63, 1 | 1 << 63]
        );
    }

    #[test]
    fn the_names_of_the_runtimes_have_bits_in_the_filter() {
        let comm = *b"containerd-shim\0";
        let filter: [u64; COMM_FILTER_WORDS] = bitmap([comm_filter_bit(words(&comm))].into_iter());
        assert_eq!(filter.iter().map(|word| word.count_ones()).sum::<u32>(), 1);
        let other = *b"containerd\0\0\0\0\0\0";
        assert_ne!(comm_filter_bit(words(&comm)), comm_filter_bit(words(&other)));
    }

    #[test]
    fn only_what_is_watched_is_measured() {
        let watch = Watch {
            processes: BTreeMap::from([(*b"kubelet\0\0\0\0\0\0\0\0\0", 3)]),
            places: BTreeSet::from([5]),
            syscalls: BTreeSet::from([1]),
            ..Watch::default()
        };
        assert!(
            watch.measures(3, 1) && watch.measures(5, 1),
            "also while it has no cgroup"
        );
        assert!(!watch.measures(3, 2) && !watch.measures(4, 1));
    }
}

//! Which syscalls are worth telling of: a node's processes may make hundreds of different ones.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use sabot_abi::Histogram;

use super::node::Calls;
use crate::observe::durations::quantile;
use crate::observe::syscalls::{CallKey, CallTotals, waits};

/// Of each kind; there are four.
const MOST: usize = 8;
/// What a database's transactions wait for.
const TO_DISK: [&str; 6] = ["fdatasync", "fsync", "msync", "sync", "sync_file_range", "syncfs"];

/// What makes a call worth telling of; more is more, and nothing is 0.
#[derive(Clone, Copy, Default)]
struct Weights {
    spent: u64,
    p99: u64,
    failed: u64,
    to_disk: u64,
}

impl Weights {
    fn add(&mut self, syscall: &str, call: &CallTotals) {
        self.failed += call.failed();
        if waits(syscall) {
            return;
        }
        self.spent += call.durations.sum();
        let p99 = quantile(&Histogram::from(&call.durations), 0.99);
        // It is absent beyond the last bound, for there are calls.
        let p99 = p99.map_or(u64::MAX, |p99| p99.as_nanos() as u64);
        self.p99 = self.p99.max(p99);
        if TO_DISK.contains(&syscall) {
            self.to_disk += call.calls();
        }
    }
}

/// Those of all windows together that took the most time, that had the longest p99 in one of them, that failed most often, and
/// that bring files to the disk.
pub(super) fn choose(windows: &[&Calls]) -> BTreeSet<CallKey> {
    let mut all: BTreeMap<&CallKey, Weights> = BTreeMap::new();
    for (key, call) in windows.iter().flat_map(|calls| calls.iter()) {
        all.entry(key).or_default().add(key.1, call);
    }
    let kinds: [fn(&Weights) -> u64; 4] = [|w| w.spent, |w| w.p99, |w| w.failed, |w| w.to_disk];
    let chosen = kinds.into_iter().flat_map(|weight| {
        let mut of_kind: Vec<_> = all.iter().filter(|(_, weights)| weight(weights) > 0).collect();
        of_kind.sort_by_key(|(_, weights)| Reverse(weight(weights)));
        of_kind.truncate(MOST);
        of_kind
    });
    chosen.map(|(&key, _)| key.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::durations::Sparse;

    /// So many calls of so many milliseconds each, and failures.
    fn call(count: u64, millis: u64, failed: u64) -> CallTotals {
        let mut durations = Histogram::EMPTY;
        let ns = millis * 1_000_000;
        durations.sum = count * ns;
        durations.buckets[sabot_abi::log_linear_bucket(ns)] = count;
        let errors = [("EIO", failed)].into_iter().filter(|(_, count)| *count > 0);
        CallTotals {
            durations: Sparse::from(&durations),
            errors: errors.collect(),
        }
    }

    fn window<const N: usize>(calls: [(&'static str, CallTotals); N]) -> Calls {
        let calls = calls.into_iter();
        calls
            .map(|(syscall, call)| (("etcd".into(), syscall), call))
            .collect()
    }

    fn chosen(windows: &[Calls]) -> Vec<&'static str> {
        let windows: Vec<_> = windows.iter().collect();
        choose(&windows).into_iter().map(|(_, syscall)| syscall).collect()
    }

    /// More calls of each kind than are told.
    fn busy() -> Calls {
        let mut calls = Calls::new();
        for index in 0..20 {
            let process = |kind: &str| format!("{kind}{index}").into();
            calls.insert((process("long"), "read"), call(1000, 100, 0));
            calls.insert((process("slow"), "rename"), call(1, 5000, 0));
            calls.insert((process("fails"), "openat"), call(200, 1, 200));
            calls.insert((process("waits"), "futex"), call(10_000, 10_000, 0));
        }
        calls
    }

    #[test]
    fn what_took_long_failed_or_went_to_the_disk_is_told_and_is_bounded() {
        let disk = window([("fdatasync", call(3, 1, 0)), ("write", call(500, 1, 0))]);
        let mut calls = busy();
        calls.extend(disk);
        let told = choose(&[&calls]);
        assert_eq!(told.len(), 3 * MOST + 1, "{told:?}");
        let of = |kind: &str| {
            told.iter()
                .filter(|(process, _)| process.starts_with(kind))
                .count()
        };
        assert_eq!(
            [of("long"), of("slow"), of("fails"), of("waits")],
            [MOST, MOST, MOST, 0]
        );
        assert!(told.contains(&("etcd".into(), "fdatasync")), "{told:?}");
    }

    #[test]
    fn what_is_told_of_one_window_is_told_of_all() {
        let before = window([("fsync", call(10, 1, 0)), ("futex", call(9, 9000, 0))]);
        let during = window([("fsync", call(2, 900, 1)), ("epoll_wait", call(9, 9000, 2))]);
        assert_eq!(chosen(&[before, during]), ["epoll_wait", "fsync"]);
        assert_eq!(chosen(&[]), Vec::<&str>::new());
    }
}

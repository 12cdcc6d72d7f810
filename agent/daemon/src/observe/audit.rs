//! What the observers know that they don't know: what is in no counter, in words.

use std::fmt::Display;

use sabot_abi::SYSCALL_LOSS_EVENT;

use super::cri::CriObserver;
use super::drops::DropObserver;
use super::observers::Observers;
use super::queries::QueryObserver;
use super::syscalls::SyscallObserver;
use super::tcp::TcpObserver;
use crate::kernel::cost::misses;

/// Whatever isn't observed, and what was kept out of what is.
pub(super) fn missing(observers: &Observers) -> Vec<String> {
    let absent = [
        ("syscalls", observers.syscalls.is_none()),
        ("calls of the container runtime", observers.cri.is_none()),
        ("drops", observers.drops.is_none()),
        ("DNS queries", observers.queries.is_none()),
        ("TCP connections", observers.tcp.is_none()),
    ];
    let mut missing = Missing::default();
    for (what, _) in absent.iter().filter(|(_, is_absent)| *is_absent) {
        missing.0.push(format!("{what} are not observed"));
    }
    for what in &observers.only_during_faults {
        let words = format!("{what} are only observed while a fault is active");
        missing.0.push(words);
    }
    missing.of_tables(observers);
    missing.of_runtime(observers);
    missing.of_programs(observers);
    missing.0
}

#[derive(Default)]
struct Missing(Vec<String>);

impl Missing {
    fn count(&mut self, count: u64, what: &str) {
        if count > 0 {
            self.0.push(format!("{count} {what}"));
        }
    }

    /// What an observer that is there could read.
    fn read<T, E: Display>(&mut self, what: &str, snapshot: Option<Result<T, E>>) -> Option<T> {
        let read = snapshot?.inspect_err(|error| {
            let words = format!("the counters of {what} can't be read: {error}");
            self.0.push(words);
        });
        read.ok()
    }

    fn of_tables(&mut self, observers: &Observers) {
        let syscalls = observers.syscalls.as_ref().map(SyscallObserver::snapshot);
        if let Some(syscalls) = self.read("syscalls", syscalls) {
            // Lost events are in no counter's way.
            let of_tables = syscalls.losses.iter().enumerate();
            let of_tables = of_tables.filter(|(index, _)| *index != SYSCALL_LOSS_EVENT as usize);
            let count = of_tables.map(|(_, count)| count).sum();
            self.count(count, "syscalls that a full table kept out");
        }
        let left_out = observers.syscalls.as_ref().map_or(0, SyscallObserver::left_out);
        self.count(
            left_out as u64,
            "cgroups that are to be traced and that there is no room for",
        );
        let drops = observers.drops.as_ref().map(DropObserver::snapshot);
        if let Some(drops) = self.read("drops", drops) {
            self.count(drops.uncounted, "drops that a full table kept out");
        }
        let queries = observers.queries.as_ref().map(QueryObserver::snapshot);
        if let Some(queries) = self.read("DNS", queries) {
            for (table, count) in queries.unrecorded {
                self.count(count, &format!("DNS messages that are not counted ({table})"));
            }
        }
        if let Some(tcp) = &observers.tcp {
            self.of_tcp(tcp);
        }
    }

    fn of_tcp(&mut self, observer: &TcpObserver) {
        if let Some(tcp) = self.read("TCP", Some(observer.snapshot())) {
            let what = "TCP connections that a full table kept out, with their bytes and times (see --tcp-connections)";
            self.count(tcp.untracked, what);
            let what = "later sightings of TCP connections that a full table kept out";
            self.count(tcp.untracked_sightings, what);
        }
        let left_out = observer.peers_left_out() as u64;
        self.count(
            left_out,
            "addresses of Services that there is no room for among peers",
        );
    }

    fn of_runtime(&mut self, observers: &Observers) {
        let out_of_sync = observers.cri.as_ref().map(|cri| cri.snapshot().out_of_sync);
        self.count(
            out_of_sync.unwrap_or_default(),
            "times that a connection of the container runtime was not followed",
        );
        self.count(
            observers.cri.as_ref().map_or(0, CriObserver::lost_chunks),
            "pieces of what was said to and by the container runtime that were not read",
        );
        self.count(
            observers.told().gaps,
            "times that the container runtime's events were interrupted",
        );
    }

    fn of_programs(&mut self, observers: &Observers) {
        if let Some(misses) = self.read("programs", Some(misses())) {
            self.count(misses, "runs of programs that the kernel left out");
        }
        for (incident, count) in observers.incident_counts() {
            self.count(count, &format!("incidents in the fault programs ({incident})"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_observed_or_went_wrong_is_said() {
        let observers = Observers {
            incidents: Some(Box::new(|| {
                std::array::from_fn(|which| u64::from(which == 2) * 5)
            })),
            only_during_faults: vec!["TCP connections"],
            ..Observers::default()
        };
        let missing = missing(&observers);
        for words in [
            "drops are not observed",
            "TCP connections are only observed while a fault is active",
            "5 incidents in the fault programs (no_counters)",
        ] {
            assert!(missing.iter().any(|said| said == words), "{words}: {missing:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_missing_and_nothing_is_not() {
        let mut missing = Missing::default();
        assert_eq!(missing.read("drops", Some(Ok::<_, String>(7))), Some(7));
        assert_eq!(missing.read("TCP", Some(Err::<u64, _>("no map"))), None);
        assert_eq!(missing.read::<u64, String>("DNS", None), None);
        missing.count(0, "nothing");
        assert_eq!(missing.0, ["the counters of TCP can't be read: no map"]);
    }
}

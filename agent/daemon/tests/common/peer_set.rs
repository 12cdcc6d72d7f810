//! What a set of peers is, said plainly.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use sabot_core::plan::{PeerEntry, PeerPort};

#[derive(Clone, Debug, Default)]
pub(crate) struct PeerSet {
    /// Whether each is included.
    pub(crate) nets: BTreeMap<IpNet, bool>,
    pub(crate) ports: BTreeSet<(IpAddr, PeerPort)>,
}

impl PeerSet {
    pub(crate) fn add(&mut self, entries: &[PeerEntry]) {
        for entry in entries {
            match entry.only {
                Some(only) => drop(self.ports.insert((entry.net.addr(), only))),
                None => drop(self.nets.insert(entry.net, !entry.excepted)),
            }
        }
    }

    pub(crate) fn remove(&mut self, entries: &[PeerEntry]) {
        for entry in entries {
            match entry.only {
                Some(only) => drop(self.ports.remove(&(entry.net.addr(), only))),
                None => drop(self.nets.remove(&entry.net)),
            }
        }
    }

    pub(crate) fn entries(&self) -> Vec<PeerEntry> {
        let nets = self.nets.iter().map(|(net, included)| PeerEntry {
            excepted: !included,
            ..PeerEntry::included(*net)
        });
        let ports = self.ports.iter();
        nets.chain(ports.map(|(address, only)| PeerEntry::limited(*address, *only)))
            .collect()
    }

    /// Whether it has an end of this protocol, with its port where it has one.
    pub(crate) fn includes(&self, other: IpAddr, protocol: u8, port: Option<u16>) -> bool {
        let limited = self.ports.iter().any(|(address, only)| {
            let meant = only.port.is_none() || only.port == port;
            *address == other && only.protocol == protocol && meant
        });
        let around = self.nets.iter().filter(|(net, _)| net.contains(&other));
        let longest = around.max_by_key(|(net, _)| net.prefix_len());
        limited || longest.is_some_and(|(_, included)| *included)
    }
}

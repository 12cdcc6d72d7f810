//! Which namespaces and devices the source of the world has to look at.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use sabot_core::model::{BootTime, Fault, Peer, TargetSelector};

use super::node::ControlPlane;
use crate::targets::Wanted;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Netns(PathBuf),
    Interface(String),
}

/// Places that active faults name, and those that are kept in sight for a while, so that the next fault on them finds
/// them known and warm.
#[derive(Debug, Default)]
pub(super) struct Places {
    lingering: BTreeMap<Place, BootTime>,
    /// Being looked at for a command, by how many of them.
    looking: BTreeMap<Place, u32>,
    /// What the source was told last.
    told: Wanted,
}

impl Places {
    /// Keeps the target's place in sight until then; pods need no telling.
    pub(super) fn linger(&mut self, target: &TargetSelector, until: BootTime) {
        if let Some(place) = place(target) {
            let known = self.lingering.entry(place).or_insert(until);
            *known = until.max(*known);
        }
    }

    /// A command waits for the target's place to be looked at, however long that takes. Returns what has to be read for it.
    pub(super) fn look(&mut self, target: &TargetSelector) -> BTreeSet<PathBuf> {
        let Some(place) = place(target) else {
            return BTreeSet::new();
        };
        let namespaces = match &place {
            Place::Netns(path) => BTreeSet::from([path.clone()]),
            Place::Interface(_) => BTreeSet::new(),
        };
        *self.looking.entry(place).or_default() += 1;
        namespaces
    }

    /// The command goes on.
    pub(super) fn looked(&mut self, target: &TargetSelector) {
        if let Some(place) = place(target)
            && let Some(commands) = self.looking.get_mut(&place)
        {
            *commands -= 1;
            if *commands == 0 {
                self.looking.remove(&place);
            }
        }
    }

    /// Everything to look at now, with what the given faults name.
    pub(super) fn wanted<'a>(&mut self, faults: impl Iterator<Item = &'a Fault>, now: BootTime) -> Wanted {
        self.lingering.retain(|_, until| *until > now);
        let mut wanted = Wanted::default();
        for fault in faults {
            include(&mut wanted, place(&fault.target));
            if place(&fault.target).is_some() {
                // It may be the node itself, whose way to the API server is kept.
                wanted.cluster.services.insert(ControlPlane::service());
            }
            wanted.names.extend(fault.peers.iter().filter_map(name).cloned());
        }
        for place in self.lingering.keys().chain(self.looking.keys()) {
            include(&mut wanted, Some(place.clone()));
        }
        wanted
    }

    /// Whether the source hasn't been told this yet; takes it as told from now on.
    pub(super) fn tell(&mut self, wanted: &Wanted) -> bool {
        let new = self.told != *wanted;
        if new {
            self.told = wanted.clone();
        }
        new
    }

    pub(super) fn wake_at(&self) -> Option<BootTime> {
        self.lingering.values().min().copied()
    }
}

fn include(wanted: &mut Wanted, place: Option<Place>) {
    match place {
        Some(Place::Netns(path)) => drop(wanted.netns_paths.insert(path)),
        Some(Place::Interface(name)) => drop(wanted.interfaces.insert(name)),
        None => {}
    }
}

fn name(peer: &Peer) -> Option<&String> {
    match peer {
        Peer::Host(name) => Some(name),
        Peer::Address(_) | Peer::Cidr { .. } | Peer::Pods(_) => None,
    }
}

fn place(target: &TargetSelector) -> Option<Place> {
    match target {
        TargetSelector::Pods { .. } => None,
        TargetSelector::Netns(path) => Some(Place::Netns(path.clone())),
        TargetSelector::Interface(name) => Some(Place::Interface(name.clone())),
    }
}

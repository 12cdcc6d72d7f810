//! How many pods may have faults at once.

use std::collections::{BTreeMap, BTreeSet};

use super::{Guard, Guarded, Guards};
use crate::model::{NetnsId, Percent, World};
use crate::resolve::Resolution;

/// Which pod a device and a name stand for.
pub(super) struct Owners<'a> {
    by_netns: BTreeMap<NetnsId, &'a str>,
    by_uid: BTreeMap<&'a str, &'a str>,
}

impl<'a> Owners<'a> {
    pub(super) fn of(world: &'a World) -> Self {
        let mut owners = Self {
            by_netns: BTreeMap::new(),
            by_uid: BTreeMap::new(),
        };
        for (sandbox, pod) in &world.pods {
            owners.by_uid.insert(&pod.uid, sandbox);
            for device in &pod.devices {
                owners.by_netns.insert(device.key.netns, sandbox);
            }
        }
        owners
    }

    /// The pods on which the fault is in force, or is about to be.
    pub(super) fn in_force(&self, resolution: &Resolution) -> BTreeSet<&'a str> {
        let targets = resolution.targets.iter().chain(&resolution.held);
        let netns = targets.map(|target| target.device.key.netns);
        netns
            .filter_map(|netns| self.by_netns.get(&netns).copied())
            .collect()
    }

    /// Those, and the ones that it would be in force on if shares allowed it.
    pub(super) fn meant(&self, resolution: &Resolution) -> BTreeSet<&'a str> {
        let mut meant = self.in_force(resolution);
        for refused in &resolution.refused {
            if refused.guard.is_some_and(|guard| !guard.is_protection())
                && let Some(pod) = &refused.pod
            {
                meant.extend(self.by_uid.get(pod.uid.as_str()));
            }
        }
        meant
    }
}

/// How many more pods may have faults.
pub(super) struct Room<'a> {
    guards: &'a Guards,
    node: Share,
    namespaces: BTreeMap<String, Share>,
}

#[derive(Clone, Copy, Default)]
struct Share {
    pods: usize,
    taken: usize,
}

impl Share {
    /// Takes one more, unless they are all taken; then it says how many those are.
    fn take(&mut self, share: Percent) -> Result<(), usize> {
        let allowed = allowed(self.pods, share);
        if self.taken >= allowed {
            return Err(allowed);
        }
        self.taken += 1;
        Ok(())
    }
}

impl<'a> Room<'a> {
    pub(super) fn of(guards: &'a Guards, world: &World) -> Self {
        let mut room = Self {
            guards,
            node: Share::default(),
            namespaces: BTreeMap::new(),
        };
        for pod in world.pods.values().filter(|pod| !pod.host_network) {
            room.node.pods += 1;
            room.namespaces.entry(pod.namespace.clone()).or_default().pods += 1;
        }
        room
    }

    /// One more pod of the namespace has a fault.
    pub(super) fn take(&mut self, namespace: &str) -> Result<(), Guarded> {
        let refused = |guard, share: Percent, pods, of: &str, allowed| Guarded {
            guard,
            reason: format!(
                "at most {} % of the {pods} pods {of} may have faults at once, which is {allowed}",
                share.value()
            ),
        };
        let mut own = self.namespaces.get(namespace).copied().unwrap_or_default();
        let share = self.guards.namespace_share;
        if let Err(allowed) = own.take(share) {
            let of = format!("of namespace {namespace} on this node");
            return Err(refused(Guard::NamespaceShare, share, own.pods, &of, allowed));
        }
        let share = self.guards.node_share;
        if let Err(allowed) = self.node.take(share) {
            return Err(refused(
                Guard::NodeShare,
                share,
                self.node.pods,
                "of this node",
                allowed,
            ));
        }
        self.namespaces.insert(namespace.to_owned(), own);
        Ok(())
    }
}

/// That share of so many pods, rounded down.
pub(super) fn allowed(pods: usize, share: Percent) -> usize {
    // A hair more, so that 58 % of 50 are 29, which a binary fraction misses.
    (share.value() * pods as f64 / 100.0 + 1e-9).floor() as usize
}

//! Which pods a selector means, and which of them a seeded pick takes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{ClusterPod, LabelRequirement, LabelSelector, Pick, PickShare, Pod, PodSelector, World};

impl LabelRequirement {
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::In { key, values } => labels.get(key).is_some_and(|v| values.contains(v)),
            // As in Kubernetes, a pod without the label satisfies NotIn.
            Self::NotIn { key, values } => !labels.get(key).is_some_and(|v| values.contains(v)),
            Self::Exists { key } => labels.contains_key(key),
            Self::DoesNotExist { key } => !labels.contains_key(key),
        }
    }
}

impl LabelSelector {
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements.iter().all(|r| r.matches(labels))
    }
}

impl PodSelector {
    pub fn matches(&self, pod: &Pod) -> bool {
        self.names(&pod.namespace, &pod.name, &pod.labels)
    }

    /// Whether it means a pod of this name and these labels.
    pub fn names(&self, namespace: &str, name: &str, labels: &BTreeMap<String, String>) -> bool {
        namespace == self.namespace
            && self.name.as_ref().is_none_or(|wanted| *wanted == name)
            && self.labels.matches(labels)
    }

    /// The matching pods of other nodes, as far as the cluster's API told of them; those that no node has yet are left out.
    pub fn elsewhere<'a>(&'a self, world: &'a World) -> impl Iterator<Item = &'a ClusterPod> {
        let known = world.cluster.pods.get(self).into_iter();
        let known = known.flat_map(|pods| pods.values().map(Arc::as_ref));
        known.filter(|pod| !pod.node.is_empty())
    }

    /// The addresses of all matching pods, of this node and of others.
    pub fn addresses<'a>(&'a self, world: &'a World) -> impl Iterator<Item = IpAddr> + 'a {
        let here = world.pods.values().filter(|pod| self.matches(pod));
        let here = here.flat_map(|pod| &pod.addresses);
        let elsewhere = self.elsewhere(world).flat_map(|pod| &pod.addresses);
        here.chain(elsewhere).map(IpAddr::to_canonical)
    }
}

/// In kubectl's syntax.
impl fmt::Display for LabelRequirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list =
            |values: &BTreeSet<String>| values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        match self {
            Self::In { key, values } if values.len() == 1 => write!(f, "{key}={}", list(values)),
            Self::In { key, values } => write!(f, "{key} in ({})", list(values)),
            Self::NotIn { key, values } if values.len() == 1 => write!(f, "{key}!={}", list(values)),
            Self::NotIn { key, values } => write!(f, "{key} notin ({})", list(values)),
            Self::Exists { key } => f.write_str(key),
            Self::DoesNotExist { key } => write!(f, "!{key}"),
        }
    }
}

/// In kubectl's syntax; empty for the selector that matches everything.
impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{requirement}")?;
        }
        Ok(())
    }
}

/// The pods that `pick` takes of those that match, by their uids, or by whatever else tells one from the other.
///
/// One seeded ranking of all pods decides: a count takes the first ones, a percent as many as its share of all, rounded
/// up. A pod's rank depends on the seed and its uid alone, so a pod that comes or goes moves at most one pod in or out
/// besides itself. A uid that is given twice counts once.
pub fn taken<'a>(matching: impl Iterator<Item = &'a str>, pick: &Pick) -> BTreeSet<&'a str> {
    let ranking: BTreeSet<(u64, &str)> = matching.map(|uid| (rank(pick.seed, uid), uid)).collect();
    let count = match pick.share {
        PickShare::Count(count) => count as usize,
        // The small allowance keeps a rounding error from counting as a fraction of a pod.
        PickShare::Percent(share) => (share.value() * ranking.len() as f64 / 100.0 - 1e-9).ceil() as usize,
    };
    ranking.into_iter().take(count).map(|(_, uid)| uid).collect()
}

/// A pod's place in the ranking of a seed: FNV-1a (64 bits) over the seed's eight bytes, little-endian, and the uid's
/// bytes, then the finaliser of splitmix64, since FNV alone mixes its last bytes badly into the high bits. The same on
/// every machine and in every version.
pub fn rank(seed: u64, uid: &str) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in seed.to_le_bytes().into_iter().chain(uid.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

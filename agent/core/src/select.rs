//! Which pods a selector means, and which of them a seeded pick takes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::model::{LabelRequirement, LabelSelector, Pick, PickShare, Pod, PodSelector};

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
        pod.namespace == self.namespace
            && self.name.as_ref().is_none_or(|name| *name == pod.name)
            && self.labels.matches(&pod.labels)
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

/// The pods that `pick` takes of those that match.
///
/// One seeded ranking of all pods decides: a count takes the first ones, a percent as many as its share of all, rounded
/// up. A pod's rank depends on the seed and its uid alone, so a pod that comes or goes moves at most one pod in or out
/// besides itself. Sandboxes of one pod go together.
pub fn pick<'a>(matching: &[&'a Pod], pick: &Pick) -> Vec<&'a Pod> {
    let ranking: BTreeSet<(u64, &str)> = matching
        .iter()
        .map(|pod| (rank(pick.seed, &pod.uid), pod.uid.as_str()))
        .collect();
    let count = match pick.share {
        PickShare::Count(count) => count as usize,
        // The small allowance keeps a rounding error from counting as a fraction of a pod.
        PickShare::Percent(share) => (share.value() * ranking.len() as f64 / 100.0 - 1e-9).ceil() as usize,
    };
    let taken: BTreeSet<&str> = ranking.into_iter().take(count).map(|(_, uid)| uid).collect();
    matching
        .iter()
        .copied()
        .filter(|pod| taken.contains(pod.uid.as_str()))
        .collect()
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

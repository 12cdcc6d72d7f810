//! What an API server that answers doesn't give.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The oldest version that is supported.
const OLDEST: (u32, u32) = (1, 27);
/// Of a server that keeps its version to itself.
pub const UNKNOWN_VERSION: &str = "unknown";

/// Where a server is older than what is supported: what is to be said of that.
pub fn too_old(version: &str) -> Option<String> {
    let mut numbers = version.strip_prefix('v')?.split(['.', '-', '+']);
    let mut number = || numbers.next()?.parse::<u32>().ok();
    let is_older = (number()?, number()?) < OLDEST;
    is_older.then(|| format!("supported are {}.{} and later", OLDEST.0, OLDEST.1))
}

/// Parts of the cluster that can't be followed, and why. A clone is of the same.
#[derive(Clone, Debug, Default)]
pub struct Lacks(Arc<Mutex<BTreeMap<String, String>>>);

impl Lacks {
    /// For one who follows this part.
    pub fn of(&self, part: String) -> Lack {
        Lack {
            part,
            all: self.clone(),
        }
    }

    /// Each part with the reason.
    pub fn all(&self) -> BTreeMap<String, String> {
        self.parts().clone()
    }

    fn parts(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One part. Nothing is said of it any more once this is dropped.
#[derive(Debug)]
pub struct Lack {
    part: String,
    all: Lacks,
}

impl Lack {
    /// It can't be followed now; whether that is new.
    pub fn is(&self, reason: String) -> bool {
        self.all.parts().insert(self.part.clone(), reason).is_none()
    }

    /// It can be followed; whether that is new.
    pub fn is_not(&self) -> bool {
        self.all.parts().remove(&self.part).is_some()
    }
}

impl Drop for Lack {
    fn drop(&mut self) {
        self.is_not();
    }
}

#[cfg(test)]
mod tests {
    use super::{Lacks, too_old};

    #[test]
    fn versions_are_supported_from_1_27_on() {
        for old in ["v1.20.2", "v1.26.15", "v1.26.9-eks-1234567", "v1.9.0", "v0.99"] {
            assert!(too_old(old).is_some_and(|said| said.contains("1.27")), "{old}");
        }
        for fine in ["v1.27.0", "v1.33.1", "v1.33.1+k3s1", "v1.27.3-gke.100", "v2.0.0"] {
            assert_eq!(too_old(fine), None, "{fine}");
        }
        // Nothing is said of what can't be read.
        for unknown in ["unknown", "", "v1", "1.20.2"] {
            assert_eq!(too_old(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn what_is_followed_no_more_lacks_nothing() {
        let lacks = Lacks::default();
        let nodes = lacks.of("nodes".to_owned());
        let pods = lacks.of("pods".to_owned());
        assert!(nodes.is("forbidden".to_owned()));
        assert!(!nodes.is("forbidden still".to_owned()));
        assert!(pods.is("not found".to_owned()));
        assert_eq!(lacks.all()["nodes"], "forbidden still");
        assert!(pods.is_not());
        assert!(!pods.is_not());
        drop(nodes);
        assert!(lacks.all().is_empty());
    }
}

//! What this machine can do, and why not where it can't.

/// The container runtime's calls can be read.
pub const CRI_CALLS: &str = "cri_calls";

/// One thing that the daemon needs from the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// From a closed set: `bpf`, `boot_clock`, `ringbuf`, `atomics`, `tcx`, `clsact`, `tun`, `veth`, `departures`,
    /// `raw_tracepoints`, `cri_calls`, `tcp_tracepoints`, `drop_reasons`, `dns_queries`, `kubernetes`.
    pub name: &'static str,
    pub available: bool,
    /// What was found, or why it is missing.
    pub detail: String,
    /// What doesn't work without it, in words; empty when it is available.
    pub consequence: String,
}

impl Feature {
    /// What was found, or why it is missing and what doesn't work then.
    pub fn new(name: &'static str, found: Result<String, String>, consequence: &str) -> Self {
        let available = found.is_ok();
        Self {
            name,
            available,
            detail: found.unwrap_or_else(|reason| reason),
            consequence: if available {
                String::new()
            } else {
                consequence.to_owned()
            },
        }
    }
}

/// All features, in a fixed order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// `uname -r`.
    pub kernel_release: String,
    pub list: Vec<Feature>,
}

impl Features {
    pub fn get(&self, name: &str) -> Option<&Feature> {
        self.list.iter().find(|f| f.name == name)
    }

    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some_and(|f| f.available)
    }

    /// These, and others besides.
    pub fn and(mut self, others: impl IntoIterator<Item = Feature>) -> Self {
        self.list.extend(others);
        self
    }
}

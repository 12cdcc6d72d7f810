//! What the daemon must be allowed to do, checked before anything is touched.

use std::fmt;
use std::fs;

use aya::util::KernelVersion;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

/// A capability, and what it is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    pub capability: &'static str,
    pub purpose: &'static str,
    number: u32,
    /// The kernel takes CAP_SYS_ADMIN in its place.
    implied_by_sys_admin: bool,
}

const NEEDS: [Need; 3] = [
    Need {
        capability: "CAP_BPF",
        purpose: "to load eBPF programs",
        number: CAP_BPF,
        implied_by_sys_admin: true,
    },
    Need {
        capability: "CAP_NET_ADMIN",
        purpose: "to attach programs to network devices and to make devices",
        number: CAP_NET_ADMIN,
        implied_by_sys_admin: false,
    },
    Need {
        capability: "CAP_SYS_ADMIN",
        purpose: "to enter network namespaces",
        number: CAP_SYS_ADMIN,
        implied_by_sys_admin: false,
    },
];

#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    #[error("cannot read the process's capabilities from /proc/self/status: {0}")]
    Read(std::io::Error),
    #[error("/proc/self/status has no capabilities: {0:?}")]
    Malformed(String),
    #[error("sabotd lacks {}{}", Missing(.needs), hint(*.root))]
    Missing { needs: Vec<Need>, root: bool },
}

struct Missing<'a>(&'a [Need]);

impl fmt::Display for Missing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, need) in self.0.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{} ({})", need.capability, need.purpose)?;
        }
        Ok(())
    }
}

fn hint(root: bool) -> &'static str {
    if root {
        "; it runs as root, but without these: see the service's or container's capabilities"
    } else {
        "; it doesn't run as root: start it as root, or give it these capabilities"
    }
}

/// Checks the process's effective capabilities.
///
/// # Errors
/// Every capability that is missing, and what it is needed for.
pub(super) fn check() -> Result<(), PrivilegeError> {
    let status = fs::read_to_string("/proc/self/status").map_err(PrivilegeError::Read)?;
    let needs = missing(effective(&status)?);
    if needs.is_empty() {
        return Ok(());
    }
    Err(PrivilegeError::Missing {
        needs,
        root: nix::unistd::geteuid().is_root(),
    })
}

/// Linux before 5.11 counts what programs and their tables take as locked memory, of which even root may have little.
/// Where the limit can't be raised the log says so, and the kernel decides whether it is enough.
pub(super) fn raise_locked_memory() {
    if !KernelVersion::current().is_ok_and(|version| version < KernelVersion::new(5, 11, 0)) {
        return;
    }
    if let Err(error) = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY) {
        let limit = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(0, |(soft, _)| soft);
        tracing::warn!(
            %error,
            limit,
            "the limit of locked memory (bytes), of which this kernel takes the programs', can't be raised: it takes CAP_SYS_RESOURCE"
        );
    }
}

fn effective(status: &str) -> Result<u64, PrivilegeError> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .unwrap_or_default()
        .trim();
    u64::from_str_radix(line, 16).map_err(|_| PrivilegeError::Malformed(line.to_owned()))
}

fn missing(effective: u64) -> Vec<Need> {
    let has = |number: u32| effective & (1 << number) != 0;
    NEEDS
        .into_iter()
        .filter(|need| !has(need.number))
        .filter(|need| !need.implied_by_sys_admin || !has(CAP_SYS_ADMIN))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(effective: u64) -> Vec<&'static str> {
        missing(effective).iter().map(|need| need.capability).collect()
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(names(0), ["CAP_BPF", "CAP_NET_ADMIN", "CAP_SYS_ADMIN"]);
        assert_eq!(
            names(1 << CAP_SYS_ADMIN),
            ["CAP_NET_ADMIN"],
            "it stands for CAP_BPF"
        );
        assert_eq!(names(1 << CAP_BPF | 1 << CAP_NET_ADMIN), ["CAP_SYS_ADMIN"]);
        assert!(names(u64::MAX).is_empty());
    }

    #[test]
    fn the_kernels_form_is_read() {
        let status = "Name:\tsabotd\nCapPrm:\t0000000000000000\nCapEff:\t000001fffeffffff\n";
        assert_eq!(effective(status).expect("well-formed"), 0x1ff_feff_ffff);
        assert!(matches!(
            effective("Name:\tx\n"),
            Err(PrivilegeError::Malformed(_))
        ));
    }

    #[test]
    fn the_message_says_what_to_do() {
        let error = PrivilegeError::Missing {
            needs: missing(1 << CAP_SYS_ADMIN),
            root: false,
        };
        assert_eq!(
            error.to_string(),
            "sabotd lacks CAP_NET_ADMIN (to attach programs to network devices and to make devices); it doesn't run as \
             root: start it as root, or give it these capabilities"
        );
    }
}

//! Names of syscalls and errors.

use std::collections::HashMap;
use std::sync::OnceLock;

/// What a number without a name is called.
pub const UNKNOWN: &str = "unknown";

/// `number name` lines. The kernel gave every syscall from 424 on the same number on all architectures.
#[cfg(target_arch = "x86_64")]
const SYSCALLS: &str = include_str!("syscalls_x86_64.txt");
#[cfg(target_arch = "aarch64")]
const SYSCALLS: &str = include_str!("syscalls_aarch64.txt");
const ERRNOS: &str = include_str!("errnos.txt");

/// The name of a syscall of this architecture, or [`UNKNOWN`].
pub fn syscall_name(number: u32) -> &'static str {
    syscalls().name(number)
}

/// `None` where this architecture has no such syscall.
pub fn syscall_number(name: &str) -> Option<u32> {
    syscalls().number(name)
}

/// The name of an error, as `ENOENT`, or [`UNKNOWN`].
pub fn errno_name(errno: u32) -> &'static str {
    static NAMES: OnceLock<Names> = OnceLock::new();
    NAMES.get_or_init(|| Names::parse(ERRNOS)).name(errno)
}

fn syscalls() -> &'static Names {
    static NAMES: OnceLock<Names> = OnceLock::new();
    NAMES.get_or_init(|| Names::parse(SYSCALLS))
}

struct Names {
    by_number: Vec<Option<&'static str>>,
    by_name: HashMap<&'static str, u32>,
}

impl Names {
    fn parse(table: &'static str) -> Self {
        let by_name: HashMap<_, _> = entries(table).map(|(number, name)| (name, number)).collect();
        let mut by_number = Vec::new();
        for (&name, &number) in &by_name {
            let index = number as usize;
            if by_number.len() <= index {
                by_number.resize(index + 1, None);
            }
            by_number[index] = Some(name);
        }
        Self { by_number, by_name }
    }

    fn name(&self, number: u32) -> &'static str {
        self.by_number
            .get(number as usize)
            .copied()
            .flatten()
            .unwrap_or(UNKNOWN)
    }

    fn number(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }
}

fn entries(table: &'static str) -> impl Iterator<Item = (u32, &'static str)> {
    table.lines().filter_map(|line| {
        let (number, name) = line.split_once(' ')?;
        Some((number.parse().ok()?, name))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const X86_64: &str = include_str!("syscalls_x86_64.txt");
    const AARCH64: &str = include_str!("syscalls_aarch64.txt");

    #[test]
    fn the_tables_are_well_formed() {
        for table in [X86_64, AARCH64, ERRNOS] {
            let entries: Vec<_> = entries(table).collect();
            assert_eq!(entries.len(), table.lines().count());
            assert!(entries.is_sorted_by(|a, b| a.0 < b.0));
            assert_eq!(
                entries.iter().map(|(_, name)| name).collect::<HashSet<_>>().len(),
                entries.len()
            );
        }
    }

    #[test]
    fn the_tables_agree_with_libc() {
        for (name, number) in [
            ("openat", libc::SYS_openat),
            ("fsync", libc::SYS_fsync),
            ("epoll_pwait", libc::SYS_epoll_pwait),
            ("rt_sigreturn", libc::SYS_rt_sigreturn),
            ("exit_group", libc::SYS_exit_group),
            ("clone3", libc::SYS_clone3),
            ("futex_waitv", libc::SYS_futex_waitv),
            ("mseal", libc::SYS_mseal),
        ] {
            assert_eq!(syscall_number(name), Some(number as u32), "{name}");
            assert_eq!(syscall_name(number as u32), name);
        }
        for (errno, name) in [
            (libc::ENOENT, "ENOENT"),
            (libc::EAGAIN, "EAGAIN"),
            (libc::EHWPOISON, "EHWPOISON"),
        ] {
            assert_eq!(errno_name(errno as u32), name);
        }
    }

    #[test]
    fn architectures_share_their_newer_syscalls() {
        let newer = |table| {
            entries(table)
                .filter(|(number, _)| *number >= 424)
                .collect::<Vec<_>>()
        };
        assert_eq!(newer(X86_64), newer(AARCH64));
        assert!(newer(X86_64).contains(&(462, "mseal")));
    }

    #[test]
    fn numbers_without_a_name_are_unknown() {
        assert_eq!(syscall_name(u32::MAX), UNKNOWN);
        assert_eq!(syscall_name(400), UNKNOWN);
        assert_eq!(errno_name(0), UNKNOWN);
        assert_eq!(syscall_number("no_such_call"), None);
    }
}

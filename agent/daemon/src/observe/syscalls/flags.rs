//! Flags of syscalls as their names.

use std::fmt::Write as _;

/// A set of flags that an argument is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flags {
    Open,
    Mount,
    Unmount,
    Clone,
    Rename,
    Unlink,
}

impl Flags {
    /// As `O_WRONLY|O_CREAT`; what has no name is said as a number.
    pub(super) fn text(self, value: u64) -> String {
        match self {
            Self::Open => {
                let access = match value & libc::O_ACCMODE as u64 {
                    0 => "O_RDONLY",
                    1 => "O_WRONLY",
                    _ => "O_RDWR",
                };
                names(&OPEN, value & !(libc::O_ACCMODE as u64), access)
            }
            Self::Mount => names(&MOUNT, value, ""),
            Self::Unmount => names(&UNMOUNT, value, ""),
            Self::Clone => {
                // The lowest byte is the signal that the parent gets.
                names(&CLONE, value & !0xff, "")
            }
            Self::Rename => names(&RENAME, value, ""),
            Self::Unlink => names(&UNLINK, value, ""),
        }
    }
}

fn names(known: &[(u64, &str)], value: u64, first: &str) -> String {
    let mut text = first.to_owned();
    let mut rest = value;
    for &(bits, name) in known {
        if rest & bits == bits {
            rest &= !bits;
            if !text.is_empty() {
                text.push('|');
            }
            text.push_str(name);
        }
    }
    if rest != 0 || text.is_empty() {
        if !text.is_empty() {
            text.push('|');
        }
        // Writing to a string doesn't fail.
        let _ = write!(text, "{rest:#x}");
    }
    text
}

/// A 64-bit libc has it as zero; runtimes that make the call themselves set it.
#[cfg(target_arch = "x86_64")]
const LARGE_FILE: u64 = 0o100_000;
#[cfg(target_arch = "aarch64")]
const LARGE_FILE: u64 = 0o400_000;

/// Those of several bits come before those that are a part of them.
const OPEN: [(u64, &str); 15] = [
    (libc::O_TMPFILE as u64, "O_TMPFILE"),
    (libc::O_SYNC as u64, "O_SYNC"),
    (libc::O_CREAT as u64, "O_CREAT"),
    (libc::O_EXCL as u64, "O_EXCL"),
    (libc::O_NOCTTY as u64, "O_NOCTTY"),
    (libc::O_TRUNC as u64, "O_TRUNC"),
    (libc::O_APPEND as u64, "O_APPEND"),
    (libc::O_NONBLOCK as u64, "O_NONBLOCK"),
    (libc::O_DSYNC as u64, "O_DSYNC"),
    (libc::O_DIRECT as u64, "O_DIRECT"),
    (LARGE_FILE, "O_LARGEFILE"),
    (libc::O_DIRECTORY as u64, "O_DIRECTORY"),
    (libc::O_NOFOLLOW as u64, "O_NOFOLLOW"),
    (libc::O_CLOEXEC as u64, "O_CLOEXEC"),
    (libc::O_PATH as u64, "O_PATH"),
];

const MOUNT: [(u64, &str); 18] = [
    (libc::MS_RDONLY, "MS_RDONLY"),
    (libc::MS_NOSUID, "MS_NOSUID"),
    (libc::MS_NODEV, "MS_NODEV"),
    (libc::MS_NOEXEC, "MS_NOEXEC"),
    (libc::MS_SYNCHRONOUS, "MS_SYNCHRONOUS"),
    (libc::MS_REMOUNT, "MS_REMOUNT"),
    (libc::MS_DIRSYNC, "MS_DIRSYNC"),
    (libc::MS_NOATIME, "MS_NOATIME"),
    (libc::MS_NODIRATIME, "MS_NODIRATIME"),
    (libc::MS_BIND, "MS_BIND"),
    (libc::MS_MOVE, "MS_MOVE"),
    (libc::MS_REC, "MS_REC"),
    (libc::MS_SILENT, "MS_SILENT"),
    (libc::MS_UNBINDABLE, "MS_UNBINDABLE"),
    (libc::MS_PRIVATE, "MS_PRIVATE"),
    (libc::MS_SLAVE, "MS_SLAVE"),
    (libc::MS_SHARED, "MS_SHARED"),
    (libc::MS_RELATIME, "MS_RELATIME"),
];

const UNMOUNT: [(u64, &str); 4] = [
    (libc::MNT_FORCE as u64, "MNT_FORCE"),
    (libc::MNT_DETACH as u64, "MNT_DETACH"),
    (libc::MNT_EXPIRE as u64, "MNT_EXPIRE"),
    (libc::UMOUNT_NOFOLLOW as u64, "UMOUNT_NOFOLLOW"),
];

const CLONE: [(u64, &str); 23] = [
    (libc::CLONE_VM as u64, "CLONE_VM"),
    (libc::CLONE_FS as u64, "CLONE_FS"),
    (libc::CLONE_FILES as u64, "CLONE_FILES"),
    (libc::CLONE_SIGHAND as u64, "CLONE_SIGHAND"),
    (libc::CLONE_PIDFD as u64, "CLONE_PIDFD"),
    (libc::CLONE_VFORK as u64, "CLONE_VFORK"),
    (libc::CLONE_PARENT as u64, "CLONE_PARENT"),
    (libc::CLONE_THREAD as u64, "CLONE_THREAD"),
    (libc::CLONE_NEWNS as u64, "CLONE_NEWNS"),
    (libc::CLONE_SYSVSEM as u64, "CLONE_SYSVSEM"),
    (libc::CLONE_SETTLS as u64, "CLONE_SETTLS"),
    (libc::CLONE_PARENT_SETTID as u64, "CLONE_PARENT_SETTID"),
    (libc::CLONE_CHILD_CLEARTID as u64, "CLONE_CHILD_CLEARTID"),
    (libc::CLONE_CHILD_SETTID as u64, "CLONE_CHILD_SETTID"),
    (libc::CLONE_NEWCGROUP as u64, "CLONE_NEWCGROUP"),
    (libc::CLONE_NEWUTS as u64, "CLONE_NEWUTS"),
    (libc::CLONE_NEWIPC as u64, "CLONE_NEWIPC"),
    (libc::CLONE_NEWUSER as u64, "CLONE_NEWUSER"),
    (libc::CLONE_NEWPID as u64, "CLONE_NEWPID"),
    (libc::CLONE_NEWNET as u64, "CLONE_NEWNET"),
    (libc::CLONE_IO as u64, "CLONE_IO"),
    (1 << 32, "CLONE_CLEAR_SIGHAND"),
    (1 << 33, "CLONE_INTO_CGROUP"),
];

const RENAME: [(u64, &str); 3] = [
    (libc::RENAME_NOREPLACE as u64, "RENAME_NOREPLACE"),
    (libc::RENAME_EXCHANGE as u64, "RENAME_EXCHANGE"),
    (libc::RENAME_WHITEOUT as u64, "RENAME_WHITEOUT"),
];

const UNLINK: [(u64, &str); 1] = [(libc::AT_REMOVEDIR as u64, "AT_REMOVEDIR")];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_named_and_the_rest_is_a_number() {
        assert_eq!(Flags::Open.text(0), "O_RDONLY");
        let value = (libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC) as u64;
        assert_eq!(Flags::Open.text(value), "O_RDWR|O_CREAT|O_CLOEXEC");
        assert_eq!(Flags::Open.text(libc::O_SYNC as u64), "O_RDONLY|O_SYNC");
        assert_eq!(Flags::Mount.text(libc::MS_BIND | libc::MS_REC), "MS_BIND|MS_REC");
        assert_eq!(Flags::Mount.text(0), "0x0");
        assert_eq!(
            Flags::Clone.text((libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::SIGCHLD) as u64),
            "CLONE_NEWPID|CLONE_NEWNET"
        );
        assert_eq!(Flags::Clone.text(1 << 63), "0x8000000000000000");
    }
}

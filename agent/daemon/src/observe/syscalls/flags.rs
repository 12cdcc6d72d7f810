//! Flags of syscalls as their names.

use std::fmt::Write as _;

/// A set of flags that an argument is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flags {
    Open,
    Mount,
    Unmount,
    /// Of `clone` alone: the lowest byte is the signal that the parent gets.
    Clone,
    /// Of `clone3`, `unshare` and `setns`.
    Namespaces,
    Rename,
    Unlink,
    FsOpen,
    /// No set, but one of several.
    FsConfig,
    FsPick,
    MountAttributes,
    OpenTree,
    MoveMount,
    Resolve,
    At,
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
            Self::Clone => names(&CLONE, value & !0xff, ""),
            Self::Namespaces => names(&CLONE, value, ""),
            Self::Rename => names(&RENAME, value, ""),
            Self::Unlink => names(&UNLINK, value, ""),
            Self::FsOpen => names(&[(1, "FSOPEN_CLOEXEC")], value, ""),
            Self::FsConfig => {
                let command = usize::try_from(value).ok().and_then(|value| FSCONFIG.get(value));
                command.map_or_else(|| format!("{value:#x}"), |&name| name.to_owned())
            }
            Self::FsPick => names(&FSPICK, value, ""),
            Self::MountAttributes => mount_attributes(value),
            Self::OpenTree => names(&OPEN_TREE, value, ""),
            Self::MoveMount => names(&MOVE_MOUNT, value, ""),
            Self::Resolve => names(&RESOLVE, value, ""),
            Self::At => names(&AT, value, ""),
        }
    }
}

/// Access times are one of several, the rest are flags.
fn mount_attributes(value: u64) -> String {
    const ACCESS_TIME: u64 = 0x70;
    let first = match value & ACCESS_TIME {
        0x10 => "MOUNT_ATTR_NOATIME",
        0x20 => "MOUNT_ATTR_STRICTATIME",
        ACCESS_TIME => "MOUNT_ATTR__ATIME",
        _ => "",
    };
    match value & !ACCESS_TIME {
        0 if !first.is_empty() => first.to_owned(),
        rest => names(&MOUNT_ATTRIBUTES, rest, first),
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

const CLONE: [(u64, &str); 24] = [
    (0x80, "CLONE_NEWTIME"),
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

const FSCONFIG: [&str; 9] = [
    "FSCONFIG_SET_FLAG",
    "FSCONFIG_SET_STRING",
    "FSCONFIG_SET_BINARY",
    "FSCONFIG_SET_PATH",
    "FSCONFIG_SET_PATH_EMPTY",
    "FSCONFIG_SET_FD",
    "FSCONFIG_CMD_CREATE",
    "FSCONFIG_CMD_RECONFIGURE",
    "FSCONFIG_CMD_CREATE_EXCL",
];

const FSPICK: [(u64, &str); 4] = [
    (1, "FSPICK_CLOEXEC"),
    (2, "FSPICK_SYMLINK_NOFOLLOW"),
    (4, "FSPICK_NO_AUTOMOUNT"),
    (8, "FSPICK_EMPTY_PATH"),
];

const MOUNT_ATTRIBUTES: [(u64, &str); 7] = [
    (0x1, "MOUNT_ATTR_RDONLY"),
    (0x2, "MOUNT_ATTR_NOSUID"),
    (0x4, "MOUNT_ATTR_NODEV"),
    (0x8, "MOUNT_ATTR_NOEXEC"),
    (0x80, "MOUNT_ATTR_NODIRATIME"),
    (0x10_0000, "MOUNT_ATTR_IDMAP"),
    (0x20_0000, "MOUNT_ATTR_NOSYMFOLLOW"),
];

const OPEN_TREE: [(u64, &str); 6] = [
    (1, "OPEN_TREE_CLONE"),
    (libc::O_CLOEXEC as u64, "OPEN_TREE_CLOEXEC"),
    (libc::AT_SYMLINK_NOFOLLOW as u64, "AT_SYMLINK_NOFOLLOW"),
    (libc::AT_NO_AUTOMOUNT as u64, "AT_NO_AUTOMOUNT"),
    (libc::AT_EMPTY_PATH as u64, "AT_EMPTY_PATH"),
    (libc::AT_RECURSIVE as u64, "AT_RECURSIVE"),
];

const MOVE_MOUNT: [(u64, &str); 8] = [
    (0x1, "MOVE_MOUNT_F_SYMLINKS"),
    (0x2, "MOVE_MOUNT_F_AUTOMOUNTS"),
    (0x4, "MOVE_MOUNT_F_EMPTY_PATH"),
    (0x10, "MOVE_MOUNT_T_SYMLINKS"),
    (0x20, "MOVE_MOUNT_T_AUTOMOUNTS"),
    (0x40, "MOVE_MOUNT_T_EMPTY_PATH"),
    (0x100, "MOVE_MOUNT_SET_GROUP"),
    (0x200, "MOVE_MOUNT_BENEATH"),
];

const RESOLVE: [(u64, &str); 6] = [
    (0x1, "RESOLVE_NO_XDEV"),
    (0x2, "RESOLVE_NO_MAGICLINKS"),
    (0x4, "RESOLVE_NO_SYMLINKS"),
    (0x8, "RESOLVE_BENEATH"),
    (0x10, "RESOLVE_IN_ROOT"),
    (0x20, "RESOLVE_CACHED"),
];

const AT: [(u64, &str); 4] = [
    (libc::AT_SYMLINK_NOFOLLOW as u64, "AT_SYMLINK_NOFOLLOW"),
    (libc::AT_NO_AUTOMOUNT as u64, "AT_NO_AUTOMOUNT"),
    (libc::AT_EMPTY_PATH as u64, "AT_EMPTY_PATH"),
    (libc::AT_RECURSIVE as u64, "AT_RECURSIVE"),
];

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
        // The same bit is a part of a signal's number here, and a namespace there.
        assert_eq!(Flags::Clone.text(0x80), "0x0");
        assert_eq!(
            Flags::Namespaces.text(0x80 | libc::CLONE_NEWNET as u64),
            "CLONE_NEWTIME|CLONE_NEWNET"
        );
    }

    #[test]
    fn what_is_one_of_several_is_no_set() {
        assert_eq!(Flags::FsConfig.text(1), "FSCONFIG_SET_STRING");
        assert_eq!(Flags::FsConfig.text(99), "0x63");
        assert_eq!(Flags::MountAttributes.text(0), "0x0");
        assert_eq!(Flags::MountAttributes.text(0x20), "MOUNT_ATTR_STRICTATIME");
        assert_eq!(
            Flags::MountAttributes.text(0x11),
            "MOUNT_ATTR_NOATIME|MOUNT_ATTR_RDONLY"
        );
    }
}

//! Starting a daemon on a machine that lacks something.
//!
//! What a process may do is inherited from the thread that starts it, so that each daemon is started from a thread of its
//! own, which gives something up first and then ends.

use std::ffi::c_ulong;
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process;
use std::thread;

use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use sabot_testkit::{Daemon, DaemonOptions};
use tempfile::TempDir;

pub(crate) const CAP_NET_ADMIN: c_ulong = 12;
pub(crate) const CAP_SYS_ADMIN: c_ulong = 21;
pub(crate) const CAP_BPF: c_ulong = 39;

const NOBODY: libc::c_long = 65_534;

/// Starts a daemon that answers, from a thread that has given something up.
pub(crate) fn start(options: DaemonOptions, give_up: impl FnOnce() -> io::Result<()> + Send) -> Daemon {
    from_thread(give_up, || Daemon::start(options).expect("it starts"))
}

/// Starts a daemon that is meant to fail.
pub(crate) fn spawn(options: DaemonOptions, give_up: impl FnOnce() -> io::Result<()> + Send) -> Daemon {
    from_thread(give_up, || Daemon::spawn(options).expect("it can be started"))
}

fn from_thread(
    give_up: impl FnOnce() -> io::Result<()> + Send,
    start: impl FnOnce() -> Daemon + Send,
) -> Daemon {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            give_up().expect("the thread can give it up (root is needed)");
            start()
        });
        thread.join().expect("it has started")
    })
}

/// What the thread starts from now on has none of these capabilities.
pub(crate) fn without(capabilities: &[c_ulong]) -> io::Result<()> {
    for capability in capabilities {
        // SAFETY: PR_CAPBSET_DROP takes a number.
        check(libc::c_long::from(unsafe {
            libc::prctl(libc::PR_CAPBSET_DROP, *capability, 0, 0, 0)
        }))?;
    }
    Ok(())
}

/// The thread is nobody from now on.
pub(crate) fn become_nobody() -> io::Result<()> {
    // The C library's functions would change all threads.
    // SAFETY: the list of groups is empty.
    check(unsafe { libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()) })?;
    // SAFETY: these take numbers.
    check(unsafe { libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY) })?;
    // SAFETY: as above.
    check(unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) })
}

/// For what the thread starts from now on, bpf(2) fails with this error.
pub(crate) fn without_bpf(errno: i32) -> io::Result<()> {
    let instruction = |code: u32, jump_if: u8, jump_else: u8, k: u32| libc::sock_filter {
        code: code as u16,
        jt: jump_if,
        jf: jump_else,
        k,
    };
    // The first word that a filter sees is the syscall's number.
    let mut filter = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            0,
            1,
            libc::SYS_bpf as u32,
        ),
        instruction(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | errno as u32,
        ),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    let mode = libc::SECCOMP_MODE_FILTER as c_ulong;
    // SAFETY: the program and its instructions outlive the call, which copies them.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program, 0, 0) };
    check(libc::c_long::from(result))
}

/// For what the thread starts from now on, /dev/net is empty.
pub(crate) fn without_tun() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )?;
    mount(
        Some("none"),
        "/dev/net",
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )?;
    Ok(())
}

/// The daemon's binary where everybody can run it, whatever folder it was built in.
pub(crate) fn public_binary(options: &mut DaemonOptions) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    let copy = folder.path().join("sabotd");
    fs::copy(&options.sabotd, &copy).expect("there is room");
    options.sabotd = copy;
    folder
}

/// A control group whose processes may not open /dev/net/tun; it goes with this.
pub(crate) struct DeviceGroup {
    path: PathBuf,
    scripts: TempDir,
}

impl DeviceGroup {
    /// Makes one in the version 2 hierarchy, which a machine has beside a version 1 one too.
    pub(crate) fn without_tun() -> Self {
        let unified = Path::new("/sys/fs/cgroup/unified");
        let root = if unified.is_dir() {
            unified
        } else {
            Path::new("/sys/fs/cgroup")
        };
        let path = root.join(format!("sabot-input-{}", process::id()));
        fs::create_dir(&path).expect("a control group can be made (root is needed)");
        let group = Self {
            path,
            scripts: tempfile::tempdir().expect("a temporary folder"),
        };
        let folder = fs::File::open(&group.path).expect("it is there");
        let program = deny_program().expect("the kernel has device programs");
        attach(&program, &folder).expect("it is attached");
        group
    }

    /// The daemon enters the group before it runs.
    pub(crate) fn admit(&self, options: &mut DaemonOptions) {
        let script = self.scripts.path().join("sabotd");
        let text = format!(
            "#!/bin/sh\necho $$ > {}/cgroup.procs && exec {} \"$@\"\n",
            self.path.display(),
            options.sabotd.display()
        );
        let mut file = fs::File::create(&script).expect("the folder is ours");
        file.write_all(text.as_bytes()).expect("there is room");
        file.set_permissions(fs::Permissions::from_mode(0o755))
            .expect("it is ours");
        options.sabotd = script;
    }
}

impl Drop for DeviceGroup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.path) {
            eprintln!("{} can't be removed: {error}", self.path.display());
        }
    }
}

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;

/// A program that allows every device but 10:200.
fn deny_program() -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Load {
        program_type: u32,
        instructions: u32,
        first: *const u64,
        license: *const libc::c_char,
        rest: [u64; 3],
    }
    let instruction = |code: u64, registers: u64, offset: u64, value: u64| {
        code | registers << 8 | offset << 16 | value << 32
    };
    let program = [
        // r2 = major, r3 = minor, r0 = 1 (allow).
        instruction(0x61, 0x12, 4, 0),
        instruction(0x61, 0x13, 8, 0),
        instruction(0xb7, 0x00, 0, 1),
        // Another major or minor: leave.
        instruction(0x55, 0x02, 2, 10),
        instruction(0x55, 0x03, 1, 200),
        instruction(0xb7, 0x00, 0, 0),
        instruction(0x95, 0x00, 0, 0),
    ];
    let load = Load {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instructions: program.len() as u32,
        first: program.as_ptr(),
        license: c"GPL".as_ptr(),
        rest: [0; 3],
    };
    // SAFETY: the attribute and what it points at outlive the call; its size is its own.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<Load>()) };
    check(fd)?;
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn attach(program: &OwnedFd, group: &fs::File) -> io::Result<()> {
    let attribute = [
        group.as_raw_fd() as u32,
        program.as_raw_fd() as u32,
        BPF_CGROUP_DEVICE,
        0,
    ];
    // SAFETY: the attribute outlives the call; its size is its own.
    check(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_ATTACH,
            attribute.as_ptr(),
            size_of_val(&attribute),
        )
    })
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

//! Calls for a daemon to trace, and who traces them beside it.

use std::ffi::CString;
use std::process::Command;
use std::thread;

/// As many failing opens, on a thread of this name.
///
/// # Panics
///
/// The name has a NUL, or something is there.
pub fn open_missing(name: &str, times: u64) {
    thread::scope(|scope| {
        scope.spawn(|| {
            let name = CString::new(name).expect("a name");
            nix::sys::prctl::set_name(&name).expect("it is taken");
            for _ in 0..times {
                // SAFETY: the path is a valid string.
                let opened = unsafe { libc::open(c"/no/such/file".as_ptr(), libc::O_RDONLY) };
                assert_eq!(opened, -1);
            }
            // What the thread does to end isn't part of the test.
            nix::sys::prctl::set_name(c"finished").expect("it is taken");
        });
    });
}

/// bpftrace, to be given its arguments. Its tracefs is mounted in a mount namespace of its own: many machines have none, and
/// theirs stay as they are. A signal to the child is one to bpftrace.
pub fn bpftrace() -> Command {
    const SCRIPT: &str = r#"mount -t tracefs tracefs /sys/kernel/tracing && exec bpftrace "$@""#;
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--propagation",
        "private",
        "--",
        "sh",
        "-c",
        SCRIPT,
        "bpftrace",
    ]);
    command
}

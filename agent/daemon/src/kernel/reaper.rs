//! `sabotd reaper`: a process that waits for its daemon's end, and then removes the daemon's clsact filters.
//!
//! Everything else goes with the daemon, whatever ends it; filters would stay, inert, until the next daemon starts. The
//! reaper learns of the end by a pipe, which the kernel closes with the daemon.

use std::ffi::CStr;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{self, Child, Command, Stdio};

use nix::sys::prctl;
use nix::sys::signal::{SigHandler, Signal, signal};

use super::sweep;

/// What it is called among the processes, which tells it from a daemon.
const NAME: &CStr = c"sabotd-reaper";

/// The daemon's end: as long as the daemon runs, the reaper waits.
pub struct Reaper {
    #[expect(dead_code, reason = "its standard input is closed with this")]
    process: Child,
}

impl Reaper {
    /// # Errors
    /// The process can't be started.
    pub fn start() -> io::Result<Self> {
        // The pipe's other end is closed on exec: no process but this one keeps it open.
        let process = Command::new("/proc/self/exe")
            .arg0("sabotd")
            .arg("reaper")
            .arg("--owner")
            .arg(process::id().to_string())
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self { process })
    }
}

/// Waits until the standard input ends, which the daemon with this pid holds open, and removes that daemon's filters.
///
/// # Errors
/// The process can't be told apart from a daemon, or not be kept from ending with it.
pub fn run(owner: u32) -> io::Result<()> {
    prctl::set_name(NAME)?;
    for ending in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        // SAFETY: to ignore a signal installs no handler.
        unsafe { signal(ending, SigHandler::SigIgn) }?;
    }
    // Nothing is ever said there. A pipe that can't be read has no daemon at its other end either.
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
    let removed = sweep::sweep_of(owner);
    if removed > 0 {
        // Whether anybody still reads it isn't known.
        let _ = writeln!(
            io::stderr(),
            "sabotd reaper: removed {removed} filters of the daemon {owner}, which has ended"
        );
    }
    Ok(())
}

//! What GetNode says works does work, and what it says is missing is refused with its reason.
//!
//! Small, quick and indifferent to time, since it runs in emulated guests with old and new kernels too.

mod actions;
mod departures;
mod endings;
mod observers;
mod programs;
mod said;

use std::sync::{PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

use sabot_testkit::features::may_lack;
use sabot_testkit::{Daemon, DaemonOptions, Rig};

/// What the daemon needs to end by itself.
const REFUSAL: Duration = Duration::from_secs(20);
/// Before the reason why no program can be loaded.
const NO_PROGRAMS: &str = "this kernel lets sabotd load no programs: ";

/// Held for reading by a test that starts a daemon: a start sweeps what any daemon has left on the machine.
static STARTS: RwLock<()> = RwLock::new(());

/// Nobody else starts a daemon while this is held.
fn no_other_starts() -> RwLockWriteGuard<'static, ()> {
    STARTS.write().unwrap_or_else(PoisonError::into_inner)
}

/// A lab with a daemon. `None` on a machine that is known to be too old for any: there the daemon has ended and said why.
fn rig(pods: usize, flags: &[&str]) -> Option<Rig> {
    let _start = STARTS.read().unwrap_or_else(PoisonError::into_inner);
    if !may_lack("bpf") {
        return Some(Rig::with_flags(pods, flags));
    }
    let options = DaemonOptions::built().expect("sabotd is built");
    let mut daemon = Daemon::spawn(options).expect("it can be started");
    let status = daemon.wait_end(REFUSAL).expect("it ends by itself");
    assert_eq!(status.code(), Some(1), "{}", daemon.log());
    let log = daemon.log();
    let reason = log.lines().find_map(|line| line.split_once(NO_PROGRAMS));
    let (_, reason) = reason.unwrap_or_else(|| panic!("it doesn't say why: {log}"));
    println!("skipped: bpf: {reason}");
    None
}

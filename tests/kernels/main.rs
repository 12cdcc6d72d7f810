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

use sabot_testkit::Rig;

/// What the daemon needs to end by itself.
const REFUSAL: Duration = Duration::from_secs(20);

/// Held for reading by a test that starts a daemon: a start sweeps what any daemon has left on the machine.
static STARTS: RwLock<()> = RwLock::new(());

/// Nobody else starts a daemon while this is held.
fn no_other_starts() -> RwLockWriteGuard<'static, ()> {
    STARTS.write().unwrap_or_else(PoisonError::into_inner)
}

/// A lab with a daemon.
fn rig(pods: usize, flags: &[&str]) -> Rig {
    let _start = STARTS.read().unwrap_or_else(PoisonError::into_inner);
    Rig::with_flags(pods, flags)
}

//! What is traced, in the daemon and in the kernel alike, and the cgroups of it that come and go.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::task::spawn_blocking;

use super::watching::places::{Found, find};
use super::watching::{Numbers, Tracing, Wanted};
use crate::kernel::syscalls::{SyscallProgramError, SyscallPrograms};
use crate::observe::clock;
use crate::observe::identity::containers::Containers;
use crate::observe::ring::OwnedTask;

/// Between two looks for cgroups.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What is traced, and by which programs.
pub(super) struct Traced {
    numbers: RwLock<Numbers>,
    programs: Arc<SyscallPrograms>,
    containers: Containers,
    /// Numbers by the ids of the cgroups that the programs know; held while what they are told is replaced.
    cgroups: Mutex<BTreeMap<u64, u32>>,
    /// Cgroups that the programs have no room for, now.
    left_out: AtomicUsize,
}

impl Traced {
    /// The programs know no cgroups yet.
    pub(super) fn new(numbers: Numbers, programs: Arc<SyscallPrograms>, containers: Containers) -> Self {
        Self {
            numbers: RwLock::new(numbers),
            programs,
            containers,
            cgroups: Mutex::default(),
            left_out: AtomicUsize::new(0),
        }
    }

    /// Cgroups that are to be traced now, and aren't for want of room.
    pub(super) fn left_out(&self) -> usize {
        self.left_out.load(Ordering::Relaxed)
    }

    pub(super) fn programs(&self) -> &SyscallPrograms {
        &self.programs
    }

    /// Whether somebody reads every event.
    pub(super) fn set_streamed(&self, streamed: bool) {
        if let Err(error) = self.programs.set_streamed(streamed) {
            tracing::warn!(%error, streamed, "the programs aren't told who reads events of syscalls");
        }
    }

    pub(super) fn read<T>(&self, get: impl FnOnce(&Numbers) -> T) -> T {
        get(&self.numbers.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// `None` for a number that is no longer in use.
    pub(super) fn label(&self, number: u32) -> Option<Arc<str>> {
        self.read(|numbers| numbers.is_live(number).then(|| numbers.label(number)))
    }

    /// Traces this instead of what was traced before.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; nothing has changed then.
    pub(super) fn replace(&self, tracing: &Tracing, wanted: Wanted) -> Result<(), SyscallProgramError> {
        let mut known = self.known();
        let next = self.read(|numbers| numbers.assign(tracing, wanted));
        let found = find(next.places(), &self.containers);
        let (cgroups, left_out) = (found.numbers(), found.left_out);
        let watch = next.watch(found);
        // Before the first event with a new number comes.
        let before = self.swap(next);
        if let Err(error) = self.programs.set_watch(&watch) {
            let failed = self.swap(before);
            self.write(|numbers| numbers.skip(&failed));
            return Err(error);
        }
        *known = cgroups;
        self.left_out.store(left_out, Ordering::Relaxed);
        Ok(())
    }

    /// Tells the programs of the cgroups that came and went. Waits for the kernel for some milliseconds if there are any.
    pub(super) fn follow(&self) -> Result<(), SyscallProgramError> {
        let mut known = self.known();
        let places = self.read(|numbers| numbers.places().clone());
        let found = find(&places, &self.containers);
        let cgroups = found.numbers();
        self.left_out.store(found.left_out, Ordering::Relaxed);
        if cgroups == *known {
            return Ok(());
        }
        self.tell(&found, known.len());
        let watch = self.read(|numbers| numbers.watch(found));
        self.programs.set_watch(&watch)?;
        *known = cgroups;
        Ok(())
    }

    fn tell(&self, found: &Found, before: usize) {
        let now = found.cgroups.len();
        if found.left_out > 0 {
            let left_out = found.left_out;
            tracing::warn!(
                traced = now,
                left_out,
                "not all cgroups that are to be traced can be"
            );
        } else {
            tracing::info!(traced = now, before, "traced cgroups came or went");
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<u64, u32>> {
        self.cgroups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write<T>(&self, change: impl FnOnce(&mut Numbers) -> T) -> T {
        change(&mut self.numbers.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn swap(&self, numbers: Numbers) -> Numbers {
        self.write(|current| std::mem::replace(current, numbers))
    }
}

/// Looks for cgroups that come and go, until it is dropped. Must be called within a tokio runtime.
pub(super) fn start(traced: Arc<Traced>) -> OwnedTask {
    let task = tokio::spawn(async move {
        let mut ticks = clock::ticks(LOOK_INTERVAL);
        loop {
            ticks.tick().await;
            let traced = Arc::clone(&traced);
            match spawn_blocking(move || traced.follow()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the syscall observer doesn't know all cgroups; it is tried again");
                }
                Err(_) => return,
            }
        }
    });
    OwnedTask::new(&task)
}

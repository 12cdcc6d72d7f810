//! How the handle talks to the engine's thread.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::eventfd::{EfdFlags, EventFd};
use sabot_core::model::TargetIdentity;
use sabot_core::plan::{Slot, TargetId};

use super::LineError;
use super::slots::Edit;

pub(super) type Reply<T> = SyncSender<T>;

pub(super) enum Command {
    Open {
        target: TargetId,
        identity: TargetIdentity,
        /// The cookie of the TAP's network namespace.
        netns: Option<u64>,
        tap: OwnedFd,
        reply: Reply<Result<(), LineError>>,
    },
    /// Answered with the line's descriptor, which the asker closes: closing a TAP waits for a grace period of
    /// the kernel's, in which the engine has packets to release. No answer: there is no such line.
    Close {
        target: TargetId,
        reply: Reply<OwnedFd>,
    },
    ClearSlot {
        slot: Slot,
        reply: Reply<()>,
    },
    /// Whether nothing waits in the line's TAP; also where there is no such line.
    IsDrained {
        target: TargetId,
        reply: Reply<bool>,
    },
    Forget {
        slot: Slot,
        target: TargetId,
        reply: Reply<()>,
    },
    /// Who owns which network namespace, by cookie.
    SetOwners {
        owners: HashMap<u64, u32>,
        reply: Reply<()>,
    },
    /// Everything is released; the descriptors come back to be closed.
    Stop {
        reply: Reply<Vec<OwnedFd>>,
    },
}

pub(super) struct Mailbox {
    /// Wakes the engine.
    pub(super) wake: Arc<EventFd>,
    inner: Mutex<Inner>,
    edits_waiting: AtomicBool,
    commands_waiting: AtomicBool,
}

#[derive(Default)]
struct Inner {
    edits: Vec<(Slot, Edit)>,
    commands: VecDeque<Command>,
    closed: bool,
}

impl Mailbox {
    pub(super) fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self {
            wake: Arc::new(EventFd::from_value_and_flags(0, flags)?),
            inner: Mutex::default(),
            edits_waiting: AtomicBool::new(false),
            commands_waiting: AtomicBool::new(false),
        })
    }

    /// False when the engine is gone.
    pub(super) fn send(&self, command: Command) -> bool {
        {
            let mut inner = self.lock();
            if inner.closed {
                return false;
            }
            inner.commands.push_back(command);
            self.commands_waiting.store(true, Ordering::Release);
        }
        self.signal();
        true
    }

    /// Whatever frame the engine reads after this has returned meets the new policy.
    pub(super) fn edit(&self, slot: Slot, edit: Edit) {
        {
            let mut inner = self.lock();
            if inner.closed {
                return;
            }
            inner.edits.push((slot, edit));
            self.edits_waiting.store(true, Ordering::Release);
        }
        self.signal();
    }

    /// The oldest edits first, into an empty `edits`. Cheap when there are none.
    pub(super) fn take_edits(&self, edits: &mut Vec<(Slot, Edit)>) {
        if self.edits_waiting.load(Ordering::Acquire) {
            let mut inner = self.lock();
            self.edits_waiting.store(false, Ordering::Relaxed);
            std::mem::swap(edits, &mut inner.edits);
        }
    }

    /// The oldest command. Cheap when there is none.
    pub(super) fn take_command(&self) -> Option<Command> {
        if !self.commands_waiting.load(Ordering::Acquire) {
            return None;
        }
        let mut inner = self.lock();
        let command = inner.commands.pop_front();
        self.commands_waiting
            .store(!inner.commands.is_empty(), Ordering::Relaxed);
        command
    }

    /// The engine is gone: nothing is taken any more, and who waits for an answer learns that there is none.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        let orphans = std::mem::take(&mut inner.commands);
        inner.edits.clear();
        drop(inner);
        drop(orphans);
    }

    fn signal(&self) {
        // It fails only when the counter is about to overflow, and then the engine is being woken already.
        let _ = self.wake.write(1);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

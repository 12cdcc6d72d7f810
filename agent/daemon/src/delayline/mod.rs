//! The delay line: packets held in user space for a while.
//!
//! The kernel's classifier diverts a packet into a TAP device in the target's netns, with a VLAN tag that names its slot and
//! direction. The engine, one thread for all lines, reads it there, holds it for what its slot says, and writes the same
//! bytes back; a program on the TAP sends it on. Some slots have packets answered instead, or dropped when a queue is full.
//! See `engine` for the thread, `slots` and `treat` for what becomes of a packet, `store` for what is held and in which
//! order it goes, `wheel` for time, `due` for fairness between lines, `pool` for memory, `reply` for answers.

mod arena;
mod drops;
mod due;
mod engine;
mod flows;
mod frame;
mod lead;
mod mailbox;
mod poller;
mod pool;
mod priority;
mod reply;
mod shaper;
mod slots;
mod store;
mod tally;
mod treat;
mod wheel;

#[cfg(test)]
mod bench;
#[cfg(test)]
mod drop_tests;
#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod tap_tests;
#[cfg(test)]
mod test_frames;
#[cfg(test)]
mod test_line;
#[cfg(test)]
mod test_rig;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod treat_property_tests;
#[cfg(test)]
mod treat_tests;
#[cfg(test)]
mod treatment_tests;

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use sabot_abi::OwnerKey;
use sabot_core::model::{BootTime, TargetIdentity};
use sabot_core::plan::{Slot, TargetId};

pub use self::drops::{LineDrop, OwnerDrops};
pub use self::slots::{SlotPolicy, Treatment};
pub use self::tally::{DELAY_BOUNDS, DelayHistogram, LineTallies};
use crate::engine::handle::Tally;

use self::engine::Engine;
use self::mailbox::{Command, Mailbox, Reply};
use self::slots::Edit;
use self::tally::Registry;

/// Settings of the delay line.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Memory, in bytes, that the packets of one line may take. A packet takes a buffer of 256 B, 2, 16 or 68 KiB and some
    /// hundred bytes beside it.
    pub bytes_per_line: usize,
    /// Memory, in bytes, that all held packets together may take.
    pub bytes_total: usize,
    /// Bytes of the TAPs' vnet header: 10 or 12; 0 without one.
    pub vnet_header: usize,
    /// While a line is open, the heartbeat beats at least this often.
    pub heartbeat_every: Duration,
    /// When the thread stood still for longer, what waited meanwhile past its time by this much is dropped. At least
    /// four times `heartbeat_every`, or that is taken.
    pub late_after: Duration,
    /// Run at the lowest real-time priority while that doesn't take most of a core, if the daemon may.
    pub real_time: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bytes_per_line: 64 << 20,
            bytes_total: 512 << 20,
            vnet_header: 12,
            heartbeat_every: Duration::from_millis(50),
            late_after: Duration::from_secs(1),
            real_time: true,
        }
    }
}

/// Tells the kernel that the delay line is alive.
pub trait Heartbeat: Send {
    /// Called on the engine's thread: it must not block.
    fn beat(&mut self, now: BootTime);
}

#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error("target {} has a delay line already", .0.0)]
    AlreadyOpen(TargetId),
    #[error("the delay line's thread has ended")]
    Stopped,
    #[error("can't {operation} the TAP of target {}: {source}", target.0)]
    Tap {
        target: TargetId,
        /// `make non-blocking`, `wait for`.
        operation: &'static str,
        source: io::Error,
    },
}

/// A handle to the engine; clones mean the same one. When the last is dropped, the engine stops.
#[derive(Clone)]
pub struct DelayLine {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the engine's thread and the handles share.
struct Shared {
    mailbox: Mailbox,
    registry: Registry,
    open: Mutex<HashSet<TargetId>>,
    alive: AtomicBool,
}

impl DelayLine {
    /// Starts the engine on a thread of its own, named `sabot-delay`. Until a line is open it sleeps.
    pub fn start(config: Config, heartbeat: Box<dyn Heartbeat>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            mailbox: Mailbox::new()?,
            registry: Registry::default(),
            open: Mutex::default(),
            alive: AtomicBool::new(true),
        });
        let engine = Engine::new(config, heartbeat, Arc::clone(&shared))?;
        let thread = std::thread::Builder::new()
            .name("sabot-delay".to_owned())
            .spawn(move || engine.run())?;
        Ok(Self {
            inner: Arc::new(Inner {
                shared,
                thread: Mutex::new(Some(thread)),
            }),
        })
    }

    /// Takes a target's TAP; returns once the engine serves it and the heartbeat has beaten. Only reads and writes on
    /// message boundaries are used. On an error the descriptor is closed. The target's random streams follow from its
    /// `identity`; what the line drops by itself is counted to the owner of the network namespace with the cookie `netns`.
    pub fn open(
        &self,
        target: TargetId,
        identity: TargetIdentity,
        netns: Option<u64>,
        tap: OwnedFd,
    ) -> Result<(), LineError> {
        set_nonblocking(&tap).map_err(|source| LineError::Tap {
            target,
            operation: "make non-blocking",
            source,
        })?;
        self.ask(|reply| Command::Open {
            target,
            identity,
            netns,
            tap,
            reply,
        })
        .unwrap_or(Err(LineError::Stopped))
    }

    /// Releases what the line holds, and what waits in its TAP, at once; returns when the TAP's descriptor is closed, so that
    /// the device is gone. Does nothing for a target without a line. Blocks for the kernel's grace period, some 10 ms.
    pub fn close(&self, target: TargetId) {
        drop(self.ask(|reply| Command::Close { target, reply }));
    }

    /// Whether the target has a line. A line whose device or netns went away is closed by itself.
    pub fn is_open(&self, target: TargetId) -> bool {
        self.inner.shared.open().contains(&target)
    }

    /// Sets or edits a slot's policy. It holds for every packet that the classifier diverts after this has returned; held
    /// ones keep their times, unless the slot now expires earlier. Random streams and queues go on where they are. Never
    /// blocks. A packet that waits behind an earlier one of its flow after an edit to a shorter delay isn't released before
    /// it.
    ///
    /// `slot` must be below [`sabot_abi::MAX_SLOTS`], otherwise nothing happens.
    pub fn set_slot(&self, slot: Slot, policy: SlotPolicy) {
        self.inner.shared.mailbox.edit(slot, Edit::Set(policy));
    }

    /// Ends a slot's policy at this instant, if it doesn't end earlier: for a slot that sends nothing here any more. Packets
    /// that are on their way still meet the policy. Never blocks.
    pub fn expire_slot(&self, slot: Slot, at: BootTime) {
        self.inner.shared.mailbox.edit(slot, Edit::Expire(at));
    }

    /// Forgets a slot's policy and releases at once what it holds; returns when that has happened. Packets of the slot that
    /// still come are written back without delay.
    pub fn clear_slot(&self, slot: Slot) {
        let _ = self.ask(|reply| Command::ClearSlot { slot, reply });
    }

    /// What became of a slot's packets on a target; zero for what was never seen. The counts survive the line.
    pub fn tallies(&self, slot: Slot, target: TargetId, egress: bool) -> LineTallies {
        self.inner.shared.registry.tallies((slot, target, egress))
    }

    /// Whether every packet that was diverted to the target before this call is in the tallies, or was dropped by the TAP.
    pub fn is_drained(&self, target: TargetId) -> bool {
        self.ask(|reply| Command::IsDrained { target, reply })
            .unwrap_or(true)
    }

    /// Drops a slot's tallies on a target, and with the last target's its histogram.
    pub fn forget(&self, slot: Slot, target: TargetId) {
        if self
            .ask(|reply| Command::Forget { slot, target, reply })
            .is_none()
        {
            self.inner.shared.registry.forget(slot, target);
        }
    }

    /// Says who owns which network namespace from now on. Call it before the first line is opened: what a line drops by
    /// itself is kept from the first call on, for owners of whole namespaces, until they are no longer among those said.
    pub fn set_owners(&self, owners: &[(OwnerKey, u32)]) {
        let of_netns = owners.iter().filter(|(key, _)| key.cgroup == 0);
        let owners: HashMap<u64, u32> = of_netns.map(|(key, owner)| (key.cookie, *owner)).collect();
        let told = owners.clone();
        if self
            .ask(|reply| Command::SetOwners { owners: told, reply })
            .is_none()
        {
            self.inner.shared.registry.set_owners(owners);
        }
    }

    /// What lines dropped by themselves of the owners who are known, by owner, direction and reason, each above 0. The
    /// counts survive the faults and the lines.
    pub fn drops(&self) -> Vec<OwnerDrops> {
        self.inner.shared.registry.owner_drops()
    }

    /// The delays that a slot's packets really had; packets written back because their slot isn't set aren't in it.
    pub fn histogram(&self, slot: Slot) -> DelayHistogram {
        self.inner.shared.registry.histogram(slot)
    }

    /// Frames without our tag, on any line: the kernel's own. They are discarded.
    pub fn untagged(&self) -> Tally {
        self.inner.shared.registry.untagged.read()
    }

    /// Releases everything at once, closes all lines and ends the thread; returns when that has happened.
    pub fn stop(&self) {
        self.inner.stop();
    }

    /// Whether the engine's thread runs.
    pub fn is_alive(&self) -> bool {
        self.inner.shared.alive.load(Ordering::Acquire)
    }

    /// `None` when the engine is gone or has no answer.
    fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Option<T> {
        self.inner.shared.ask(command)
    }
}

impl Inner {
    fn stop(&self) {
        // The descriptors are closed here, not on the thread: see `Command::Close`.
        drop(self.shared.ask(|reply| Command::Stop { reply }));
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the delay line's thread panicked");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Option<T> {
        let (reply, answer): (_, Receiver<T>) = sync_channel(1);
        if !self.mailbox.send(command(reply)) {
            return None;
        }
        answer.recv().ok()
    }

    fn open(&self) -> std::sync::MutexGuard<'_, HashSet<TargetId>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn set_nonblocking(tap: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(tap, FcntlArg::F_GETFL)?);
    fcntl(tap, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

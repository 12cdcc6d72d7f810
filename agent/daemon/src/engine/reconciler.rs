//! The one task that owns the desired and the observed state, and its loop: every event leads to a pass that compares
//! both and closes the gap.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sabot_core::guard::Guards;
use sabot_core::model::{BootTime, Fault, FaultName, World};
use sabot_core::plan::{Observed, Policy};
use sabot_core::{Limits, Planner};
use tokio::sync::{mpsc, watch};

use super::book::Book;
use super::datapath::Datapath;
use super::handle::{Command, Handle, Phase, Snapshot};
use super::heartbeat::Heartbeat;
use super::node::{ControlPlane, NodeTables};
use super::retries::Retries;
use super::source::WorldSource;
use super::store::Store;
use super::waiters::Waiters;
use super::wanted::{Places, Sight};
use super::workers::{Done, Workers};
use crate::kernel::features::Features;
use crate::observe::event::EventHub;
use crate::targets::WorldUpdate;

/// Commands that may queue up before callers have to wait.
const QUEUE: usize = 256;
/// Commands that one pass follows: it takes as long as there are faults, so that many callers at once share it.
const SHARED: usize = 64;
/// The heart beats at least this often.
const BEAT: Duration = Duration::from_secs(1);
/// The resolution of a timer.
const TIMER_STEP: Duration = Duration::from_millis(1);
/// How long the orderly detaching may take at the end; the gate is closed before it begins.
const REVERT_WAIT: Duration = Duration::from_secs(10);

/// Settings of the engine.
#[derive(Clone, Debug)]
pub struct Options {
    /// What validation allows.
    pub limits: Limits,
    pub guards: Guards,
    pub policy: Policy,
    /// Faults that may be active at once, those without a target on this node among them.
    pub max_faults: usize,
    /// How long an ended fault stays listed with its last counters.
    pub keep_ended: Duration,
}

/// What the engine works with.
pub struct Parts {
    pub datapath: Arc<dyn Datapath>,
    pub source: Arc<dyn WorldSource>,
    pub features: Arc<Features>,
    pub events: EventHub,
    pub control_plane: ControlPlane,
    /// Is told how long each pass took.
    pub on_reconcile: Box<dyn Fn(Duration) + Send>,
}

/// Ends the engine, and says whether it goes round.
#[derive(Clone, Debug)]
pub struct Control {
    stop: watch::Sender<bool>,
    heartbeat: Arc<Heartbeat>,
}

impl Control {
    /// No more commands are taken; every fault ends at once, and then everything is detached.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    pub fn heartbeat(&self) -> Arc<Heartbeat> {
        Arc::clone(&self.heartbeat)
    }
}

/// What could not be taken out of the kernel within the time for it; it is inert, and goes with the process.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("left behind at the end, inert: {}", .0.join("; "))]
pub struct LeftBehind(pub Vec<String>);

/// The reconciler; [`Engine::run`] is its life.
pub struct Engine {
    pub(super) datapath: Arc<dyn Datapath>,
    pub(super) source: Arc<dyn WorldSource>,
    pub(super) features: Arc<Features>,
    pub(super) events: EventHub,
    pub(super) on_reconcile: Box<dyn Fn(Duration) + Send>,
    pub(super) options: Options,

    commands: mpsc::Receiver<Command>,
    /// Commands that had to wait for the world to be looked at.
    resumed: mpsc::UnboundedReceiver<(Sight, Command)>,
    pub(super) resume: mpsc::UnboundedSender<(Sight, Command)>,
    done: mpsc::UnboundedReceiver<Done>,
    updates: watch::Receiver<Arc<WorldUpdate>>,
    stop: watch::Receiver<bool>,
    heartbeat: Arc<Heartbeat>,
    pub(super) snapshots: watch::Sender<Arc<Snapshot>>,

    pub(super) update: Arc<WorldUpdate>,
    pub(super) world: Arc<World>,
    /// The pods that have faults, by sandbox, where the guards bound how many may.
    pub(super) standing: BTreeSet<String>,
    /// Faults have come, changed or gone since that was looked at.
    pub(super) shares_moved: bool,
    pub(super) store: Store,
    /// The active faults, as the planner wants them.
    pub(super) desired: BTreeMap<FaultName, Arc<Fault>>,
    pub(super) observed: Observed,
    pub(super) planner: Planner,
    pub(super) book: Book,
    pub(super) retries: Retries,
    pub(super) node: NodeTables,
    pub(super) control_plane: ControlPlane,
    pub(super) workers: Workers,
    pub(super) waiters: Waiters,
    pub(super) places: Places,
    /// When the plan has to be looked at again.
    pub(super) plan_at: Option<BootTime>,
    /// Something that the snapshot shows has changed.
    pub(super) dirty: bool,
}

/// Why the reconciler goes on.
enum Woken {
    Stop,
    Done(Done),
    World,
    Command {
        command: Command,
        /// The place that was looked at for it.
        looked: Option<Sight>,
    },
    /// Something has come due.
    Time,
    /// Nothing has, but the heart must beat.
    Beat,
}

impl Engine {
    /// An engine that doesn't run yet, what the rest of the daemon sees of it, and what ends it.
    pub fn new(parts: Parts, options: Options) -> (Self, Handle, Control) {
        let (command_sender, commands) = mpsc::channel(QUEUE);
        let (resume, resumed) = mpsc::unbounded_channel();
        let (done_sender, done) = mpsc::unbounded_channel();
        let (stop_sender, stop) = watch::channel(false);
        let mut updates = parts.source.watch();
        let mut update = Arc::unwrap_or_clone(updates.borrow_and_update().clone());
        let standing = options.guards.apply(&mut update.world, [], &BTreeSet::new());
        let world = Arc::new(update.world.clone());
        let update = Arc::new(update);
        let (snapshots, snapshot) = watch::channel(Arc::new(Snapshot {
            generation: 0,
            faults: BTreeMap::new(),
            world: Arc::clone(&world),
            runtime: update.runtime.clone(),
        }));
        let heartbeat = Arc::new(Heartbeat::new());
        let engine = Self {
            workers: Workers::new(Arc::clone(&parts.datapath), done_sender),
            datapath: parts.datapath,
            source: parts.source,
            features: parts.features,
            events: parts.events,
            on_reconcile: parts.on_reconcile,
            options,
            commands,
            resumed,
            resume,
            done,
            updates,
            stop,
            heartbeat: Arc::clone(&heartbeat),
            snapshots,
            update,
            world,
            standing,
            shares_moved: false,
            store: Store::default(),
            desired: BTreeMap::new(),
            observed: Observed::default(),
            planner: Planner::default(),
            book: Book::default(),
            retries: Retries::default(),
            node: NodeTables::default(),
            control_plane: parts.control_plane,
            waiters: Waiters::default(),
            places: Places::default(),
            plan_at: None,
            dirty: false,
        };
        let control = Control {
            stop: stop_sender,
            heartbeat,
        };
        (engine, Handle::new(command_sender, snapshot), control)
    }

    /// Goes round until [`Control::stop`], or until no handle is left; then reverts everything.
    ///
    /// # Errors
    /// What could not be detached within ten seconds.
    pub async fn run(mut self) -> Result<(), LeftBehind> {
        self.reconcile();
        while self.next().await {
            self.reconcile();
        }
        self.revert().await
    }

    /// Waits until there is something to reconcile; false when it is time to end.
    async fn next(&mut self) -> bool {
        loop {
            self.heartbeat.beat();
            match self.wait().await {
                Woken::Stop => return false,
                Woken::Done(done) => {
                    self.finished(done);
                    self.take_finished();
                }
                Woken::World => self.world_changed(),
                Woken::Command { command, looked } => {
                    let changes = !command.only_reads();
                    self.command(command, looked);
                    // A pass takes as long as there are faults: whoever only reads counters must not cost one, nor keep
                    // one from its time.
                    if !(self.take_commands() || changes || self.wake_in() <= TIMER_STEP) {
                        continue;
                    }
                }
                Woken::Time => {}
                Woken::Beat => continue,
            }
            return true;
        }
    }

    async fn wait(&mut self) -> Woken {
        let wake = self.wake_in();
        tokio::select! {
            biased;
            // An error means that nobody is left who could stop the engine.
            _ = self.stop.wait_for(|stop| *stop) => Woken::Stop,
            Some(done) = self.done.recv() => Woken::Done(done),
            Ok(()) = self.updates.changed() => Woken::World,
            Ok(()) = self.control_plane.servers.changed() => Woken::Time,
            Some((place, command)) = self.resumed.recv() => Woken::Command { command, looked: Some(place) },
            command = self.commands.recv() => match command {
                Some(command) => Woken::Command { command, looked: None },
                None => Woken::Stop,
            },
            () = tokio::time::sleep(wake.min(BEAT)) => if wake <= BEAT { Woken::Time } else { Woken::Beat },
        }
    }

    /// Until time alone changes something.
    fn wake_in(&self) -> Duration {
        let now = self.datapath.now();
        let instants = [
            self.plan_at,
            self.store.wake_at(now),
            self.book.wake_at(),
            self.places.wake_at(),
            self.node.retry_at(),
        ];
        let next = instants.into_iter().flatten().min();
        let next = next.map(|at| Duration::from_nanos(at.0.saturating_sub(now.0)));
        let patience = self
            .waiters
            .deadline()
            .map(|at| at.saturating_duration_since(tokio::time::Instant::now()));
        // One that rings early would find nothing to do, and ring again.
        let wake = next.into_iter().chain(patience).min().unwrap_or(Duration::MAX);
        wake.checked_add(TIMER_STEP).unwrap_or(wake)
    }

    fn take_finished(&mut self) {
        while let Ok(done) = self.done.try_recv() {
            self.finished(done);
        }
    }

    /// Follows the commands that wait; says whether one of them may have changed something.
    fn take_commands(&mut self) -> bool {
        let mut changes = false;
        for _ in 1..SHARED {
            let (command, looked) = if let Ok((place, command)) = self.resumed.try_recv() {
                (command, Some(place))
            } else if let Ok(command) = self.commands.try_recv() {
                (command, None)
            } else {
                break;
            };
            changes |= !command.only_reads();
            self.command(command, looked);
        }
        changes
    }

    fn world_changed(&mut self) {
        let update = self.updates.borrow_and_update().clone();
        self.see(update);
    }

    /// Takes over what the source knows by now, for a command that asked it to look.
    pub(super) fn catch_up(&mut self) {
        if self.updates.has_changed().unwrap_or(false) {
            self.world_changed();
        }
    }

    /// Ends every fault at once, and detaches everything.
    async fn revert(mut self) -> Result<(), LeftBehind> {
        // Whoever still waits learns that the daemon ends: their replies are dropped.
        self.commands.close();
        while self.commands.try_recv().is_ok() {}
        self.waiters = Waiters::default();
        let names: Vec<_> = self.store.active.keys().cloned().collect();
        for name in names {
            self.end(&name, Phase::Deleted);
        }
        self.options.policy.keep_warm = Duration::ZERO;
        self.options.policy.attach_eagerly = false;
        let deadline = tokio::time::Instant::now() + REVERT_WAIT;
        // The rules go first, and what the delay line holds goes on: through the gate, which is closed behind it.
        self.reconcile();
        self.datapath.disarm();
        while !self.is_bare() && tokio::time::Instant::now() < deadline {
            self.heartbeat.beat();
            let wake = self
                .wake_in()
                .min(deadline.saturating_duration_since(tokio::time::Instant::now()));
            tokio::select! {
                Some(done) = self.done.recv() => {
                    self.finished(done);
                    self.take_finished();
                }
                () = tokio::time::sleep(wake) => {}
            }
            self.reconcile();
        }
        let left = self.left_behind();
        if left.is_empty() {
            Ok(())
        } else {
            Err(LeftBehind(left))
        }
    }

    /// Nothing of ours is in the kernel, and no worker is about to change that.
    fn is_bare(&self) -> bool {
        self.workers.running() == 0 && self.observed.targets.is_empty() && self.observed.rules.is_empty()
    }

    fn left_behind(&self) -> Vec<String> {
        let targets = self.observed.targets.iter().map(|(key, target)| {
            let reason = target
                .failure
                .as_ref()
                .map_or("still being detached", |f| f.reason.as_str());
            format!("{} (netns {}): {reason}", key.device, key.netns.ino)
        });
        let rules = self
            .observed
            .rules
            .iter()
            .map(|(slot, rule)| format!("the rule of {} in slot {}", rule.fault, slot.0));
        targets.chain(rules).collect()
    }
}

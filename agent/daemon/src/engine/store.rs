//! The desired state: faults that are active, and those that have ended for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sabot_core::model::{BootTime, Fault, FaultName, Peer, TargetSelector, World};
use sabot_core::plan::Slot;
use sabot_core::spec::{FaultSpec, Metadata};
use sabot_core::{Planner, Resolution};

use super::book::Run;
use super::handle::{FaultView, Origin, Phase, TargetView};
use super::wanted::Sight;
use crate::targets::WorldUpdate;

/// Ended faults that stay listed at most.
pub(super) const MAX_ENDED: usize = 256;

/// Two instants that are closer than this are the same one, written down.
const SAME_INSTANT: Duration = Duration::from_millis(1);

/// Where the time of a fault is that waits for its begin: no machine runs for so long.
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What was asked for, and by whom.
#[derive(Clone, Debug, Default)]
pub(super) struct Request {
    pub(super) metadata: Metadata,
    pub(super) spec: FaultSpec,
    pub(super) origin: Origin,
    /// Since when the duration counts, where that is known already.
    pub(super) since: Option<SystemTime>,
}

impl Request {
    /// Nothing says yet when the fault's time begins.
    fn waits(&self) -> bool {
        self.origin != Origin::Api && self.since.is_none() && self.spec.starts_at.is_none()
    }

    /// A fault whose time has not begun is put in place, and waits there for its begin.
    pub(super) fn time(&self, fault: &mut Fault, now: BootTime) {
        if self.waits() {
            fault.starts_at = now.after(NEVER);
            fault.expires_at = fault.starts_at.after(fault.duration);
        }
    }
}

/// A fault that is to be in force.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) run: Run,
    pub(super) fault: Arc<Fault>,
    pub(super) request: Request,
    pub(super) resolution: Resolution,
    /// What has to be looked at for it.
    pub(super) sight: Sight,
    /// Why it isn't in force everywhere, when a table is full.
    pub(super) exhausted: Option<String>,
    /// It has targets and names peers, and none of them exists now.
    pub(super) peerless: bool,
    /// The names among its peers, and the addresses that are known of each.
    pub(super) names: BTreeMap<String, BTreeSet<IpAddr>>,
    pub(super) phase: Phase,
    /// The phase that was made known as an event; an edit is followed by its own.
    pub(super) announced: Option<Phase>,
    pub(super) message: String,
    /// Since it first had a target.
    pub(super) slot: Option<Slot>,
    pub(super) targets: Vec<TargetView>,
    /// When it was first in force on all its targets.
    pub(super) injected: Option<SystemTime>,
}

impl Active {
    pub(super) fn new(
        run: Run,
        fault: Fault,
        request: Request,
        update: &WorldUpdate,
        planner: &mut Planner,
    ) -> Self {
        let mut active = Self {
            run,
            fault: Arc::new(fault),
            request,
            resolution: Resolution::default(),
            sight: Sight::default(),
            exhausted: None,
            peerless: false,
            names: BTreeMap::new(),
            phase: Phase::Pending,
            announced: None,
            message: String::new(),
            slot: None,
            targets: Vec::new(),
            injected: None,
        };
        active.resolve(update, planner);
        active
    }

    /// The same was asked for already, by the same one.
    pub(super) fn is_same(&self, request: &Request) -> bool {
        let is_now = |since: SystemTime| {
            let apart = since
                .duration_since(self.fault.starts)
                .unwrap_or_else(|e| e.duration());
            !self.waits() && apart < SAME_INSTANT
        };
        self.request.metadata == request.metadata
            && self.request.spec == request.spec
            && self.request.origin == request.origin
            && request.since.is_none_or(is_now)
    }

    /// Its time has not begun, and doesn't by itself.
    pub(super) fn waits(&self) -> bool {
        self.request.waits()
    }

    /// It has a slot, or gets one as soon as there is one.
    pub(super) fn needs_slot(&self) -> bool {
        self.slot.is_some() || self.resolution.has_targets()
    }

    /// Looks up again what the fault means.
    pub(super) fn resolve(&mut self, update: &WorldUpdate, planner: &mut Planner) {
        let (fault, world) = (&self.fault, &update.world);
        self.resolution = Resolution::clone(&planner.resolution(fault, world));
        let pending = self.resolution.pending.take();
        self.resolution.pending = pending.map(|reason| explained(&fault.target, reason, update));
        self.peerless = !(fault.peers.is_empty() || self.resolution.targets.is_empty())
            && planner.entries(fault, world).is_empty();
        self.names = names(fault, world);
        let presence = self.resolution.presence;
        let sight = Sight::of(&fault.target, &fault.peers, presence, world);
        self.sight = sight.in_world(fault, world);
    }

    pub(super) fn view(&self, ended: Option<SystemTime>) -> FaultView {
        FaultView {
            fault: Arc::clone(&self.fault),
            origin: self.request.origin.clone(),
            since: (!self.waits()).then_some(self.fault.starts),
            metadata: self.request.metadata.clone(),
            spec: self.request.spec.clone(),
            phase: self.phase,
            message: self.message.clone(),
            slot: self.slot,
            targets: self.targets.clone(),
            names: self.names.clone(),
            injected: self.injected,
            ended,
        }
    }
}

fn names(fault: &Fault, world: &World) -> BTreeMap<String, BTreeSet<IpAddr>> {
    let names = fault.peers.iter().filter_map(|peer| match peer {
        Peer::Host(name) => Some(name),
        _ => None,
    });
    names
        .map(|name| (name.clone(), world.names.get(name).cloned().unwrap_or_default()))
        .collect()
}

/// Why nothing is there, as far as the source of the world knows more than the world.
pub(super) fn explained(target: &TargetSelector, reason: String, update: &WorldUpdate) -> String {
    use super::handle::RuntimeState;
    let more = match target {
        TargetSelector::Netns(path) => update.netns_failures.get(path).cloned(),
        TargetSelector::Interface(name) => update.interface_failures.get(name).cloned(),
        TargetSelector::Node(_) => None,
        TargetSelector::Pods { .. } | TargetSelector::Service { .. } => match &update.runtime {
            RuntimeState::Ready { .. } => None,
            RuntimeState::Absent(why) => Some(format!("there is no container runtime: {why}")),
            RuntimeState::Connecting => Some("the container runtime hasn't answered yet".to_owned()),
            RuntimeState::Down(why) => Some(format!("the container runtime is down: {why}")),
        },
    };
    match more {
        Some(more) => format!("{reason} ({more})"),
        None => reason,
    }
}

/// A fault that has expired or was deleted.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) run: Run,
    pub(super) view: FaultView,
    forget_at: BootTime,
}

#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) active: BTreeMap<FaultName, Active>,
    pub(super) ended: BTreeMap<FaultName, Ended>,
    runs: u64,
}

impl Store {
    /// The identity of a fault that begins now.
    pub(super) fn next_run(&mut self) -> Run {
        self.runs += 1;
        Run(self.runs)
    }

    /// Takes the fault out of the desired state and lists it as ended; `None` where no such fault is active.
    pub(super) fn end(
        &mut self,
        name: &FaultName,
        phase: Phase,
        now: BootTime,
        keep: Duration,
    ) -> Option<&FaultView> {
        let mut active = self.active.remove(name)?;
        active.phase = phase;
        active.slot = None;
        active.message = match phase {
            Phase::Expired => format!(
                "expired after {}",
                humantime::format_duration(active.fault.duration)
            ),
            _ => "deleted".to_owned(),
        };
        let ended = Ended {
            run: active.run,
            view: active.view(Some(SystemTime::now())),
            forget_at: now.after(keep),
        };
        self.ended.insert(name.clone(), ended);
        self.ended.get(name).map(|e| &e.view)
    }

    /// Drops ended faults whose time is over, and the oldest ones of too many; says whose counters to discard.
    pub(super) fn forget_ended(&mut self, now: BootTime) -> Vec<Run> {
        let mut gone: Vec<Run> = self
            .ended
            .extract_if(.., |_, e| e.forget_at <= now)
            .map(|(_, e)| e.run)
            .collect();
        while self.ended.len() > MAX_ENDED {
            let oldest = self
                .ended
                .iter()
                .min_by_key(|(_, e)| (e.forget_at, e.run))
                .map(|(name, _)| name.clone());
            gone.extend(oldest.and_then(|name| self.ended.remove(&name)).map(|e| e.run));
        }
        gone
    }

    /// When the passage of time alone next changes something here: a start, an expiry, an ended fault to be forgotten.
    pub(super) fn wake_at(&self, now: BootTime) -> Option<BootTime> {
        let starts = self
            .active
            .values()
            .map(|a| a.fault.starts_at)
            .filter(|at| *at > now);
        let expiries = self.active.values().map(|a| a.fault.expires_at);
        let forgettings = self.ended.values().map(|e| e.forget_at);
        starts.chain(expiries).chain(forgettings).min()
    }
}

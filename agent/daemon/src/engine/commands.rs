//! What callers ask for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sabot_core::model::{Fault, FaultName, TargetSelector};
use sabot_core::plan::ObservedRule;
use sabot_core::resolve::Presence;
use sabot_core::spec::{FaultSpec, Metadata};
use sabot_core::{Instants, ValidFault, resolve, validate};

use super::handle::{Command, EngineError, FaultView, LedgerEntry, Origin, Phase, Preview, Reply, Violation};
use super::reconciler::Engine;
use super::store::{Active, Request};
use super::waiters::GoneReply;
use super::wanted::Sight;
use super::{needs, preview};

/// How long a place that was looked at for a command is kept in sight.
const LOOK_LINGER: Duration = Duration::from_secs(5);

impl Engine {
    /// `looked`: what was looked at since the command came.
    pub(super) fn command(&mut self, command: Command, looked: Option<Sight>) {
        if let Some(sight) = &looked {
            self.places.looked(sight);
            self.places
                .linger(sight.clone(), self.datapath.now().after(LOOK_LINGER));
            self.catch_up();
        }
        match command {
            Command::Apply {
                metadata,
                spec,
                origin,
                since,
                wait,
                reply,
            } => {
                let request = Request {
                    metadata,
                    spec: *spec,
                    origin,
                    since,
                };
                self.apply(request, wait, reply, looked.as_ref());
            }
            Command::Preview {
                metadata,
                spec,
                reply,
            } => match self.check(&metadata, &spec) {
                Err(error) => drop(reply.send(Err(error))),
                // Its peers are of interest also where it has no target.
                Ok(fault) => match self.unseen(&fault, Presence::Here, looked.as_ref()) {
                    Some(sight) => {
                        let command = Command::Preview {
                            metadata,
                            spec,
                            reply,
                        };
                        self.look(sight, command);
                    }
                    None => {
                        let admissible = self.admissible(&fault);
                        drop(reply.send(admissible.map(|()| self.preview(fault))));
                    }
                },
            },
            Command::Delete { name, origin, reply } => self.delete(&name, &origin, reply),
            Command::DeleteAll { namespace, reply } => self.delete_all(namespace.as_deref(), reply),
            Command::Ledgers { name, reply } => drop(reply.send(self.ledgers(name.as_ref()))),
        }
    }

    /// `looked`: what was looked at since the command came.
    fn apply(&mut self, request: Request, wait: Duration, reply: Reply<FaultView>, looked: Option<&Sight>) {
        let fault = match self.check(&request.metadata, &request.spec) {
            Ok(fault) => fault,
            // A caller that has gone needs no answer, here and below.
            Err(error) => return drop(reply.send(Err(error))),
        };
        if let Some(sight) = self.unseen(&fault, self.presence(&fault), looked) {
            let command = Command::Apply {
                metadata: request.metadata,
                spec: Box::new(request.spec),
                origin: request.origin,
                since: request.since,
                wait,
                reply,
            };
            return self.look(sight, command);
        }
        let accepted = self.admissible(&fault).and_then(|()| self.accept(fault, request));
        match accepted {
            Ok(name) => {
                let run = self.store.active[&name].run;
                self.waiters.await_applied(name, run, wait, reply);
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// Whether the fault is valid and this machine can do it.
    fn check(&self, metadata: &Metadata, spec: &FaultSpec) -> Result<ValidFault, EngineError> {
        let fault = validate(metadata, spec, &self.options.limits).map_err(|violations| {
            let violation = |v: &sabot_core::Violation| Violation {
                field: v.field.clone(),
                description: v.description(),
            };
            EngineError::Invalid(violations.iter().map(violation).collect())
        })?;
        let fixed = self.fix(fault.clone(), &Request::default());
        needs::check(&self.features, &fixed)?;
        Ok(fault)
    }

    /// Whether the guards let it in, as far as what it names is known by now.
    fn admissible(&self, fault: &ValidFault) -> Result<(), EngineError> {
        self.guard(&self.fix(fault.clone(), &Request::default()))
    }

    /// What the fault has to do with this node, as far as that is known before anything was looked at for it.
    fn presence(&self, fault: &ValidFault) -> Presence {
        match &fault.target {
            TargetSelector::Pods { .. } | TargetSelector::Service { .. } => {
                let fixed = self.fix(fault.clone(), &Request::default());
                resolve(&fixed, &self.world).presence
            }
            TargetSelector::Node(name) if *name != self.world.node.name => Presence::Elsewhere,
            // Whoever names them here has them here.
            TargetSelector::Node(_) | TargetSelector::Netns(_) | TargetSelector::Interface(_) => {
                Presence::Here
            }
        }
    }

    /// What has to be looked at before the fault can be told on, where it has this much to do with this node; `looked` was.
    fn unseen(&self, fault: &ValidFault, presence: Presence, looked: Option<&Sight>) -> Option<Sight> {
        let fixed = self.fix(fault.clone(), &Request::default());
        let sight = Sight::of(&fault.target, &fault.peers, presence, &self.world);
        // Once the Services are known: a second look, where they are reached through ports of the nodes.
        let sight = sight.in_world(&fixed, &self.world);
        let is_seen = looked.is_some_and(|looked| looked.covers(&sight)) || self.is_known(fault, &sight);
        (!is_seen).then_some(sight)
    }

    /// Whether the world has what the fault names, as far as that has to be looked for.
    fn is_known(&self, fault: &ValidFault, sight: &Sight) -> bool {
        let target = match &fault.target {
            TargetSelector::Pods { .. } | TargetSelector::Service { .. } => true,
            TargetSelector::Node(name) => {
                *name != self.world.node.name || !self.world.node.devices.is_empty()
            }
            TargetSelector::Netns(path) => self
                .world
                .namespaces
                .get(path)
                .is_some_and(|devices| self.source.is_current(path, devices)),
            TargetSelector::Interface(name) => self.world.interfaces.contains_key(name),
        };
        target && self.places.is_told(sight) && !self.world.cluster.lacks(sight.cluster())
    }

    /// Has the world looked at, and comes back to the command then; other commands go on meanwhile.
    fn look(&mut self, sight: Sight, command: Command) {
        let now = self.datapath.now();
        let namespaces = self.places.look(&sight);
        let wanted = self.wanted(now);
        self.places.tell(&wanted);
        let looking = self.source.refresh(wanted, namespaces);
        let resume = self.resume.clone();
        tokio::spawn(async move {
            looking.await;
            // Without a receiver the engine has ended; dropping the command says so to its caller.
            let _ = resume.send((sight, command));
        });
    }

    /// Makes the fault part of the desired state: a new one, or an edit of the active one of the same name. The same one
    /// again changes nothing, not even when it ends.
    fn accept(&mut self, fault: ValidFault, request: Request) -> Result<FaultName, EngineError> {
        let now = self.datapath.now();
        // One that has expired this instant is not edited, it is followed by a new one.
        if self
            .desired
            .get(&fault.name)
            .is_some_and(|old| old.expires_at <= now)
        {
            self.end(&fault.name.clone(), Phase::Expired);
        }
        let known = self.store.active.get(&fault.name);
        if let Some(other) = known.filter(|active| active.request.origin != request.origin) {
            return Err(EngineError::NameTaken {
                holder: other.request.origin.describe(&fault.name),
                name: fault.name,
            });
        }
        // A call that is sent twice must not prolong a fault.
        if known.is_some_and(|active| active.is_same(&request)) {
            return Ok(fault.name.clone());
        }
        let fault = self.fix(fault, &request);
        let name = fault.name.clone();
        let known = self.store.active.get(&name);
        // That its begin is known now, or an earlier one, is no edit.
        let is_moved = known.is_some_and(|active| active.request.spec == request.spec);
        let change = if known.is_some() {
            self.edit(fault, request);
            "edited"
        } else {
            self.admit(fault, request)?;
            "applied"
        };
        let fault = Arc::clone(&self.store.active[&name].fault);
        let message = format!(
            "{} for {}",
            fault.action.name(),
            humantime::format_duration(fault.duration)
        );
        self.desired.insert(name.clone(), fault);
        if !is_moved {
            self.announce(&name, change, &message);
        }
        self.dirty = true;
        self.shares_moved = true;
        Ok(name)
    }

    fn edit(&mut self, mut fault: Fault, request: Request) {
        if let Some(active) = self.store.active.get_mut(&fault.name) {
            fault.created = active.fault.created;
            active.fault = Arc::new(fault);
            active.request = request;
            active.announced = None;
            active.resolve(&self.update, &mut self.planner);
        }
    }

    /// Lets a new fault in where there is room for it.
    ///
    /// # Errors
    /// `Exhausted`: as many faults are active as the daemon keeps, or as many that have targets here as there are slots.
    fn admit(&mut self, fault: Fault, request: Request) -> Result<(), EngineError> {
        let name = fault.name.clone();
        let most = self.options.max_faults;
        if self.store.active.len() >= most {
            return Err(EngineError::Exhausted(format!(
                "{most} faults are active, the most that a node keeps; delete one first"
            )));
        }
        let run = self.store.next_run();
        let active = Active::new(run, fault, request, &self.update, &mut self.planner);
        let slots = self.options.policy.max_slots as usize;
        let taken = self.store.active.values().filter(|other| other.needs_slot());
        if active.needs_slot() && taken.count() >= slots {
            return Err(EngineError::Exhausted(format!(
                "{slots} active faults have targets on this node, the most that it can have; delete one first"
            )));
        }
        // A former fault of that name goes first: a slot and its counters belong to one run.
        let is_former = |rule: &ObservedRule| !rule.cleared && rule.fault == name;
        if self.observed.rules.values().any(is_former) {
            self.close_the_gap();
        }
        if let Some(former) = self.store.ended.remove(&name) {
            self.book.discard(former.run);
        }
        self.store.active.insert(name, active);
        Ok(())
    }

    fn fix(&self, fault: ValidFault, request: &Request) -> Fault {
        let clock = self.clock();
        // An edit that doesn't name a seed goes on with the one that was drawn.
        let known = self.store.active.get(&fault.name).map(|active| active.fault.seed);
        let seed = known.unwrap_or_else(rand::random);
        let mut fault = match request.since {
            Some(since) => fault.resume(since, clock, seed),
            None => fault.fix(clock, seed),
        };
        request.time(&mut fault, clock.boot);
        fault
    }

    fn clock(&self) -> Instants {
        Instants {
            boot: self.datapath.now(),
            wall: SystemTime::now(),
        }
    }

    fn preview(&self, fault: ValidFault) -> Preview {
        let control = self.control_plane.ends(&self.world);
        let fault = self.fix(fault, &Request::default());
        preview::preview(fault, &self.update, &self.observed, &control)
    }

    fn delete(&mut self, name: &FaultName, origin: &Origin, reply: Reply<FaultView>) {
        if let Some(other) = self.held(name, origin) {
            drop(reply.send(Err(EngineError::Held(other))));
        } else if let Some(view) = self.end(name, Phase::Deleted) {
            self.waiters.await_gone(vec![view], GoneReply::One(reply));
        } else {
            // One that has ended by itself is what the caller wants it to be.
            let ended = self.store.ended.get(name).map(|ended| ended.view.clone());
            drop(reply.send(ended.ok_or_else(|| EngineError::NotFound(name.clone()))));
        }
    }

    /// Whose the active fault of that name is, if it isn't `origin`'s.
    fn held(&self, name: &FaultName, origin: &Origin) -> Option<String> {
        let active = self.store.active.get(name)?;
        let other = &active.request.origin;
        (other != origin).then(|| other.describe(name))
    }

    fn delete_all(&mut self, namespace: Option<&str>, reply: Reply<Vec<FaultView>>) {
        let names = self.store.active.keys();
        let (held, names): (Vec<_>, Vec<_>) = names
            .filter(|name| namespace.is_none_or(|namespace| name.namespace == namespace))
            .cloned()
            .partition(|name| self.held(name, &Origin::Api).is_some());
        if names.is_empty() && !held.is_empty() {
            let held: Vec<_> = held
                .iter()
                .filter_map(|name| self.held(name, &Origin::Api))
                .collect();
            drop(reply.send(Err(EngineError::Held(held.join(", ")))));
            return;
        }
        let views = names.iter().filter_map(|name| self.end(name, Phase::Deleted));
        let views = views.collect();
        self.waiters.await_gone(views, GoneReply::All(reply));
    }

    fn ledgers(&self, name: Option<&FaultName>) -> Result<Vec<LedgerEntry>, EngineError> {
        let active = self.store.active.iter().map(|(name, active)| (name, active.run));
        let ended = self.store.ended.iter().map(|(name, ended)| (name, ended.run));
        let wanted: BTreeSet<_> = active
            .chain(ended)
            .filter(|(known, _)| name.is_none_or(|name| name == *known))
            .collect();
        if let (Some(name), true) = (name, wanted.is_empty()) {
            return Err(EngineError::NotFound(name.clone()));
        }
        Ok(wanted
            .into_iter()
            .flat_map(|(name, run)| self.book.entries(&*self.datapath, run, name))
            .collect())
    }
}

//! The loop: what the API server says, what the engine does, and the passage of time all lead to the same look at every
//! resource.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sabot_core::Limits;
use sabot_resources::status::{NodeStatus, Phase};
use tokio::sync::{mpsc, watch as channel};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::decide::{Decision, decide};
use super::entry::Entry;
use super::events::{self, Events, Happened};
use super::object::{Key, Resource};
use super::part::{self, Refusal};
use super::watch::{self, Seen};
use super::write::{self, Written};
use super::{Parts, account};
use crate::audit::AuditLog;
use crate::engine::handle::{self, EngineError, FaultView, Handle, Snapshot};

/// What comes within this time shares one look.
const GATHER: Duration = Duration::from_millis(20);
/// Without any news everything is looked at again after this.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Writes that are under way at the same time.
const MOST_WRITES: usize = 8;
/// For the engine to confirm the end of a fault; it ends in any case.
const DELETE_WAIT: Duration = Duration::from_secs(1);

pub(super) struct Reconciler {
    client: kube::Client,
    node: String,
    manager: String,
    engine: Handle,
    limits: Limits,
    audit: AuditLog,
    seen: mpsc::Receiver<Seen>,
    snapshots: channel::Receiver<Arc<Snapshot>>,
    writes: JoinSet<(Key, String, Written)>,
    events: Events,
    entries: BTreeMap<Key, Entry>,
}

/// The engine has ended, and the daemon with it.
struct Ended;

impl Reconciler {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            manager: write::manager(&parts.node),
            seen: watch::start(&parts.client, &parts.state, &parts.lacks),
            events: Events::start(parts.client.clone(), &parts.node),
            snapshots: parts.engine.watch(),
            client: parts.client,
            node: parts.node,
            engine: parts.engine,
            limits: parts.limits,
            audit: parts.audit,
            writes: JoinSet::new(),
            entries: BTreeMap::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let mut look_at = Instant::now() + LOOK_AGAIN;
        while self.wait(look_at).await.is_ok() {
            match self.look().await {
                Ok(next) => look_at = next,
                Err(Ended) => return,
            }
        }
    }

    /// Until there is something to look at, with what comes shortly after it.
    async fn wait(&mut self, until: Instant) -> Result<(), Ended> {
        tokio::select! {
            seen = self.seen.recv() => match seen {
                Some(seen) => self.take(seen).await?,
                None => return Err(Ended),
            },
            changed = self.snapshots.changed() => changed.map_err(|_| Ended)?,
            Some(written) = self.writes.join_next() => self.written(written),
            () = tokio::time::sleep_until(until) => {}
        }
        tokio::time::sleep(GATHER).await;
        while let Ok(seen) = self.seen.try_recv() {
            self.take(seen).await?;
        }
        while let Some(written) = self.writes.try_join_next() {
            self.written(written);
        }
        self.snapshots.mark_unchanged();
        Ok(())
    }

    async fn take(&mut self, seen: Seen) -> Result<(), Ended> {
        match seen {
            Seen::Is(resource) => {
                let known = self
                    .entries
                    .get(&resource.key)
                    .map(|entry| entry.resource.uid.clone());
                // Another one of the same name: the former is gone.
                if known.is_some_and(|uid| uid != resource.uid) {
                    self.forget(&resource.key.clone()).await?;
                }
                match self.entries.get_mut(&resource.key) {
                    Some(entry) => entry.update(*resource),
                    None => {
                        let entry = Entry::new(*resource, &self.node);
                        self.entries.insert(entry.resource.key.clone(), entry);
                    }
                }
            }
            Seen::Gone(key) => self.forget(&key).await?,
            Seen::All(kind, listed) => {
                let known = self.entries.keys();
                let gone: Vec<_> = known
                    .filter(|key| key.kind == kind && !listed.contains(key))
                    .cloned()
                    .collect();
                for key in gone {
                    self.forget(&key).await?;
                }
            }
        }
        Ok(())
    }

    /// The resource is gone, and its fault goes with it.
    async fn forget(&mut self, key: &Key) -> Result<(), Ended> {
        let Some(entry) = self.entries.remove(key) else {
            return Ok(());
        };
        let snapshot = self.engine.snapshot();
        if let Some(view) = own_view(&snapshot, &entry.resource).filter(|view| is_active(view)) {
            let pods = events::pods(view, &snapshot.world);
            if part::in_force(view) > 0 {
                self.events
                    .publish(Happened::Ended, &entry.resource, "the resource was deleted", pods);
            }
            self.revoke(&entry.resource).await?;
        }
        Ok(())
    }

    async fn revoke(&self, resource: &Resource) -> Result<(), Ended> {
        account::revoked(&self.audit, resource);
        let delete = self
            .engine
            .delete_resource(resource.key.fault(), resource.origin());
        match tokio::time::timeout(DELETE_WAIT, delete).await {
            Ok(Err(EngineError::ShuttingDown)) => Err(Ended),
            // What isn't there any more, or is somebody else's by now, needs no end.
            Ok(Ok(_) | Err(_)) | Err(_) => Ok(()),
        }
    }

    fn written(&mut self, written: Result<(Key, String, Written), tokio::task::JoinError>) {
        match written {
            Ok((key, uid, written)) => {
                let entry = self
                    .entries
                    .get_mut(&key)
                    .filter(|entry| entry.resource.uid == uid);
                if let Some(entry) = entry {
                    entry.written(written);
                }
            }
            Err(panic) => tracing::error!(%panic, "a write of a status has panicked"),
        }
    }

    /// Looks at every resource; says when to look again at the latest.
    async fn look(&mut self) -> Result<Instant, Ended> {
        let mut next = Instant::now() + LOOK_AGAIN;
        let keys: Vec<_> = self.entries.keys().cloned().collect();
        for key in keys {
            let Some(mut entry) = self.entries.remove(&key) else {
                continue;
            };
            let reconciled = self.reconcile(&mut entry).await;
            let wake = self.write(&mut entry);
            self.entries.insert(key, entry);
            next = reconciled?.into_iter().chain(wake).fold(next, Instant::min);
        }
        Ok(next)
    }

    /// Brings the engine to what the resource says, and says when time alone changes something.
    async fn reconcile(&mut self, entry: &mut Entry) -> Result<Option<Instant>, Ended> {
        let now = SystemTime::now();
        let snapshot = self.engine.snapshot();
        entry.begins = None;
        if let Some(view) = own_view(&snapshot, &entry.resource) {
            entry.learn(view, now);
        }
        let decision = decide(&entry.resource, entry.since, &self.limits, now);
        let part = match decision {
            Decision::Hold { spec, since } => self.hold(entry, *spec, since).await?,
            Decision::Wait { until } => {
                self.drop_held(entry).await?;
                entry.part = None;
                return Ok(Some(instant(until, now)));
            }
            Decision::Over => self.over(entry, now).await?,
            Decision::Refuse { message } => {
                self.drop_held(entry).await?;
                Some(part::refused(
                    &self.node,
                    &entry.resource,
                    &Refusal::invalid(message),
                ))
            }
        };
        entry.part = part;
        self.announce(entry);
        let end = entry.known().end.filter(|end| *end > now);
        Ok(end.map(|end| instant(end, now)))
    }

    /// The engine has the fault, as the resource says it now.
    async fn hold(
        &mut self,
        entry: &mut Entry,
        spec: sabot_core::spec::FaultSpec,
        since: Option<SystemTime>,
    ) -> Result<Option<NodeStatus>, Ended> {
        let snapshot = self.engine.snapshot();
        let active = own_view(&snapshot, &entry.resource).filter(|view| is_active(view));
        if !entry.must_apply(active, since) {
            return Ok(self.held_part(entry, active));
        }
        let resource = &entry.resource;
        let applied = self
            .engine
            .apply_resource(resource.key.metadata(), spec.clone(), resource.origin(), since)
            .await;
        match applied {
            Ok(view) => {
                let asked = resource.spec.clone().ok();
                // That its begin is written by now is nothing that somebody has asked for.
                if entry.applied != asked {
                    account::applied(&self.audit, resource, &spec, Ok(&view.message));
                }
                entry.refusal = None;
                entry.applied = asked;
                entry.learn(&view, SystemTime::now());
                Ok(self.held_part(entry, Some(&view)))
            }
            Err(EngineError::ShuttingDown) => Err(Ended),
            Err(error) => {
                let refusal = Refusal::by_engine(&error);
                if entry.refusal.as_ref().is_none_or(|(known, _)| *known != refusal) {
                    tracing::warn!(resource = %resource.key, %error, "refused");
                    account::applied(&self.audit, resource, &spec, Err(&error));
                }
                // What the resource said before it was edited is nothing that anybody wants any more.
                self.drop_held(entry).await?;
                entry.refuse(refusal);
                Ok(self.held_part(entry, None))
            }
        }
    }

    /// Nothing is said by a node that has nothing to do with the fault, and never had; but what it said of a former one is
    /// set right.
    fn held_part(&self, entry: &Entry, view: Option<&FaultView>) -> Option<NodeStatus> {
        let resource = &entry.resource;
        if let Some((refusal, _)) = &entry.refusal {
            return Some(part::refused(&self.node, resource, refusal));
        }
        let has_said = resource.part(&self.node).is_some() || resource.strays.contains(&self.node);
        let is_ours = |view: &&FaultView| !view.targets.is_empty() || has_said;
        let view = view.filter(is_ours)?;
        Some(part::held(&self.node, resource, view, entry.known()))
    }

    async fn drop_held(&self, entry: &mut Entry) -> Result<(), Ended> {
        let snapshot = self.engine.snapshot();
        entry.applied = None;
        match own_view(&snapshot, &entry.resource).filter(|view| is_active(view)) {
            Some(_) => self.revoke(&entry.resource).await,
            None => Ok(()),
        }
    }

    /// The engine ends the fault by itself, at the same instant; what is left is to say what it did.
    async fn over(&self, entry: &mut Entry, now: SystemTime) -> Result<Option<NodeStatus>, Ended> {
        let snapshot = self.engine.snapshot();
        let view = own_view(&snapshot, &entry.resource);
        if let Some(view) = view.filter(|view| is_active(view)) {
            // An edit, or what another node has written, has moved the end to before now.
            let end = entry.known().end.unwrap_or(now);
            if view.fault.expires > end + GATHER {
                self.drop_held(entry).await?;
            }
            return Ok(entry.part.clone());
        }
        let before = entry.resource.part(&self.node);
        let was_in_force = entry.injected.is_some() || before.is_some_and(|part| part.injected_at.is_some());
        if !was_in_force && before.is_none_or(|part| part.phase == Phase::Refused) {
            return Ok(before.cloned());
        }
        if entry.packets.is_none() && view.is_some() {
            let ledgers = self.engine.ledgers(Some(entry.resource.key.fault())).await;
            entry.packets = ledgers.ok().map(|ledgers| part::packets(&ledgers));
        }
        Ok(Some(part::over(&self.node, &entry.resource, view, entry.known())))
    }

    /// Tells as an event what has changed since the last one.
    fn announce(&mut self, entry: &mut Entry) {
        let Some(part) = &entry.part else { return };
        let happened = match part.phase {
            phase if entry.told == Some(phase) => return,
            Phase::Injected | Phase::Partial => match entry.told {
                Some(Phase::Injected | Phase::Partial) => None,
                _ => Some(Happened::Injected),
            },
            Phase::Failed => Some(Happened::Failed),
            Phase::Refused => Some(Happened::Refused),
            Phase::Expired => part.injected_at.map(|_| Happened::Ended),
            Phase::Pending => None,
        };
        entry.told = Some(part.phase);
        if let Some(happened) = happened {
            let snapshot = self.engine.snapshot();
            let view = own_view(&snapshot, &entry.resource);
            let pods = view.map_or_else(Vec::new, |view| events::pods(view, &snapshot.world));
            let note = format!("{}: {}", self.node, part.message);
            self.events.publish(happened, &entry.resource, &note, pods);
        }
    }

    /// Begins a write where one is due; says when the next one is.
    fn write(&mut self, entry: &mut Entry) -> Option<Instant> {
        if self.writes.len() >= MOST_WRITES {
            return None;
        }
        let (write, wake) = entry.next_write(&self.node);
        if let Some(write) = write {
            let (client, manager) = (self.client.clone(), self.manager.clone());
            self.writes.spawn(async move {
                let (key, uid) = (write.key.clone(), write.uid.clone());
                (key, uid, write::write(client, manager, write).await)
            });
        }
        wake
    }
}

/// What the engine has of this very resource.
fn own_view<'a>(snapshot: &'a Snapshot, resource: &Resource) -> Option<&'a FaultView> {
    let view = snapshot.faults.get(&resource.key.fault())?;
    (view.origin == resource.origin()).then_some(view)
}

fn is_active(view: &FaultView) -> bool {
    !matches!(view.phase, handle::Phase::Expired | handle::Phase::Deleted)
}

fn instant(time: SystemTime, now: SystemTime) -> Instant {
    // A little later, so that the time has come when it is looked at.
    Instant::now() + time.duration_since(now).unwrap_or_default() + Duration::from_millis(2)
}

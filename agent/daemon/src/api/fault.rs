//! `sabot.v1.FaultService`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sabot_core::model::FaultName;
use sabot_core::spec::{FaultSpec, Metadata};
use sabot_proto::convert::{duration_from_proto, metadata_from_proto, spec_from_proto};
use sabot_proto::sabot::v1;
use sabot_proto::sabot::v1::fault_service_server::FaultService;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::caller::Caller;
use super::changes::changes;
use super::status::{invalid_field, invalid_fields, not_found};
use super::stream::{Ended, Sink, Stopped, produce};
use super::view::{self, Ledgers, is_active};
use crate::audit::{Asked, AuditLog, Outcome, Who, fault_text};
use crate::engine::handle::{EngineError, FaultView, Handle, Phase, Snapshot};

const DEFAULT_WAIT: Duration = Duration::from_secs(5);
const MAX_WAIT: Duration = Duration::from_mins(5);
const DEFAULT_COUNTERS_INTERVAL: Duration = Duration::from_secs(1);
const MIN_COUNTERS_INTERVAL: Duration = Duration::from_millis(100);

pub(super) struct FaultApi {
    engine: Handle,
    audit: AuditLog,
    stopped: Stopped,
}

impl FaultApi {
    pub(super) fn new(engine: Handle, audit: AuditLog, stopped: Stopped) -> Self {
        Self {
            engine,
            audit,
            stopped,
        }
    }

    async fn apply(&self, request: v1::ApplyFaultRequest) -> Result<FaultView, Status> {
        let wait = match request.wait {
            None => DEFAULT_WAIT,
            Some(wait) => duration_from_proto("wait", wait).map_err(|e| invalid_fields(vec![e]))?,
        };
        if wait > MAX_WAIT {
            return Err(invalid_field(
                "wait",
                format!(
                    "{} is above the maximum of {}",
                    humantime::format_duration(wait),
                    humantime::format_duration(MAX_WAIT)
                ),
            ));
        }
        let (metadata, spec) = definition(request.metadata, request.spec)?;
        Ok(self.engine.apply(metadata, spec, wait).await?)
    }

    async fn ledgers(&self, name: Option<FaultName>) -> Result<Ledgers, Status> {
        Ok(view::ledgers(self.engine.ledgers(name).await?))
    }
}

#[tonic::async_trait]
impl FaultService for FaultApi {
    async fn apply_fault(
        &self,
        request: Request<v1::ApplyFaultRequest>,
    ) -> Result<Response<v1::ApplyFaultResponse>, Status> {
        let who = caller(&request);
        let request = request.into_inner();
        let named = request.metadata.clone().unwrap_or_default();
        // A spec may be long: it is only read twice for a log.
        let logged = self.audit.is_open().then(|| request.spec.clone()).flatten();
        let spec = logged.and_then(|spec| spec_from_proto(spec).ok());
        let applied = self.apply(request).await;
        let asked = Asked {
            method: "ApplyFault",
            fault: Some(fault_text(&named.namespace, &named.name)),
            spec: spec.as_ref(),
        };
        let outcome = outcome(&applied, |fault| fault.message.clone());
        self.audit.asked(&who, &asked, &outcome);
        let applied = applied?;
        Ok(Response::new(v1::ApplyFaultResponse {
            fault: Some(view::fault(&applied, Vec::new())?),
        }))
    }

    async fn get_fault(
        &self,
        request: Request<v1::GetFaultRequest>,
    ) -> Result<Response<v1::GetFaultResponse>, Status> {
        let request = request.into_inner();
        let name = fault_name(request.namespace, request.name)?;
        let mut ledgers = self.ledgers(Some(name.clone())).await?;
        let snapshot = self.engine.snapshot();
        let found = snapshot.faults.get(&name).ok_or_else(|| not_found(&name))?;
        Ok(Response::new(v1::GetFaultResponse {
            fault: Some(view::fault(found, ledgers.remove(&name).unwrap_or_default())?),
        }))
    }

    async fn list_faults(
        &self,
        request: Request<v1::ListFaultsRequest>,
    ) -> Result<Response<v1::ListFaultsResponse>, Status> {
        let request = request.into_inner();
        let mut ledgers = if request.include_counters {
            self.ledgers(None).await?
        } else {
            Ledgers::new()
        };
        let snapshot = self.engine.snapshot();
        let faults = snapshot
            .faults
            .iter()
            .filter(|(name, _)| request.namespace.as_ref().is_none_or(|n| *n == name.namespace))
            .filter(|(_, fault)| !request.active_only || is_active(fault))
            .map(|(name, fault)| view::fault(fault, ledgers.remove(name).unwrap_or_default()))
            .collect::<Result<_, _>>()?;
        Ok(Response::new(v1::ListFaultsResponse { faults }))
    }

    async fn delete_fault(
        &self,
        request: Request<v1::DeleteFaultRequest>,
    ) -> Result<Response<v1::DeleteFaultResponse>, Status> {
        let who = caller(&request);
        let request = request.into_inner();
        let name = fault_name(request.namespace, request.name)?;
        let deleted = self.engine.delete(name.clone()).await.map_err(Status::from);
        let asked = Asked {
            method: "DeleteFault",
            fault: Some(name.to_string()),
            spec: None,
        };
        let outcome = outcome(&deleted, |fault| fault.message.clone());
        self.audit.asked(&who, &asked, &outcome);
        let deleted = deleted?;
        // The fault is gone, which is the answer; that its counters can't be had any more doesn't make it an error.
        let mut ledgers = self.ledgers(Some(name.clone())).await.unwrap_or_default();
        Ok(Response::new(v1::DeleteFaultResponse {
            fault: Some(view::fault(&deleted, ledgers.remove(&name).unwrap_or_default())?),
        }))
    }

    async fn delete_all_faults(
        &self,
        request: Request<v1::DeleteAllFaultsRequest>,
    ) -> Result<Response<v1::DeleteAllFaultsResponse>, Status> {
        let who = caller(&request);
        let namespace = request.into_inner().namespace;
        let fault = namespace.as_ref().map(|namespace| fault_text(namespace, "*"));
        let deleted = self.engine.delete_all(namespace).await.map_err(Status::from);
        let asked = Asked {
            method: "DeleteAllFaults",
            fault,
            spec: None,
        };
        let outcome = outcome(&deleted, |faults| {
            let names: Vec<_> = faults.iter().map(|fault| fault.fault.name.to_string()).collect();
            format!("deleted: {}", names.join(", "))
        });
        self.audit.asked(&who, &asked, &outcome);
        let deleted = deleted?;
        // As above.
        let mut ledgers = self.ledgers(None).await.unwrap_or_default();
        let faults = deleted
            .iter()
            .map(|fault| view::fault(fault, ledgers.remove(&fault.fault.name).unwrap_or_default()))
            .collect::<Result<_, _>>()?;
        Ok(Response::new(v1::DeleteAllFaultsResponse { faults }))
    }

    async fn preview_fault(
        &self,
        request: Request<v1::PreviewFaultRequest>,
    ) -> Result<Response<v1::PreviewFaultResponse>, Status> {
        let request = request.into_inner();
        let (metadata, spec) = definition(request.metadata, request.spec)?;
        let preview = self.engine.preview(metadata, spec).await?;
        Ok(Response::new(view::preview(&preview)))
    }

    type WatchFaultsStream = ReceiverStream<Result<v1::WatchFaultsResponse, Status>>;

    async fn watch_faults(
        &self,
        request: Request<v1::WatchFaultsRequest>,
    ) -> Result<Response<Self::WatchFaultsStream>, Status> {
        let request = request.into_inner();
        let counters = match (request.include_counters, request.counters_interval) {
            (false, _) => None,
            (true, None) => Some(DEFAULT_COUNTERS_INTERVAL),
            (true, Some(asked)) => Some(
                duration_from_proto("countersInterval", asked)
                    .map_err(|e| invalid_fields(vec![e]))?
                    .max(MIN_COUNTERS_INTERVAL),
            ),
        };
        let engine = self.engine.clone();
        Ok(Response::new(produce(self.stopped.clone(), |sink| {
            let watcher = Watcher {
                engine,
                scope: Scope {
                    namespace: request.namespace,
                    name: request.name,
                },
                ticks: counters.map(|every| {
                    let mut ticks = interval(every);
                    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    ticks
                }),
                told: None,
                counters: Ledgers::new(),
                sink,
            };
            watcher.run()
        })))
    }
}

fn definition(
    metadata: Option<v1::Metadata>,
    spec: Option<v1::FaultSpec>,
) -> Result<(Metadata, FaultSpec), Status> {
    let metadata = metadata_from_proto(metadata.unwrap_or_default());
    let spec = spec_from_proto(spec.unwrap_or_default()).map_err(invalid_fields)?;
    Ok((metadata, spec))
}

/// Who sent the request.
pub(super) fn caller<T>(request: &Request<T>) -> Who {
    Who::from(request.extensions().get::<Caller>())
}

fn outcome<T>(result: &Result<T, Status>, message: impl FnOnce(&T) -> String) -> Outcome {
    match result {
        Ok(done) => Outcome::Done {
            message: message(done),
        },
        Err(status) => Outcome::from(status),
    }
}

pub(super) fn fault_name(namespace: String, name: String) -> Result<FaultName, Status> {
    if name.is_empty() {
        return Err(invalid_field("name", "is required"));
    }
    Ok(FaultName { namespace, name })
}

/// One reader of WatchFaults.
struct Watcher {
    engine: Handle,
    scope: Scope,
    /// `None`: no counters are asked for.
    ticks: Option<Interval>,
    /// What the reader has been told of; `None` at first.
    told: Option<Arc<Snapshot>>,
    counters: Ledgers,
    sink: Sink<v1::WatchFaultsResponse>,
}

/// Which faults a reader wants.
struct Scope {
    namespace: Option<String>,
    name: Option<String>,
}

impl Scope {
    fn has(&self, name: &FaultName) -> bool {
        self.namespace.as_ref().is_none_or(|n| *n == name.namespace)
            && self.name.as_ref().is_none_or(|n| *n == name.name)
    }

    /// The one fault, where no other can be meant: its counters are cheaper to read than everyone's.
    fn single(&self) -> Option<FaultName> {
        Some(FaultName {
            namespace: self.namespace.clone()?,
            name: self.name.clone()?,
        })
    }

    /// A deleted fault doesn't exist any more, although the daemon remembers it for a while.
    fn existing<'a>(&self, snapshot: &'a Snapshot) -> BTreeMap<&'a FaultName, &'a FaultView> {
        snapshot
            .faults
            .iter()
            .filter(|(name, fault)| self.has(name) && fault.phase != Phase::Deleted)
            .collect()
    }
}

impl Watcher {
    async fn run(mut self) -> Ended {
        match self.watch().await {
            Ok(()) => Ended,
            Err(ended) => ended,
        }
    }

    async fn watch(&mut self) -> Result<(), Ended> {
        let mut snapshots = self.engine.watch();
        let first = snapshots.borrow_and_update().clone();
        self.follow(first).await?;
        self.send(v1::Change::Synced, None).await?;
        loop {
            let ticks = self.ticks.as_mut();
            let next = async {
                tokio::select! {
                    biased;
                    changed = snapshots.changed() => changed.map(|()| true),
                    () = tick(ticks) => Ok(false),
                }
            };
            match self.sink.or_ended(next).await? {
                Ok(true) => {
                    let snapshot = snapshots.borrow_and_update().clone();
                    self.follow(snapshot).await?;
                }
                Ok(false) => self.refresh().await?,
                // The engine is gone, and the daemon with it.
                Err(_) => return Ok(()),
            }
        }
    }

    /// Sends what changed since the last snapshot.
    async fn follow(&mut self, snapshot: Arc<Snapshot>) -> Result<(), Ended> {
        let told = self.told.replace(snapshot.clone());
        let before = told
            .as_deref()
            .map(|s| self.scope.existing(s))
            .unwrap_or_default();
        let now = self.scope.existing(&snapshot);
        let changes = changes(&before, &now);
        if changes.is_empty() {
            return Ok(());
        }
        let counters = self.read_counters().await?;
        for (change, name, fault) in changes {
            // A deleted fault is told as the daemon still remembers it, with the time of its end.
            let fault = snapshot.faults.get(*name).unwrap_or(fault);
            let ledgers = counters.get(*name).cloned().unwrap_or_default();
            self.send_fault(change, fault, ledgers).await?;
        }
        self.counters = counters;
        Ok(())
    }

    /// Sends the faults whose counters moved.
    async fn refresh(&mut self) -> Result<(), Ended> {
        let Some(told) = self.told.clone() else {
            return Ok(());
        };
        let counters = self.read_counters().await?;
        let before = std::mem::replace(&mut self.counters, counters.clone());
        for (name, fault) in self.scope.existing(&told) {
            let ledgers = counters.get(name);
            if ledgers != before.get(name) {
                self.send_fault(v1::Change::Counters, fault, ledgers.cloned().unwrap_or_default())
                    .await?;
            }
        }
        Ok(())
    }

    async fn read_counters(&mut self) -> Result<Ledgers, Ended> {
        if self.ticks.is_none() {
            return Ok(Ledgers::new());
        }
        let read = self.engine.ledgers(self.scope.single());
        match self.sink.or_ended(read).await? {
            Ok(entries) => Ok(view::ledgers(entries)),
            Err(EngineError::NotFound(_)) => Ok(Ledgers::new()),
            Err(EngineError::ShuttingDown) => Err(Ended),
            Err(error) => Err(self.sink.fail(error.into()).await),
        }
    }

    async fn send_fault(
        &mut self,
        change: v1::Change,
        fault: &FaultView,
        ledgers: Vec<v1::LedgerEntry>,
    ) -> Result<(), Ended> {
        match view::fault(fault, ledgers) {
            Ok(fault) => self.send(change, Some(fault)).await,
            Err(status) => Err(self.sink.fail(status).await),
        }
    }

    async fn send(&mut self, change: v1::Change, fault: Option<v1::Fault>) -> Result<(), Ended> {
        self.sink
            .send(v1::WatchFaultsResponse {
                change: change.into(),
                fault,
            })
            .await
    }
}

/// Never returns where no counters are asked for.
async fn tick(ticks: Option<&mut Interval>) {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => std::future::pending().await,
    }
}

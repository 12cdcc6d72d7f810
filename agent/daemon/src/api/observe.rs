//! `sabot.v1.ObserveService`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sabot_proto::convert::{duration_to_proto, timestamp_to_proto};
use sabot_proto::sabot::v1;
use sabot_proto::sabot::v1::observe_service_server::ObserveService;
use tokio::sync::broadcast::error::RecvError;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::events::{EventFilter, WATCH_STREAM, WatchLoss, event};
use super::fault::{caller, fault_name};
use super::status::{invalid, invalid_field, not_found};
use super::stream::{Ended, Sink, Stopped, produce};
use super::timeline::timeline;
use super::{NodeInfo, Services, tcp, traffic, view};
use crate::audit::{Asked, Outcome};
use crate::observe::event::{Event, EventKind, Subscription};
use crate::observe::source::{Audit, CriSummary, SetTracingError, SyscallSummary};
use crate::observe::syscalls::{SyscallsError, Tracing};
use crate::observe::udp::Look;

pub(super) struct ObserveApi {
    services: Services,
    stopped: Stopped,
}

impl ObserveApi {
    pub(super) fn new(services: Services, stopped: Stopped) -> Self {
        Self { services, stopped }
    }
}

#[tonic::async_trait]
impl ObserveService for ObserveApi {
    type WatchEventsStream = ReceiverStream<Result<v1::WatchEventsResponse, Status>>;

    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let filter = EventFilter::try_from(request.into_inner())?;
        // Subscribed before the answer's headers go out: whoever has them misses nothing from then on.
        let events = filter.subscribe(&self.services.events);
        let watcher = Watcher {
            filter,
            loss: self.services.watch_loss.clone(),
            node: Arc::clone(&self.services.node),
        };
        Ok(Response::new(produce(self.stopped.clone(), |sink| {
            watcher.forward(events, sink)
        })))
    }

    async fn get_snapshot(
        &self,
        _request: Request<v1::GetSnapshotRequest>,
    ) -> Result<Response<v1::GetSnapshotResponse>, Status> {
        let services = &self.services;
        let mut ledgers = view::ledgers(services.engine.ledgers(None).await?);
        let faults = services
            .engine
            .snapshot()
            .faults
            .iter()
            .map(|(name, fault)| view::fault(fault, ledgers.remove(name).unwrap_or_default()))
            .collect::<Result<_, _>>()?;
        let mut events_lost = counts(services.observe.events_lost());
        events_lost.push(v1::NamedCount {
            name: WATCH_STREAM.to_owned(),
            count: services.watch_loss.get(),
        });
        Ok(Response::new(v1::GetSnapshotResponse {
            time: Some(timestamp_to_proto(SystemTime::now())),
            faults,
            syscalls: services
                .observe
                .syscalls()
                .into_iter()
                .map(syscall_summary)
                .collect(),
            events_lost,
            incidents: counts(services.observe.incidents()),
            audit: Some(audit(services.observe.audit())),
            cri: services.observe.cri().into_iter().map(cri_summary).collect(),
            container_events: counts(services.observe.container_events()),
            drops: traffic::drop_summaries(services.observe.drops()),
            dns: traffic::dns_summaries(services.observe.queries()),
            tcp: services.observe.tcp().iter().flat_map(tcp::summaries).collect(),
        }))
    }

    async fn list_flows(
        &self,
        request: Request<v1::ListFlowsRequest>,
    ) -> Result<Response<v1::ListFlowsResponse>, Status> {
        let request = request.into_inner();
        let observe_for = tcp::observe_for(&request)?;
        let query = tcp::query(request)?;
        let look = match observe_for {
            Some(duration) => Some(self.look(duration).await?),
            None => None,
        };
        let observe = Arc::clone(&self.services.observe);
        // Thousands of system calls where there are many connections: not on a thread that others wait for.
        let list = tokio::task::spawn_blocking(move || observe.flows(&query, look)).await;
        let list = list.map_err(|panic| Status::internal(panic.to_string()))??;
        Ok(Response::new(v1::ListFlowsResponse {
            time: Some(timestamp_to_proto(SystemTime::now())),
            flows: list.flows.iter().map(tcp::flow).collect(),
            missing: list.missing,
        }))
    }

    async fn get_timeline(
        &self,
        request: Request<v1::GetTimelineRequest>,
    ) -> Result<Response<v1::GetTimelineResponse>, Status> {
        let request = request.into_inner();
        let fault = fault_name(request.namespace, request.name)?;
        let timelines = Arc::clone(&self.services.timelines);
        let asked = fault.clone();
        let ledgers = self.services.engine.ledgers(Some(fault.clone())).await?;
        // The kernel's counters are read for it.
        let found = tokio::task::spawn_blocking(move || timelines.timeline(&asked, &ledgers)).await;
        let found =
            found.map_err(|error| Status::internal(format!("the timeline can't be read: {error}")))?;
        let found = found.ok_or_else(|| not_found(&fault))?;
        Ok(Response::new(v1::GetTimelineResponse {
            timeline: Some(timeline(&fault, &found)),
        }))
    }

    async fn get_tracing(
        &self,
        _request: Request<v1::GetTracingRequest>,
    ) -> Result<Response<v1::GetTracingResponse>, Status> {
        let tracing = self
            .services
            .observe
            .tracing()
            .ok_or(SetTracingError::NotObserved)?;
        Ok(Response::new(v1::GetTracingResponse {
            tracing: Some(tracing_to_proto(tracing)),
        }))
    }

    async fn set_tracing(
        &self,
        request: Request<v1::SetTracingRequest>,
    ) -> Result<Response<v1::SetTracingResponse>, Status> {
        let who = caller(&request);
        let result = self.trace(request.into_inner()).await;
        let asked = Asked {
            method: "SetTracing",
            ..Asked::default()
        };
        let outcome = match &result {
            Ok(tracing) => Outcome::Done {
                message: format!("{tracing:?}"),
            },
            Err(status) => Outcome::from(status),
        };
        self.services.audit.asked(&who, &asked, &outcome);
        Ok(Response::new(v1::SetTracingResponse {
            tracing: Some(tracing_to_proto(result?)),
        }))
    }
}

impl ObserveApi {
    /// Counts UDP for that long, or until the daemon stops; it ends as well when nobody waits for this any more.
    async fn look(&self, duration: Duration) -> Result<Result<Look, String>, Status> {
        let observe = Arc::clone(&self.services.observe);
        // The kernel reads the programs first.
        let look = tokio::task::spawn_blocking(move || observe.look()).await;
        let look = look.map_err(|panic| Status::internal(panic.to_string()))?;
        if look.is_ok() {
            let mut stopped = self.stopped.clone();
            tokio::select! {
                () = tokio::time::sleep(duration) => {}
                () = stopped.wait() => {}
            }
        }
        Ok(look)
    }

    async fn trace(&self, request: v1::SetTracingRequest) -> Result<Tracing, Status> {
        let Some(tracing) = request.tracing else {
            let allowed = "nothing given; allowed: what is to be traced, as a whole";
            return Err(invalid_field("tracing", allowed));
        };
        let observe = Arc::clone(&self.services.observe);
        let tracing = Tracing {
            processes: tracing.processes,
            syscalls: tracing.syscalls,
            cgroups: tracing.cgroups,
            containers: tracing.containers,
        };
        // It waits for the kernel's programs to end.
        let set = tokio::task::spawn_blocking(move || observe.set_tracing(&tracing).map(|()| tracing));
        Ok(set.await.map_err(|error| Status::internal(error.to_string()))??)
    }
}

impl From<SetTracingError> for Status {
    fn from(error: SetTracingError) -> Self {
        let message = error.to_string();
        match error {
            SetTracingError::NotObserved => Self::failed_precondition(message),
            SetTracingError::Syscalls(SyscallsError::Invalid(violations)) => {
                invalid(violations.into_iter().map(|v| (v.field.clone(), v.description())))
            }
            SetTracingError::Syscalls(_) => Self::internal(message),
        }
    }
}

fn tracing_to_proto(tracing: Tracing) -> v1::Tracing {
    v1::Tracing {
        processes: tracing.processes,
        syscalls: tracing.syscalls,
        cgroups: tracing.cgroups,
        containers: tracing.containers,
    }
}

/// Who watches events, and where.
struct Watcher {
    filter: EventFilter,
    loss: WatchLoss,
    node: Arc<NodeInfo>,
}

impl Watcher {
    /// Passes on what the filter lets through, and says where events are missing.
    async fn forward(self, mut events: Subscription, mut sink: Sink<v1::WatchEventsResponse>) -> Ended {
        loop {
            let next = match sink.or_ended(events.recv()).await {
                Ok(Ok(next)) => next,
                Ok(Err(RecvError::Lagged(count))) => {
                    self.loss.add(count);
                    Arc::new(Event {
                        time: SystemTime::now(),
                        container: None,
                        kind: EventKind::Lost {
                            stream: WATCH_STREAM,
                            count,
                        },
                    })
                }
                Ok(Err(RecvError::Closed)) => return Ended,
                Err(ended) => return ended,
            };
            if !self.filter.passes(&next) {
                continue;
            }
            let message = v1::WatchEventsResponse {
                event: Some(event(&next, &self.node.name)),
            };
            if let Err(ended) = sink.send(message).await {
                return ended;
            }
        }
    }
}

fn syscall_summary(summary: SyscallSummary) -> v1::SyscallSummary {
    v1::SyscallSummary {
        process: summary.process,
        syscall: summary.syscall,
        calls: summary.calls,
        total: Some(duration_to_proto(summary.total)),
        errors: counts(summary.errors),
        p50: Some(duration_to_proto(summary.p50)),
        p99: Some(duration_to_proto(summary.p99)),
        durations: Some(tcp::durations(&summary.durations)),
    }
}

fn cri_summary(summary: CriSummary) -> v1::CriSummary {
    v1::CriSummary {
        operation: summary.operation,
        calls: summary.calls,
        total: Some(duration_to_proto(summary.total)),
        outcomes: counts(summary.outcomes),
        in_flight: summary.in_flight,
    }
}

fn audit(audit: Audit) -> v1::Audit {
    v1::Audit {
        complete: audit.missing.is_empty(),
        missing: audit.missing,
        unresolved: counts(audit.unresolved),
    }
}

fn counts(counts: Vec<(String, u64)>) -> Vec<v1::NamedCount> {
    counts
        .into_iter()
        .map(|(name, count)| v1::NamedCount { name, count })
        .collect()
}

//! `sabot.v1.ObserveService`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sabot_abi::{HISTOGRAM_BUCKETS, log_linear_bound};
use sabot_proto::convert::{duration_to_proto, timestamp_to_proto};
use sabot_proto::sabot::v1;
use sabot_proto::sabot::v1::observe_service_server::ObserveService;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::events::{EventFilter, WATCH_STREAM, WatchLoss, direction, event, owner};
use super::stream::{Ended, Sink, Stopped, produce};
use super::{Services, view};
use crate::observe::drops::{DropClass, Dropped};
use crate::observe::event::{Event, EventKind};
use crate::observe::identity::Identity;
use crate::observe::queries::QueryStats;
use crate::observe::source::SyscallSummary;

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
        let events = self.services.events.subscribe();
        let loss = self.services.watch_loss.clone();
        Ok(Response::new(produce(self.stopped.clone(), |sink| {
            forward(events, filter, loss, sink)
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
            drops: services
                .observe
                .drops()
                .drops
                .into_iter()
                .map(drop_summary)
                .collect(),
            dns: services
                .observe
                .queries()
                .owners
                .into_iter()
                .map(|(identity, stats)| dns_summary(&identity, stats))
                .collect(),
        }))
    }
}

/// Passes on what the filter lets through, and says where events are missing.
async fn forward(
    mut events: Receiver<Arc<Event>>,
    filter: EventFilter,
    loss: WatchLoss,
    mut sink: Sink<v1::WatchEventsResponse>,
) -> Ended {
    loop {
        let next = match sink.or_ended(events.recv()).await {
            Ok(Ok(next)) => next,
            Ok(Err(RecvError::Lagged(count))) => {
                loss.add(count);
                Arc::new(Event {
                    time: SystemTime::now(),
                    kind: EventKind::Lost {
                        stream: WATCH_STREAM,
                        count,
                    },
                })
            }
            Ok(Err(RecvError::Closed)) => return Ended,
            Err(ended) => return ended,
        };
        if !filter.passes(&next) {
            continue;
        }
        let message = v1::WatchEventsResponse {
            event: Some(event(&next)),
        };
        if let Err(ended) = sink.send(message).await {
            return ended;
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
    }
}

fn drop_summary((class, dropped): (DropClass, Dropped)) -> v1::DropSummary {
    v1::DropSummary {
        pod: owner(&class.owner),
        direction: direction(class.egress).into(),
        reason: class.reason,
        injected: class.injected,
        packets: dropped.packets,
        bytes: dropped.bytes,
    }
}

fn dns_summary(identity: &Identity, stats: QueryStats) -> v1::DnsSummary {
    let responses = stats.responses.into_iter();
    let buckets = stats.latency.buckets.iter().enumerate();
    v1::DnsSummary {
        pod: owner(identity),
        queries: stats.queries,
        retries: stats.retries,
        responses: responses
            .map(|(rcode, count)| v1::NamedCount {
                name: rcode.to_owned(),
                count,
            })
            .collect(),
        unanswered: stats.unanswered,
        late: stats.late,
        unmatched: stats.unmatched,
        replaced: stats.replaced,
        total_latency: Some(duration_to_proto(Duration::from_nanos(stats.latency.sum))),
        latencies: buckets
            .filter(|&(_, &count)| count != 0)
            .map(|(bucket, &count)| v1::DnsLatency {
                below: (bucket + 1 < HISTOGRAM_BUCKETS)
                    .then(|| duration_to_proto(Duration::from_nanos(log_linear_bound(bucket)))),
                count,
            })
            .collect(),
    }
}

fn counts(counts: Vec<(String, u64)>) -> Vec<v1::NamedCount> {
    counts
        .into_iter()
        .map(|(name, count)| v1::NamedCount { name, count })
        .collect()
}

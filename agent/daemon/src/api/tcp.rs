//! TCP connections, as the API says them.

use std::path::PathBuf;
use std::time::Duration;

use sabot_abi::{
    CONNECTION_ACCEPTED, CONNECTION_CLOSED, CONNECTION_FAILED, CONNECTION_OPENED, Histogram,
    PEER_CLASS_NAMES, log_linear_bound,
};
use sabot_proto::convert::{duration_from_proto, duration_to_proto};
use sabot_proto::sabot::v1;
use tonic::Status;

use super::status::invalid_field;
use crate::observe::event::{TcpChange, TcpEvent};
use crate::observe::flows::{Flow, FlowOrder, FlowQuery, MAX_FLOWS};
use crate::observe::identity::Identity;
use crate::observe::source::FlowsError;
use crate::observe::tcp::{TcpSnapshot, TcpTotals};
use crate::observe::timeline::Connections;

const DEFAULT_FLOWS: usize = 20;
const LONGEST_LOOK: Duration = Duration::from_secs(60);

impl From<FlowsError> for Status {
    fn from(error: FlowsError) -> Self {
        match error {
            FlowsError::NotObserved => Self::failed_precondition(error.to_string()),
            FlowsError::Unreadable(_) => Self::internal(error.to_string()),
        }
    }
}

/// `None` is the node.
pub(super) fn owner_ref(owner: &Identity) -> Option<v1::PodRef> {
    (*owner != Identity::Node).then(|| v1::PodRef {
        namespace: owner.namespace().to_owned(),
        name: owner.label(),
    })
}

pub(super) fn tcp_event(event: &TcpEvent) -> v1::TcpEvent {
    let change = match event.change {
        TcpChange::ConnectFailed => v1::TcpChange::ConnectFailed,
        TcpChange::Lost => v1::TcpChange::Lost,
        TcpChange::ResetSent => v1::TcpChange::ResetSent,
        TcpChange::ResetReceived => v1::TcpChange::ResetReceived,
        TcpChange::Rto => v1::TcpChange::Rto,
    };
    v1::TcpEvent {
        pod: owner_ref(&event.owner),
        change: change.into(),
        local: event.local.to_string(),
        remote: event.remote.to_string(),
        local_port: event.local_port.into(),
        remote_port: event.remote_port.into(),
        errno: event.errno.map(str::to_owned),
    }
}

pub(super) fn summaries(snapshot: &TcpSnapshot) -> impl Iterator<Item = v1::TcpSummary> {
    snapshot
        .owners
        .iter()
        .map(|(owner, totals)| summary(owner, totals))
}

fn summary(owner: &Identity, totals: &TcpTotals) -> v1::TcpSummary {
    v1::TcpSummary {
        pod: owner_ref(owner),
        connections: connections(&totals.connections),
        connect_errors: totals
            .connect_errors
            .iter()
            .map(|&(name, count)| v1::NamedCount {
                name: name.to_owned(),
                count,
            })
            .collect(),
        lost: totals.lost,
        retransmits: totals.retransmits,
        synack_retransmits: totals.synack_retransmits,
        rtos: totals.rtos,
        resets_sent: totals.resets_sent,
        resets_received: totals.resets_received,
        bytes_sent: totals.bytes_sent,
        bytes_received: totals.bytes_received,
        handshakes: Some(durations(&totals.handshakes)),
        rtts: Some(durations(&totals.rtts)),
    }
}

/// Classes of peers with which there were any.
pub(super) fn connections(connections: &Connections) -> Vec<v1::TcpConnections> {
    let classes = PEER_CLASS_NAMES.iter().zip(connections);
    classes
        .filter(|(_, outcomes)| outcomes.iter().any(|&count| count > 0))
        .map(|(&peer, outcomes)| v1::TcpConnections {
            peer: peer.to_owned(),
            opened: outcomes[CONNECTION_OPENED],
            accepted: outcomes[CONNECTION_ACCEPTED],
            closed: outcomes[CONNECTION_CLOSED],
            failed: outcomes[CONNECTION_FAILED],
        })
        .collect()
}

pub(super) fn durations(histogram: &Histogram) -> v1::Durations {
    let buckets = histogram.buckets.iter().enumerate();
    v1::Durations {
        count: histogram.count(),
        total: Some(duration_to_proto(Duration::from_nanos(histogram.sum))),
        buckets: buckets
            .filter(|(_, count)| **count > 0)
            .map(|(bucket, &count)| {
                let below = Some(log_linear_bound(bucket)).filter(|bound| *bound != u64::MAX);
                v1::DurationBucket {
                    below: below.map(|bound| duration_to_proto(Duration::from_nanos(bound))),
                    count,
                }
            })
            .collect(),
    }
}

/// # Errors
///
/// Names the field that is not as allowed.
pub(super) fn query(request: v1::ListFlowsRequest) -> Result<FlowQuery, Status> {
    let order = match v1::FlowOrder::try_from(request.order) {
        Ok(v1::FlowOrder::Unspecified | v1::FlowOrder::Bytes) => FlowOrder::Bytes,
        Ok(v1::FlowOrder::Packets) => FlowOrder::Packets,
        Ok(v1::FlowOrder::Retransmits) => FlowOrder::Retransmits,
        Err(_) => {
            return Err(invalid_field(
                "order",
                format!(
                    "{} is not an order of flows; allowed are BYTES, PACKETS and RETRANSMITS",
                    request.order
                ),
            ));
        }
    };
    let limit = match request.limit as usize {
        0 => DEFAULT_FLOWS,
        limit if limit <= MAX_FLOWS => limit,
        limit => {
            return Err(invalid_field(
                "limit",
                format!(
                    "{limit} flows are too many; up to {MAX_FLOWS} are allowed, and 0 for {DEFAULT_FLOWS}"
                ),
            ));
        }
    };
    Ok(FlowQuery {
        owner: request.pod.map(owner).transpose()?,
        order,
        limit,
    })
}

/// For how long UDP is to be counted; `None`: not at all.
pub(super) fn observe_for(request: &v1::ListFlowsRequest) -> Result<Option<Duration>, Status> {
    const FIELD: &str = "observe_for";
    let Some(given) = request.observe_for else {
        return Ok(None);
    };
    let duration =
        duration_from_proto(FIELD, given).map_err(|error| invalid_field(FIELD, error.description))?;
    if duration > LONGEST_LOOK {
        let allowed = format!(
            "{} is too long; up to {} is allowed",
            humantime::format_duration(duration),
            humantime::format_duration(LONGEST_LOOK)
        );
        return Err(invalid_field(FIELD, allowed));
    }
    Ok(Some(duration).filter(|duration| !duration.is_zero()))
}

fn owner(pod: v1::PodRef) -> Result<Identity, Status> {
    if pod.name.is_empty() {
        return Err(invalid_field("pod.name", "it is empty; a pod's name is needed"));
    }
    if !pod.namespace.is_empty() {
        return Ok(Identity::Pod {
            namespace: pod.namespace,
            name: pod.name,
        });
    }
    if pod.name == Identity::Node.label() {
        return Ok(Identity::Node);
    }
    match pod.name.strip_prefix("netns:") {
        Some(path) => Ok(Identity::Netns(PathBuf::from(path))),
        None => Err(invalid_field(
            "pod.namespace",
            format!(
                "it is empty, and `{}` is neither `node` nor `netns:` and a path; a pod's namespace is needed",
                pod.name
            ),
        )),
    }
}

pub(super) fn flow(flow: &Flow) -> v1::Flow {
    v1::Flow {
        pod: owner_ref(&flow.owner),
        local: flow.local.to_string(),
        remote: flow.remote.to_string(),
        local_port: flow.local_port.into(),
        remote_port: flow.remote_port.into(),
        peer: flow.peer.to_owned(),
        bytes_sent: flow.bytes_sent,
        bytes_received: flow.bytes_received,
        packets_sent: u32::try_from(flow.packets_sent).unwrap_or(u32::MAX),
        packets_received: u32::try_from(flow.packets_received).unwrap_or(u32::MAX),
        retransmits: flow.retransmits,
        rtt: flow.rtt.map(duration_to_proto),
        protocol: flow.protocol.name().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use sabot_abi::log_linear_bucket;
    use tonic::Code;

    use super::*;

    fn request(namespace: &str, name: &str) -> v1::ListFlowsRequest {
        v1::ListFlowsRequest {
            pod: Some(v1::PodRef {
                namespace: namespace.into(),
                name: name.into(),
            }),
            ..v1::ListFlowsRequest::default()
        }
    }

    #[test]
    fn an_empty_request_asks_for_some_by_bytes() {
        let expected = FlowQuery {
            owner: None,
            order: FlowOrder::Bytes,
            limit: DEFAULT_FLOWS,
        };
        assert_eq!(query(v1::ListFlowsRequest::default()).unwrap(), expected);
    }

    #[test]
    fn every_kind_of_owner_can_be_asked_for() {
        let asked = |namespace, name| query(request(namespace, name)).unwrap().owner.unwrap();
        assert_eq!(asked("", "node"), Identity::Node);
        assert_eq!(
            asked("", "netns:/run/netns/x"),
            Identity::Netns("/run/netns/x".into())
        );
        let pod = asked("shop", "web");
        assert_eq!((pod.namespace(), pod.label().as_str()), ("shop", "web"));
    }

    #[test]
    fn what_is_not_allowed_is_refused_by_field() {
        let orders = v1::ListFlowsRequest {
            order: 9,
            ..v1::ListFlowsRequest::default()
        };
        let limits = v1::ListFlowsRequest {
            limit: 1001,
            ..v1::ListFlowsRequest::default()
        };
        for (wrong, said) in [
            (orders, "9 is not an order"),
            (limits, "1001 flows are too many"),
            (request("shop", ""), "a pod's name is needed"),
            (request("", "web"), "`web` is neither"),
        ] {
            let status = query(wrong).unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument);
            assert!(status.message().contains(said), "{}", status.message());
        }
    }

    #[test]
    fn a_look_takes_a_minute_at_most() {
        let look = |seconds, nanos| {
            let request = v1::ListFlowsRequest {
                observe_for: Some(prost_types::Duration { seconds, nanos }),
                ..v1::ListFlowsRequest::default()
            };
            observe_for(&request).map_err(|status| status.message().to_owned())
        };
        assert_eq!(observe_for(&v1::ListFlowsRequest::default()).unwrap(), None);
        assert_eq!(look(0, 0), Ok(None));
        assert_eq!(look(60, 0), Ok(Some(Duration::from_secs(60))));
        let error = look(60, 1).unwrap_err();
        assert_eq!(error, "observe_for: 1m 1ns is too long; up to 1m is allowed");
        let error = look(-1, 0).unwrap_err();
        assert!(
            error.starts_with("observe_for: -1 s and 0 ns is not a duration"),
            "{error}"
        );
    }

    #[test]
    fn durations_are_told_by_their_buckets() {
        let mut histogram = Histogram::EMPTY;
        histogram.buckets[log_linear_bucket(40_000_000)] = 3;
        histogram.buckets[log_linear_bucket(u64::MAX)] = 1;
        histogram.sum = 5_000_000_000;
        let told = durations(&histogram);
        assert_eq!((told.count, told.total.unwrap().seconds), (4, 5));
        let bounds: Vec<_> = told
            .buckets
            .iter()
            .map(|bucket| bucket.below.map(|b| b.nanos))
            .collect();
        assert!(bounds[0].is_some_and(|bound| (40_000_000..=50_000_000).contains(&bound)));
        assert_eq!(bounds[1], None);
    }
}

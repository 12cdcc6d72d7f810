//! Drops and DNS queries as the API says them.

use sabot_proto::convert::duration_to_proto;
use sabot_proto::sabot::v1;

use super::tcp::{durations, owner_ref};
use crate::observe::drops::DropSnapshot;
use crate::observe::event::{DnsEvent, DnsOutcome, DropEvent};
use crate::observe::identity::Identity;
use crate::observe::queries::{QuerySnapshot, QueryStats};

pub(super) fn drop_event(drop: &DropEvent) -> v1::DropEvent {
    v1::DropEvent {
        pod: owner_ref(&drop.owner),
        direction: direction(drop.egress).into(),
        reason: drop.reason.clone(),
        source: drop.source.to_string(),
        destination: drop.destination.to_string(),
        source_port: drop.source_port.into(),
        destination_port: drop.destination_port.into(),
        protocol: drop.protocol.into(),
        wire_packets: drop.wire_packets,
        wire_bytes: drop.wire_bytes,
    }
}

pub(super) fn dns_event(query: &DnsEvent) -> v1::DnsEvent {
    let outcome = match query.outcome {
        DnsOutcome::Unanswered => v1::DnsOutcome::Unanswered,
        DnsOutcome::Slow => v1::DnsOutcome::Slow,
        DnsOutcome::Failed => v1::DnsOutcome::Failed,
    };
    v1::DnsEvent {
        pod: owner_ref(&query.owner),
        outcome: outcome.into(),
        name: query.name.clone(),
        r#type: query.kind.clone(),
        server: query.server.to_string(),
        rcode: query.rcode.map(str::to_owned),
        latency: Some(duration_to_proto(query.latency)),
    }
}

pub(super) fn direction(egress: bool) -> v1::Direction {
    if egress {
        v1::Direction::Egress
    } else {
        v1::Direction::Ingress
    }
}

pub(super) fn drop_summaries(snapshot: DropSnapshot) -> Vec<v1::DropSummary> {
    let drops = snapshot.drops.into_iter();
    drops
        .map(|(class, dropped)| v1::DropSummary {
            pod: owner_ref(&class.owner),
            direction: direction(class.kind.egress).into(),
            reason: class.kind.reason,
            injected: class.kind.injected,
            packets: dropped.packets,
            bytes: dropped.bytes,
        })
        .collect()
}

pub(super) fn dns_summaries(snapshot: QuerySnapshot) -> Vec<v1::DnsSummary> {
    let owners = snapshot.owners.into_iter();
    owners
        .map(|(identity, stats)| dns_summary(&identity, stats))
        .collect()
}

fn dns_summary(identity: &Identity, stats: QueryStats) -> v1::DnsSummary {
    let responses = stats.responses.into_iter();
    v1::DnsSummary {
        pod: owner_ref(identity),
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
        latency: Some(durations(&stats.latency)),
    }
}

//! What is printed, in the shape of `-o json` and `-o yaml`: a contract with scripts, independent of the wire.

mod event;
mod fault;
mod merged;
mod node;
mod tcp;
mod timeline;
mod top;
mod trace;

pub(crate) use event::{
    ContainerDoc, ContainerRefDoc, CriDoc, DnsDoc, DropDoc, EventDoc, EventKindDoc, PacketDoc, PodDoc,
    SyscallDoc,
};
pub(crate) use fault::{
    ChangeDoc, FaultDoc, FaultsDoc, LedgerDoc, Phase, PreviewDoc, Tally, TargetPhase, TargetRefDoc,
    TargetStatusDoc, WatchDoc,
};
pub(crate) use merged::{Merged, NodeError, OnNode};
pub(crate) use node::{NodeDoc, TargetDoc, TargetKind, TargetsDoc};
pub(crate) use tcp::{FlowDoc, FlowsDoc, TcpDoc};
pub(crate) use timeline::{
    AggregateDoc, ConnectionsDoc, Counts, LatenciesDoc, MomentDoc, NodeAggregateDoc, NodeTimelineDoc,
    TargetTimelineDoc, TimelineDoc,
};
pub(crate) use top::{PodTopDoc, SyscallTopDoc, TopDoc};
pub(crate) use trace::TracingDoc;

use std::fmt;
use std::time::{Duration, SystemTime};

use sabot_core::spec::Metadata;
use sabot_proto::convert::{FieldError, duration_from_proto, metadata_from_proto, timestamp_from_proto};
use sabot_proto::sabot::v1;
use serde::{Serialize, Serializer};

use crate::error::CliError;

/// RFC 3339 with milliseconds, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time(pub(crate) SystemTime);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let in_range = self
            .0
            .duration_since(SystemTime::UNIX_EPOCH)
            // The formatter panics beyond the year 9999.
            .is_ok_and(|since| since.as_secs() < 253_402_300_800);
        if in_range {
            write!(f, "{}", humantime::format_rfc3339_millis(self.0))
        } else {
            f.write_str("a time before 1970 or after 9999")
        }
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// As people and manifests write durations: `1m 30s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(pub(crate) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", humantime::format_duration(self.0))
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// `namespace/name`, or `name` where there is no namespace.
pub(crate) fn full_name(metadata: &Metadata) -> String {
    if metadata.namespace.is_empty() {
        metadata.name.clone()
    } else {
        format!("{}/{}", metadata.namespace, metadata.name)
    }
}

fn metadata(proto: Option<v1::Metadata>) -> Metadata {
    metadata_from_proto(proto.unwrap_or_default())
}

fn time(field: &str, proto: Option<prost_types::Timestamp>) -> Result<Option<Time>, CliError> {
    let time = proto.map(|t| timestamp_from_proto(field, t)).transpose();
    time.map(|t| t.map(Time)).map_err(|e| not_understood(&[e]))
}

fn span(field: &str, proto: Option<prost_types::Duration>) -> Result<Option<Span>, CliError> {
    let span = proto.map(|d| duration_from_proto(field, d)).transpose();
    span.map(|d| d.map(Span)).map_err(|e| not_understood(&[e]))
}

/// A newer daemon, or a broken one.
fn not_understood(errors: &[FieldError]) -> CliError {
    let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
    CliError::Failed(format!(
        "sabotd's answer is not understood: {}",
        errors.join("; ")
    ))
}

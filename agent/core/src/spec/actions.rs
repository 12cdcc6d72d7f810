//! Actions, as a user writes them.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::DurationText;
use super::text::{duration_list, duration_option};

/// Exactly one field is given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {drop: {percent: 5}}"
)]
pub struct Action {
    /// Nothing passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<Partition>,
    /// Packets are lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop: Option<Drop>,
    /// Bytes of packets are changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrupt: Option<Corrupt>,
    /// Packets arrive more than once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<Duplicate>,
    /// Packets are overtaken by later ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reorder: Option<Reorder>,
    /// Packets pass at a limited rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Packets are answered with an ICMP error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reject: Option<Reject>,
    /// TCP connections are reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset: Option<Reset>,
    /// Packets arrive later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Delay>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "an empty mapping {}"
)]
pub struct Partition {}

/// Exactly one of the models, with `only` beside it; `only` alone means every such packet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {percent: 5}"
)]
pub struct Drop {
    /// Each wire packet with this chance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<f64>,
    /// A chain of a good and a bad state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gilbert_elliott: Option<GilbertElliott>,
    /// Bursts of losses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<Burst>,
    /// By counting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nth: Option<Nth>,
    /// Every packet of some of the connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flows: Option<Flows>,
    /// `syn` or `handshake`: only packets that open a TCP connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["syn", "handshake"]))]
    pub only: Option<String>,
}

/// A chain of a good and a bad state, one step a wire packet; percents.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {p: 1, r: 25}"
)]
pub struct GilbertElliott {
    /// From good to bad.
    #[schemars(range(min = 0, max = 100))]
    pub p: f64,
    /// From bad to good.
    #[schemars(range(min = 0, max = 100))]
    pub r: f64,
    /// Absent: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100), extend("default" = 0))]
    pub loss_good: Option<f64>,
    /// Absent: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100), extend("default" = 100))]
    pub loss_bad: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {percent: 2, length: 8}"
)]
pub struct Burst {
    /// The stationary loss.
    #[schemars(range(min = 0, max = 100))]
    pub percent: f64,
    /// The mean length of a burst, in wire packets.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub length: f64,
}

/// Exactly one field is given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {every: 10}"
)]
pub struct Nth {
    /// Each so manieth wire packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub every: Option<u32>,
    /// So many wire packets at the start of each connection, in each direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub first: Option<u32>,
}

/// All packets of this share of the connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {percent: 20}"
)]
pub struct Flows {
    /// How many, in percent.
    #[schemars(range(min = 0, max = 100))]
    pub percent: f64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {percent: 1}"
)]
pub struct Corrupt {
    /// `payload` or `wire`; absent: `payload`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["payload", "wire"], "default" = "payload"))]
    pub kind: Option<String>,
    /// How many, in percent.
    #[schemars(range(min = 0, max = 100))]
    pub percent: f64,
    /// 1 to 8, all in one byte; absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 8), extend("default" = 1))]
    pub bits: Option<u32>,
    /// Which bytes of the payload are meant; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<Offset>,
}

/// Bytes of the transport's payload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {from: 0, to: 100}"
)]
pub struct Offset {
    /// Absent: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u32>,
    /// The byte behind the last; absent: the payload's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {percent: 5}"
)]
pub struct Duplicate {
    /// How many, in percent.
    #[schemars(range(min = 0, max = 100))]
    pub percent: f64,
    /// Absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10), extend("default" = 1))]
    pub copies: Option<u32>,
    /// Absent: at once.
    #[serde(default, with = "duration_option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<DurationText>")]
    pub delay: Option<Duration>,
}

/// `gap`, `delay` or both.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {percent: 5, gap: 3}"
)]
pub struct Reorder {
    /// How many, in percent.
    #[schemars(range(min = 0, max = 100))]
    pub percent: f64,
    /// It goes on when so many later packets of its flow have passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub gap: Option<u32>,
    /// It goes on after this in any case; absent, with a gap: 100 ms.
    #[serde(default, with = "duration_option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<DurationText>")]
    pub delay: Option<Duration>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {rate: 10mbit}"
)]
pub struct RateLimit {
    /// Bits per second: `10mbit`, `1.5gbit`, `800kbit`, `56000`.
    #[schemars(length(min = 1, max = 32))]
    pub rate: String,
    /// Bytes: `16KiB`, `32kB`, `3028`; absent: 1 ms of the rate, at least two packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub burst: Option<String>,
    /// Bytes that may wait; excludes `queueTime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub queue_bytes: Option<String>,
    /// How long a packet may wait; absent: 100 ms.
    #[serde(default, with = "duration_option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<DurationText>")]
    pub queue_time: Option<Duration>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {code: port-unreachable}"
)]
pub struct Reject {
    /// `net-unreachable`, `host-unreachable`, `port-unreachable` or `admin-prohibited`; absent: `port-unreachable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["net-unreachable", "host-unreachable", "port-unreachable", "admin-prohibited"], "default" = "port-unreachable"))]
    pub code: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {to: both}"
)]
pub struct Reset {
    /// `target`, `peer` or `both`; absent: `both`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["target", "peer", "both"], "default" = "both"))]
    pub to: Option<String>,
}

/// `latency` with what spreads it, or `quantiles`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {latency: 100ms}"
)]
pub struct Delay {
    /// How much later, in the middle.
    #[serde(default, with = "duration_option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<DurationText>")]
    pub latency: Option<Duration>,
    /// How far the delays spread around the latency; at most the latency.
    #[serde(default, with = "duration_option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<DurationText>")]
    pub jitter: Option<Duration>,
    /// `uniform`, `normal`, `pareto` or `paretoNormal`; absent: `uniform`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["uniform", "normal", "pareto", "paretoNormal"]))]
    pub distribution: Option<String>,
    /// Quantiles of the delay at equally spaced probabilities from 0 to 1.
    #[serde(default, with = "duration_list", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<DurationText>", length(min = 2, max = 1024))]
    pub quantiles: Vec<Duration>,
    /// Percent, of a packet's delay with the one before; absent: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub correlation: Option<f64>,
    /// A packet may overtake an earlier one of its flow; absent: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_reorder: Option<bool>,
}

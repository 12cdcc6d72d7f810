//! Actions, as a user writes them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::text::{duration_list, duration_option};

/// Exactly one field is given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {drop: {percent: 5}}"
)]
pub struct Action {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<Partition>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop: Option<Drop>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrupt: Option<Corrupt>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<Duplicate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reorder: Option<Reorder>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reject: Option<Reject>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset: Option<Reset>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Delay>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "an empty mapping {}"
)]
pub struct Partition {}

/// Exactly one of the models, with `only` beside it; `only` alone means every such packet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {percent: 5}"
)]
pub struct Drop {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gilbert_elliott: Option<GilbertElliott>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<Burst>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nth: Option<Nth>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flows: Option<Flows>,
    /// `syn` or `handshake`: only packets that open a TCP connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<String>,
}

/// A chain of a good and a bad state, one step a wire packet; percents.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {p: 1, r: 25}"
)]
pub struct GilbertElliott {
    /// From good to bad.
    pub p: f64,
    /// From bad to good.
    pub r: f64,
    /// Absent: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_good: Option<f64>,
    /// Absent: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_bad: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {percent: 2, length: 8}"
)]
pub struct Burst {
    /// The stationary loss.
    pub percent: f64,
    /// The mean length of a burst, in wire packets.
    pub length: f64,
}

/// Exactly one field is given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {every: 10}"
)]
pub struct Nth {
    /// Each so manieth wire packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<u32>,
    /// So many wire packets at the start of each connection, in each direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<u32>,
}

/// All packets of this share of the connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {percent: 20}"
)]
pub struct Flows {
    pub percent: f64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {percent: 1}"
)]
pub struct Corrupt {
    /// `payload` or `wire`; absent: `payload`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    pub percent: f64,
    /// 1 to 8, all in one byte; absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<Offset>,
}

/// Bytes of the transport's payload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {percent: 5}"
)]
pub struct Duplicate {
    pub percent: f64,
    /// Absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<u32>,
    /// Absent: at once.
    #[serde(default, with = "duration_option", skip_serializing_if = "Option::is_none")]
    pub delay: Option<Duration>,
}

/// `gap`, `delay` or both.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {percent: 5, gap: 3}"
)]
pub struct Reorder {
    pub percent: f64,
    /// It goes on when so many later packets of its flow have passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<u32>,
    /// It goes on after this in any case; absent, with a gap: 100 ms.
    #[serde(default, with = "duration_option", skip_serializing_if = "Option::is_none")]
    pub delay: Option<Duration>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {rate: 10mbit}"
)]
pub struct RateLimit {
    /// Bits per second: `10mbit`, `1.5gbit`, `800kbit`, `56000`.
    pub rate: String,
    /// Bytes: `16KiB`, `32kB`, `3028`; absent: 1 ms of the rate, at least two packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<String>,
    /// Bytes that may wait; excludes `queueTime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_bytes: Option<String>,
    /// How long a packet may wait; absent: 100 ms.
    #[serde(default, with = "duration_option", skip_serializing_if = "Option::is_none")]
    pub queue_time: Option<Duration>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {code: port-unreachable}"
)]
pub struct Reject {
    /// `net-unreachable`, `host-unreachable`, `port-unreachable` or `admin-prohibited`; absent: `port-unreachable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {to: both}"
)]
pub struct Reset {
    /// `target`, `peer` or `both`; absent: `both`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// `latency` with what spreads it, or `quantiles`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {latency: 100ms}"
)]
pub struct Delay {
    #[serde(default, with = "duration_option", skip_serializing_if = "Option::is_none")]
    pub latency: Option<Duration>,
    #[serde(default, with = "duration_option", skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Duration>,
    /// `uniform`, `normal`, `pareto` or `paretoNormal`; absent: `uniform`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distribution: Option<String>,
    /// Quantiles of the delay at equally spaced probabilities from 0 to 1.
    #[serde(default, with = "duration_list", skip_serializing_if = "Vec::is_empty")]
    pub quantiles: Vec<Duration>,
    /// Percent, of a packet's delay with the one before; absent: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation: Option<f64>,
    /// A packet may overtake an earlier one of its flow; absent: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_reorder: Option<bool>,
}

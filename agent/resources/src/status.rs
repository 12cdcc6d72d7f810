//! What the daemons write into a fault's status.

use std::time::{Duration, SystemTime};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// How the fault stands: the sum, and every node's part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FaultStatus {
    #[serde(flatten)]
    pub summary: Summary,
    /// The nodes that have targets of the fault, or that refuse it; each writes its own entry.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["node"]))]
    pub nodes: Vec<NodeStatus>,
}

/// What the nodes' parts come to; the node whose name comes first in the list writes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Summary {
    /// Where the fault stands over all nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The action's name, as `delay`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// How many targets all nodes together have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub targets: Option<u32>,
    /// When the fault ends on every node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// `Accepted`, `Injected`, `Expired` and `Failed`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// How the fault stands on one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// The node's name.
    pub node: String,
    /// The uid of the resource that this is about. What was on its way while the resource was deleted may come to another
    /// one of the same name, of which it says nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Where the fault stands on this node.
    pub phase: Phase,
    /// Why a refused fault is refused, in a word, as `Invalid`, `NameTaken` or `Guarded`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For people: why it is pending, what failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The generation of the resource that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When the fault came into force on this node. Its duration counts from the earliest of all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub injected_at: Option<Timestamp>,
    /// When it ends on this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Devices of this node that the fault means.
    #[serde(default)]
    pub targets: u32,
    /// Those of them on which it is in force.
    #[serde(default)]
    pub injected: u32,
    /// What it has done, once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<Packets>,
}

/// Wire packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Packets {
    /// Those that the fault meant.
    pub matched: u64,
    /// Lost by the fault's choice.
    pub dropped: u64,
    /// Held back.
    pub delayed: u64,
    /// Answered in the place of their receiver.
    pub rejected: u64,
}

/// `Pending`: accepted, without a target yet or before its start. `Injected`: in force on every target. `Partial`: on some
/// of them. `Failed`: on none of them. `Expired`: over. `Refused`: never in force; the reason says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    Pending,
    Injected,
    Partial,
    Failed,
    Expired,
    Refused,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Injected => "Injected",
            Self::Partial => "Partial",
            Self::Failed => "Failed",
            Self::Expired => "Expired",
            Self::Refused => "Refused",
        }
    }
}

/// One aspect of the fault, as Kubernetes' own conditions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Accepted`, `Injected`, `Expired` or `Failed`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True` or `False`.
    #[schemars(extend("enum" = ["True", "False", "Unknown"]))]
    pub status: String,
    /// Why, in a word.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// When the status last became what it is.
    pub last_transition_time: Timestamp,
    /// The generation of the resource that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// An instant, to the millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(SystemTime);

impl Timestamp {
    /// The last millisecond that isn't after `time`; what comes before 1970 becomes its begin.
    pub fn new(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX).min(LAST);
        Self(SystemTime::UNIX_EPOCH + Duration::from_millis(millis))
    }

    pub fn time(self) -> SystemTime {
        self.0
    }
}

/// The end of the year 9999, where RFC 3339 ends.
const LAST: u64 = 253_402_300_799_999;

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_rfc3339_millis(self.0))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let wrong = |e| de::Error::custom(format_args!("`{text}` is not an RFC 3339 time: {e}"));
        humantime::parse_rfc3339(&text).map(Self::new).map_err(wrong)
    }
}

impl JsonSchema for Timestamp {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_cut_to_milliseconds_and_read_back() {
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_987_654);
        let stamp = Timestamp::new(time);
        let text = serde_json::to_string(&stamp).expect("JSON");
        assert_eq!(text, "\"2023-11-14T22:13:20.123Z\"");
        assert_eq!(serde_json::from_str::<Timestamp>(&text).expect("a time"), stamp);
        assert!(stamp.time() <= time);
        assert!(serde_json::from_str::<Timestamp>("\"yesterday\"").is_err());
    }

    #[test]
    fn a_status_of_which_nothing_is_known_is_empty() {
        let text = serde_json::to_string(&FaultStatus::default()).expect("JSON");
        assert_eq!(text, "{}");
        let read: FaultStatus = serde_json::from_str("{}").expect("a status");
        assert_eq!(read, FaultStatus::default());
    }
}

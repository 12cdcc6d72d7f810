//! `sabot.v1`'s fault specs ↔ the domain's.
//!
//! Only what one side can't express is an error here; what is wrong with a spec as such (no duration, no target) is
//! carried over as it is and left to the domain's validation.

mod from_proto;
mod to_proto;

pub use from_proto::spec_from_proto;
pub use to_proto::spec_to_proto;

use std::time::{Duration, SystemTime};

use sabot_core::spec::Metadata;

use crate::sabot::v1;

/// A field that the other side can't express.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {description}")]
pub struct FieldError {
    /// Its path as a manifest has it: `spec.peers[0].cidr`.
    pub field: String,
    /// What was given and what is allowed.
    pub description: String,
}

impl FieldError {
    fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            description: description.into(),
        }
    }
}

pub fn metadata_to_proto(metadata: &Metadata) -> v1::Metadata {
    v1::Metadata {
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
    }
}

pub fn metadata_from_proto(metadata: v1::Metadata) -> Metadata {
    Metadata {
        name: metadata.name,
        namespace: metadata.namespace,
    }
}

/// A duration beyond what the wire can say (10^11 years) becomes the longest that it can.
pub fn duration_to_proto(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(i32::MAX),
    }
}

/// `field` is the path to name in the error: a negative or malformed duration has no counterpart.
pub fn duration_from_proto(field: &str, duration: prost_types::Duration) -> Result<Duration, FieldError> {
    let seconds = u64::try_from(duration.seconds);
    let nanos = u32::try_from(duration.nanos).ok().filter(|n| *n < 1_000_000_000);
    match (seconds, nanos) {
        (Ok(seconds), Some(nanos)) => Ok(Duration::new(seconds, nanos)),
        _ => Err(FieldError::new(
            field,
            format!(
                "{} s and {} ns is not a duration of zero or more with 0 to 999999999 ns",
                duration.seconds, duration.nanos
            ),
        )),
    }
}

pub fn timestamp_to_proto(time: SystemTime) -> prost_types::Timestamp {
    prost_types::Timestamp::from(time)
}

/// `field` is the path to name in the error: times that the system's clock can't hold have no counterpart.
pub fn timestamp_from_proto(field: &str, time: prost_types::Timestamp) -> Result<SystemTime, FieldError> {
    let (seconds, nanos) = (time.seconds, time.nanos);
    // The span of RFC 3339, as the well-known type defines it: years 1 to 9999.
    let valid = (-62_135_596_800..=253_402_300_799).contains(&seconds) && (0..1_000_000_000).contains(&nanos);
    valid
        .then(|| SystemTime::try_from(time).ok())
        .flatten()
        .ok_or_else(|| {
            FieldError::new(
                field,
                format!("{seconds} s and {nanos} ns since 1970 is not a time of the years 1 to 9999"),
            )
        })
}

#[cfg(test)]
mod tests;

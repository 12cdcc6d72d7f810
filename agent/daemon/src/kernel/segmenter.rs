//! The segmenter: a veth pair that lets no super-packet pass, so that a target's wire packets can be decided on one by one.
//!
//! The classifier redirects a super-packet into the near end, and on the way to the far end the kernel segments it and writes
//! the checksums that were left to a device. The far end's program hands each wire packet back to the near end's ingress. User
//! space has no part in it.

use std::io;

use sabot_core::plan::TargetId;

use super::offload;
use super::roundabout::{Roundabout, RoundaboutError, Site};

#[derive(Debug, thiserror::Error)]
pub(super) enum SegmenterError {
    #[error("cannot turn off the offloads of the veth {name}: {source}")]
    Offload { name: String, source: io::Error },
    #[error(transparent)]
    Pair(#[from] RoundaboutError),
}

/// Of both ends.
pub(super) fn device_name(target: TargetId) -> String {
    format!("sabot-s{}", target.0)
}

pub(super) fn make(site: Site<'_>) -> Result<Roundabout, SegmenterError> {
    let name = site.name;
    let stop_offloads = || {
        offload::stop_offloads(name).map_err(|source| SegmenterError::Offload {
            name: name.to_owned(),
            source,
        })
    };
    Roundabout::make(site, |_, _| stop_offloads())
}

//! The delay line's sign of life, for the classifier.

use aya::maps::{Array, MapData};
use sabot_core::model::BootTime;

use crate::delayline::Heartbeat;

pub(super) struct MapHeartbeat {
    map: Array<MapData, u64>,
}

impl MapHeartbeat {
    pub(super) fn new(map: Array<MapData, u64>) -> Self {
        Self { map }
    }
}

impl Heartbeat for MapHeartbeat {
    fn beat(&mut self, now: BootTime) {
        if let Err(error) = self.map.set(0, now.0, 0) {
            tracing::error!(%error, "the delay line cannot write its heartbeat; delays are bypassed");
        }
    }
}

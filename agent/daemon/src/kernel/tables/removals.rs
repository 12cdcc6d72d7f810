//! Tells the programs that something is about to go.

use std::sync::{Mutex, PoisonError};

use aya::Ebpf;
use aya::maps::{Array, MapData};

use super::{TableError, on, take};

/// A packet that finds nothing looks once more if this has gone on meanwhile: what it looked for may have been taken away after
/// something else had come in its place.
pub(super) struct Removals(Mutex<Count>);

struct Count {
    map: Array<MapData, u64>,
    value: u64,
}

impl Removals {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, TableError> {
        let map = take(ebpf, "REMOVALS")?;
        Ok(Self(Mutex::new(Count { map, value: 0 })))
    }

    /// Called after what takes its place has come, and before it goes.
    pub(super) fn announce(&self) -> Result<(), TableError> {
        let mut count = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        count.value += 1;
        let value = count.value;
        count.map.set(0, value, 0).map_err(on("announce a removal"))
    }
}

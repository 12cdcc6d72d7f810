//! Calls of the container runtime.

use prometheus_client::registry::Registry;

use super::family::{Count, Distribution, Family, Level};
use crate::observe::cri::{BOUNDS, CriSnapshot, OperationStats};

pub(super) fn register(registry: &mut Registry, snapshot: &CriSnapshot) {
    let mut operations = Family::new(
        "cri_operations",
        "Calls of the container runtime that have ended, by gRPC's code",
        ["operation", "outcome"],
    );
    let mut durations = Family::new(
        "cri_operation_duration_seconds",
        "How long calls of the container runtime took, of those whose beginning and end were seen",
        ["operation"],
    );
    let mut in_flight = Family::new(
        "cri_operations_in_flight",
        "Calls of the container runtime that have begun and not ended",
        ["operation"],
    );
    for (operation, stats) in &snapshot.operations {
        for (outcome, &count) in &stats.outcomes {
            operations.push([operation, outcome], Count(count));
        }
        durations.push([operation], distribution(stats));
        in_flight.push([operation], Level(stats.in_flight as f64));
    }
    operations.register(registry);
    durations.register(registry);
    in_flight.register(registry);
    let mut out_of_sync = Family::new(
        "cri_out_of_sync",
        "How often a connection with the container runtime could not be followed for a while",
        [],
    );
    out_of_sync.push([], Count(snapshot.out_of_sync));
    out_of_sync.register(registry);
}

fn distribution(stats: &OperationStats) -> Distribution {
    Distribution {
        bounds: BOUNDS.to_vec(),
        buckets: stats.buckets.to_vec(),
        sum: stats.total,
    }
}

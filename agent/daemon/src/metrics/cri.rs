//! Calls of the container runtime, and what it tells of its containers.

use prometheus_client::registry::Registry;

use super::family::{Count, Distribution, Family, Level};
use crate::observe::cri::containers::{CHANGES, ContainerSnapshot};
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

pub(super) fn register_containers(registry: &mut Registry, told: &ContainerSnapshot) {
    let mut events = Family::new(
        "cri_container_events",
        "What the container runtime said has happened to its containers and sandboxes",
        ["change"],
    );
    for (change, count) in CHANGES.into_iter().zip(told.changes) {
        events.push([change], Count(count));
    }
    events.register(registry);
    let mut gaps = Family::new(
        "cri_container_event_gaps",
        "How often the container runtime's events were interrupted; what happened meanwhile is not among them",
        [],
    );
    gaps.push([], Count(told.gaps));
    gaps.register(registry);
}

fn distribution(stats: &OperationStats) -> Distribution {
    Distribution {
        bounds: BOUNDS.to_vec(),
        buckets: stats.buckets.to_vec(),
        sum: stats.total,
    }
}

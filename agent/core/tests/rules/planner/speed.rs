//! Planning must stay cheap: it runs after every change.

use std::time::{Duration, Instant};

use sabot_core::model::BootTime;

use super::simulation::{POLICY, Simulation};
use crate::fixtures::{cidr, fault, pod, world};

/// A bound that only a quadratic planner misses: the figure that matters is measured by the benchmark, in release.
const BOUND: Duration = Duration::from_millis(50);

#[test]
fn planning_50_targets_and_thousands_of_slots_is_not_quadratic() {
    let mut simulation = Simulation::new(sabot_core::plan::Policy {
        max_slots: 4096,
        ..POLICY
    });
    simulation.world = world((0..50).map(|index| pod(index, "web", 1)));
    for index in 0..4 {
        let mut one = fault(&format!("fault-{index}"), simulation.now);
        one.peers = vec![cidr("10.0.0.0/8", &["10.9.0.0/16"])];
        simulation.apply(one);
    }
    simulation.converge();
    simulation.finish_all();
    simulation.converge();
    for slot in 100..4096 {
        simulation
            .observed
            .cooling
            .insert(sabot_core::plan::Slot(slot), BootTime(u64::MAX));
    }
    let took = (0..5).map(|_| {
        let start = Instant::now();
        assert!(simulation.plan().operations.is_empty());
        start.elapsed()
    });
    let best = took.min().expect("five runs");
    println!("one plan took {best:?}");
    assert!(best < BOUND, "one plan took {best:?}");
}

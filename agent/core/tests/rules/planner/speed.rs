//! Planning must stay cheap: it runs after every change.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use sabot_core::model::{BootTime, Peer};
use sabot_core::plan::{Policy, Slot};
use sabot_core::{Planner, plan};

use super::simulation::{POLICY, Simulation};
use crate::fixtures::{cidr, fault, pod, world};

/// A bound that only a quadratic planner misses: the figure that matters is measured by the benchmark, in release.
const BOUND: Duration = Duration::from_millis(50);

#[test]
fn planning_50_targets_and_thousands_of_slots_is_not_quadratic() {
    let mut simulation = Simulation::new(Policy {
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
        simulation.observed.cooling.insert(Slot(slot), BootTime(u64::MAX));
    }
    let took = (0..5).map(|_| {
        let Simulation {
            faults,
            world,
            observed,
            policy,
            now,
            ..
        } = &simulation;
        let start = Instant::now();
        let plan = plan(faults, world, observed, policy, *now);
        let took = start.elapsed();
        assert!(plan.operations.is_empty());
        took
    });
    let best = took.min().expect("five runs");
    println!("one plan took {best:?}");
    assert!(best < BOUND, "one plan took {best:?}");
}

#[test]
fn a_long_peer_list_is_read_once_and_not_with_every_plan() {
    let mut simulation = Simulation::new(POLICY);
    simulation.world = world([pod(1, "web", 1)]);
    let mut cut = fault("cut", simulation.now);
    cut.peers = (0..65_536_u32)
        .map(|n| Peer::Address(Ipv4Addr::from(0x0a00_0000 + n).into()))
        .collect();
    simulation.apply(cut);
    let mut planner = Planner::default();
    for operation in simulation.plan().operations {
        simulation.observed.begin(&operation);
        simulation.observed.apply(&operation, Ok(()), simulation.now);
    }
    let mut plan = || {
        let start = Instant::now();
        let Simulation {
            faults,
            world,
            observed,
            policy,
            now,
            ..
        } = &simulation;
        let plan = planner.plan(faults, world, observed, policy, *now);
        (plan, start.elapsed())
    };
    let (first, reading) = plan();
    let (second, remembering) = (0..5)
        .map(|_| plan())
        .min_by_key(|(_, took)| *took)
        .expect("five runs");
    println!("65,536 peers: first plan {reading:?}, then {remembering:?}");
    assert_eq!(first, second);
    assert!(
        remembering < reading,
        "{remembering:?} is not less than {reading:?}"
    );
}

//! Single stories, told operation by operation.

use std::time::Duration;

use sabot_core::model::{Action, BootTime, Direction, Fault, Peer, TargetSelector};
use sabot_core::plan::{Equipment, Operation, PeerEntry, Policy, Slot, TargetId};
use sabot_core::planner::SLOT_REST;

use super::simulation::{POLICY, Simulation};
use crate::fixtures::{cidr, delay, drop, every_action, fault, labelled, pod, world};

const MS: Duration = Duration::from_millis(1);

fn with_pods(count: u8) -> Simulation {
    let mut simulation = Simulation::new(POLICY);
    simulation.world = world((1..=count).map(|index| pod(index, "web", 1)));
    simulation
}

fn settle(simulation: &mut Simulation) {
    for _ in 0..4 {
        simulation.converge();
        simulation.finish_all();
    }
    simulation.converge();
    simulation.log.clear();
}

fn kinds(log: &[Operation]) -> Vec<&'static str> {
    let kind = |operation: &Operation| match operation {
        Operation::Claim { .. } => "claim",
        Operation::Equip { .. } => "equip",
        Operation::Strip { .. } => "strip",
        Operation::AddPeers { .. } => "add",
        Operation::RemovePeers { .. } => "remove",
        Operation::WriteRule { .. } => "write",
        Operation::ClearRule { .. } => "clear",
        Operation::SetSlots { .. } => "list",
    };
    log.iter().map(kind).collect()
}

fn after(simulation: &mut Simulation, change: impl FnOnce(&mut Simulation)) -> Vec<&'static str> {
    change(simulation);
    simulation.log.clear();
    simulation.converge();
    kinds(&simulation.log)
}

fn with_peers(now: BootTime, peers: Vec<Peer>) -> Fault {
    Fault {
        peers,
        ..fault("cut", now)
    }
}

#[test]
fn a_fault_comes_and_goes_in_order() {
    let mut simulation = with_pods(1);
    let cut = with_peers(simulation.now, vec![cidr("10.0.0.0/8", &["10.1.0.0/16"])]);
    assert_eq!(
        after(&mut simulation, |s| s.apply(cut)),
        ["equip", "claim", "add", "write"]
    );
    assert_eq!(after(&mut simulation, Simulation::finish_all), ["list"]);
    assert_eq!(
        after(&mut simulation, |s| s.faults.clear()),
        ["list", "clear", "remove"]
    );
    let end = simulation.now.after(POLICY.keep_warm);
    assert_eq!(
        simulation.converge().wake_at,
        Some(end),
        "the warm attachment's end"
    );
    assert_eq!(after(&mut simulation, |s| s.now = end), ["strip"]);
}

#[test]
fn a_fault_ends_exactly_at_its_expiry() {
    let mut simulation = with_pods(1);
    let cut = fault("cut", simulation.now);
    let end = cut.expires_at;
    simulation.apply(cut);
    settle(&mut simulation);
    assert_eq!(simulation.converge().wake_at, Some(end));
    assert_eq!(
        after(&mut simulation, |s| s.now = BootTime(end.0 - 1)),
        Vec::<&str>::new()
    );
    assert_eq!(after(&mut simulation, |s| s.now = end), ["list", "clear"]);
}

#[test]
fn a_later_start_rings_the_alarm_and_the_rule_is_written_ahead() {
    let mut simulation = with_pods(1);
    let start = simulation.now.after(Duration::from_secs(3));
    simulation.apply(fault("cut", start));
    settle(&mut simulation);
    assert_eq!(simulation.converge().wake_at, Some(start));
    assert_eq!(simulation.kernel.rules[&Slot(0)].starts_at, start);
}

#[test]
fn an_edit_swaps_the_rule_without_a_gap() {
    let mut simulation = with_pods(2);
    let cut = with_peers(simulation.now, vec![cidr("10.0.0.0/8", &[])]);
    simulation.apply(cut.clone());
    settle(&mut simulation);
    let narrower = Fault {
        direction: Direction::Egress,
        ..cut.clone()
    };
    assert_eq!(after(&mut simulation, |s| s.apply(narrower.clone())), ["write"]);
    let moved = Fault {
        direction: Direction::Both,
        peers: vec![cidr("10.0.0.0/9", &[])],
        ..cut.clone()
    };
    assert_eq!(
        after(&mut simulation, |s| s.apply(moved.clone())),
        ["add", "write", "remove"]
    );
    let open = Fault {
        peers: Vec::new(),
        ..moved
    };
    assert_eq!(after(&mut simulation, |s| s.apply(open)), ["write", "remove"]);
    assert_eq!(after(&mut simulation, |s| s.apply(cut)), ["add", "write"]);
}

#[test]
fn peers_alone_change_in_place_and_are_added_before_others_go() {
    let mut simulation = with_pods(1);
    simulation.world.pods.extend(world([pod(8, "db", 1)]).pods);
    let cut = with_peers(simulation.now, vec![Peer::Pods(labelled("db"))]);
    simulation.apply(cut);
    settle(&mut simulation);
    let set = simulation.kernel.rules[&Slot(0)].peers;
    let restarted = after(&mut simulation, |s| {
        s.world.pods.remove("sandbox-8-1");
        s.world.pods.extend(world([pod(8, "db", 2)]).pods);
    });
    assert_eq!(restarted, ["add", "remove"]);
    assert_eq!(simulation.kernel.rules[&Slot(0)].peers, set);
}

#[test]
fn an_entry_that_turns_into_an_exception_is_replaced_and_not_removed() {
    let mut simulation = with_pods(1);
    let net = "10.1.0.0/16";
    let cut = with_peers(simulation.now, vec![cidr("10.0.0.0/8", &[]), cidr(net, &[])]);
    simulation.apply(cut.clone());
    settle(&mut simulation);
    let excepted = Fault {
        peers: vec![cidr("10.0.0.0/8", &[net])],
        ..cut
    };
    assert_eq!(after(&mut simulation, |s| s.apply(excepted)), ["add"]);
    let entry = PeerEntry::excepted(net.parse().expect("a network"));
    assert_eq!(
        simulation.log[0],
        Operation::AddPeers {
            set: Slot(0).peer_set(),
            entries: vec![entry]
        }
    );
}

#[test]
fn an_edit_that_needs_more_equipment_waits_for_it_with_the_old_rule_in_force() {
    let mut simulation = with_pods(1);
    let cut = fault("cut", simulation.now);
    simulation.apply(cut.clone());
    settle(&mut simulation);
    let slow = Fault {
        action: delay(),
        ..cut
    };
    assert_eq!(after(&mut simulation, |s| s.apply(slow)), ["equip"]);
    assert_eq!(simulation.kernel.rules[&Slot(0)].action, Action::Partition);
    assert_eq!(simulation.kernel.targets[&TargetId(0)].slots, [Slot(0)]);
    assert_eq!(after(&mut simulation, Simulation::finish_all), ["write"]);
}

#[test]
fn an_edit_does_not_wait_for_a_target_that_can_not_be_equipped() {
    let mut simulation = with_pods(2);
    let cut = fault("cut", simulation.now);
    simulation.apply(cut.clone());
    settle(&mut simulation);
    let refusing = simulation.kernel.targets[&TargetId(0)].key.clone();
    simulation.lineless.insert(refusing);
    simulation.apply(Fault {
        action: delay(),
        ..cut
    });
    settle(&mut simulation);
    assert_eq!(simulation.kernel.rules[&Slot(0)].action, delay());
    assert_eq!(simulation.kernel.targets[&TargetId(0)].slots, []);
    assert_eq!(simulation.kernel.targets[&TargetId(1)].slots, [Slot(0)]);
}

#[test]
fn a_refused_line_does_not_keep_other_faults_from_the_target() {
    let mut simulation = with_pods(1);
    simulation
        .lineless
        .insert(pod(1, "web", 1).devices[0].key.clone());
    let now = simulation.now;
    simulation.apply(Fault {
        action: delay(),
        ..fault("slow", now)
    });
    simulation.apply(Fault {
        action: drop(20.0),
        ..fault("lossy", now)
    });
    settle(&mut simulation);
    let target = &simulation.kernel.targets[&TargetId(0)];
    let lossy = simulation
        .observed
        .rules
        .iter()
        .find(|(_, rule)| rule.fault.name == "lossy");
    assert_eq!(target.slots, [*lossy.expect("its rule").0]);
    let expected = Equipment {
        segmenter: true,
        ..Equipment::HOOKS
    };
    assert_eq!(target.equipment, expected);
}

#[test]
fn unaffected_faults_and_targets_are_left_alone() {
    let mut simulation = with_pods(3);
    let now = simulation.now;
    simulation.apply(fault("cut", now));
    settle(&mut simulation);
    let one = Fault {
        target: TargetSelector::Pods {
            selector: sabot_core::model::PodSelector {
                name: Some("web-2".to_owned()),
                ..labelled("web")
            },
            pick: None,
        },
        action: delay(),
        ..fault("slow", now)
    };
    assert_eq!(
        after(&mut simulation, |s| s.apply(one)),
        ["equip", "claim", "write"]
    );
    assert_eq!(after(&mut simulation, Simulation::finish_all), ["list"]);
}

#[test]
fn a_busy_target_gets_the_faults_that_it_is_equipped_for() {
    let mut simulation = with_pods(1);
    let now = simulation.now;
    simulation.apply(fault("cut", now));
    settle(&mut simulation);
    let slow = Fault {
        action: delay(),
        ..fault("slow", now)
    };
    assert_eq!(
        after(&mut simulation, |s| s.apply(slow)),
        ["equip", "claim", "write"]
    );
    let more = fault("more", now);
    assert_eq!(
        after(&mut simulation, |s| s.apply(more)),
        ["claim", "write", "list"]
    );
    assert_eq!(simulation.in_flight(), [TargetId(0)]);
}

#[test]
fn slots_are_evaluated_by_action_and_then_by_number() {
    let mut simulation = with_pods(1);
    let now = simulation.now;
    let mut actions = every_action();
    let count = actions.len();
    // Slots are given out by name, here against the order in which the actions come.
    for (index, action) in actions.drain(..).enumerate() {
        simulation.apply(Fault {
            action,
            ..fault(&format!("fault-{:02}", count - index), now)
        });
    }
    settle(&mut simulation);
    let slots = &simulation.kernel.targets[&TargetId(0)].slots;
    let names: Vec<_> = slots
        .iter()
        .map(|slot| simulation.kernel.rules[slot].action.name())
        .collect();
    let expected = [
        vec!["partition", "reject", "reset"],
        vec!["drop"; 5],
        vec!["corrupt"],
        vec!["duplicate"; 2],
        vec!["rate_limit"],
        vec!["delay"; 2],
        vec!["reorder"],
    ];
    assert_eq!(names, expected.concat());
    let drops = &slots[3..8];
    assert!(
        drops.is_sorted(),
        "within an action the elder slot comes first: {drops:?}"
    );
}

#[test]
fn a_slot_rests_before_it_is_used_again() {
    let mut simulation = with_pods(1);
    let now = simulation.now;
    simulation.apply(fault("first", now));
    settle(&mut simulation);
    simulation.faults.clear();
    simulation.apply(fault("second", now));
    settle(&mut simulation);
    assert_eq!(
        simulation.kernel.owners.keys().copied().collect::<Vec<_>>(),
        [Slot(1)]
    );
    simulation.pass(SLOT_REST);
    simulation.apply(fault("third", now));
    settle(&mut simulation);
    assert_eq!(simulation.kernel.owners[&Slot(0)].name, "third");
}

#[test]
fn a_full_slot_table_is_reported_and_ends_with_the_rest() {
    let mut simulation = Simulation::new(Policy {
        max_slots: 1,
        ..POLICY
    });
    simulation.world = world([pod(1, "web", 1)]);
    let now = simulation.now;
    simulation.apply(fault("first", now));
    settle(&mut simulation);
    simulation.apply(fault("second", now));
    let plan = simulation.converge();
    assert_eq!(plan.exhausted.len(), 1);
    assert_eq!(plan.exhausted[0].0.name, "second");
    simulation.faults.retain(|name, _| name.name == "second");
    let plan = simulation.converge();
    assert_eq!(
        plan.wake_at,
        Some(simulation.now.after(SLOT_REST)),
        "the slot's rest ends then"
    );
    simulation.pass(SLOT_REST);
    assert_eq!(simulation.converge().exhausted, []);
    assert_eq!(simulation.kernel.owners[&Slot(0)].name, "second");
}

#[test]
fn a_fault_takes_a_slot_with_its_first_target_and_keeps_it() {
    let mut simulation = Simulation::new(Policy {
        max_slots: 1,
        ..POLICY
    });
    let now = simulation.now;
    for index in 0..8 {
        let elsewhere = Fault {
            target: crate::fixtures::pods_target("db"),
            ..fault(&format!("elsewhere-{index}"), now)
        };
        simulation.apply(elsewhere);
    }
    assert_eq!(simulation.converge().exhausted, [], "none of them needs a slot");
    assert_eq!(simulation.log, []);

    simulation.world = world([pod(1, "web", 1)]);
    simulation.apply(fault("here", now));
    settle(&mut simulation);
    assert_eq!(simulation.kernel.owners[&Slot(0)].name, "here");
    let leaves = after(&mut simulation, |s| s.world.pods.clear());
    assert_eq!(leaves, ["list", "strip"], "its rule stays");
    let comes = after(&mut simulation, |s| s.world = world([pod(1, "web", 2)]));
    assert_eq!(comes, ["equip"], "and waits for the next target");

    // The others want one each now, and the only slot is taken.
    simulation.world = world([pod(2, "db", 1)]);
    assert_eq!(simulation.converge().exhausted.len(), 8);
    simulation.faults.retain(|name, _| name.name != "here");
    settle(&mut simulation);
    simulation.pass(SLOT_REST);
    assert_eq!(simulation.converge().exhausted.len(), 7);
    assert_eq!(simulation.kernel.owners[&Slot(0)].name, "elsewhere-0");
}

#[test]
fn warm_attachments_make_room_when_ids_are_short() {
    let mut simulation = Simulation::new(Policy {
        max_targets: 1,
        ..POLICY
    });
    simulation.world = world([pod(1, "web", 1), pod(2, "db", 1)]);
    let now = simulation.now;
    simulation.apply(fault("cut", now));
    settle(&mut simulation);
    simulation.faults.clear();
    simulation.apply(Fault {
        target: crate::fixtures::pods_target("db"),
        ..fault("other", now)
    });
    settle(&mut simulation);
    let target = &simulation.kernel.targets[&TargetId(0)];
    assert_eq!(target.key, pod(2, "db", 1).devices[0].key);
    assert_eq!(target.slots.len(), 1);
}

#[test]
fn eager_attachment_hooks_every_pod_and_keeps_it() {
    let mut simulation = with_pods(2);
    simulation.policy.attach_eagerly = true;
    settle(&mut simulation);
    assert!(
        simulation
            .kernel
            .targets
            .values()
            .all(|target| target.equipment == Equipment::HOOKS)
    );
    assert_eq!(simulation.kernel.targets.len(), 2);
    simulation.pass(POLICY.keep_warm * 10);
    assert_eq!(after(&mut simulation, |_| ()), Vec::<&str>::new());
    assert_eq!(
        after(&mut simulation, |s| s.world.pods.clear()),
        ["strip", "strip"]
    );
}

#[test]
fn a_new_sandbox_replaces_the_old_target_at_once() {
    let mut simulation = with_pods(1);
    let now = simulation.now;
    simulation.apply(fault("cut", now));
    settle(&mut simulation);
    let restarted = after(&mut simulation, |s| s.world = world([pod(1, "web", 2)]));
    assert_eq!(restarted, ["equip", "list", "strip"]);
}

#[test]
fn a_failed_attachment_is_tried_again_when_its_time_comes() {
    let mut simulation = with_pods(1);
    let now = simulation.now;
    simulation.apply(fault("cut", now));
    simulation.converge();
    simulation.finish(TargetId(0), false);
    let wake = simulation.converge().wake_at.expect("an alarm");
    assert_eq!(wake, now.after(500 * MS));
    assert_eq!(after(&mut simulation, |s| s.now = wake), ["equip"]);
    assert_eq!(after(&mut simulation, Simulation::finish_all), ["list"]);
    assert_eq!(
        simulation
            .observed
            .targets
            .values()
            .next()
            .expect("a target")
            .failure,
        None
    );
}

#[test]
fn peers_that_may_be_half_written_are_removed_before_the_next_attempt() {
    let mut simulation = with_pods(1);
    let cut = with_peers(simulation.now, vec![cidr("10.0.0.0/8", &["10.1.0.0/16"])]);
    simulation.fail_quick = 1;
    assert_eq!(
        after(&mut simulation, |s| s.apply(cut)),
        ["equip", "claim", "add"]
    );
    assert!(simulation.kernel.rules.is_empty(), "no rule without its peers");
    assert_eq!(
        after(&mut simulation, |s| s.pass(500 * MS)),
        ["remove", "add", "write"]
    );
}

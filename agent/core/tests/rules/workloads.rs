//! The share of a workload's pods that may have faults, as several nodes see it that don't talk to each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use sabot_core::guard::{Guard, Guards, PROTECTED};
use sabot_core::model::{
    BootTime, ClusterPod, Fault, LabelSelector, ObjectName, Pick, PickShare, Pod, PodSelector,
    TargetSelector, Workload, World,
};
use sabot_core::resolve;

use crate::fixtures::{add_remote, backend, fault, front, percent, pod};

fn half() -> Guards {
    Guards {
        workload_share: percent(50.0),
        ..Guards::default()
    }
}

fn managed(index: u8, workload: &str) -> Pod {
    let mut pod = pod(index, "web", 1);
    pod.workload = Workload::Of(workload.to_owned());
    pod
}

fn elsewhere(pod: &Pod) -> ClusterPod {
    ClusterPod {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        node: "another".to_owned(),
        labels: pod.labels.clone(),
        annotations: pod.annotations.clone(),
        addresses: pod.addresses.iter().copied().collect(),
        host_network: pod.host_network,
        workload: pod.workload.clone(),
    }
}

/// The world of the node that has these pods, the others being elsewhere.
fn seen_by(guards: &Guards, pods: &[Pod], is_here: impl Fn(usize) -> bool) -> World {
    let mut world = World::default();
    for (index, pod) in pods.iter().enumerate() {
        if is_here(index) {
            world.pods.insert(pod.sandbox.clone(), pod.clone());
        } else {
            add_remote(&mut world.cluster, PodSelector::all_of("shop"), elsewhere(pod));
        }
    }
    guards.apply(&mut world, [], &BTreeSet::new());
    world
}

fn on_web(pick: Option<u32>) -> Fault {
    let mut fault = fault("cut", BootTime(0));
    fault.target = TargetSelector::Pods {
        selector: PodSelector {
            namespace: "shop".to_owned(),
            name: None,
            labels: LabelSelector::default(),
        },
        pick: pick.map(|count| Pick {
            share: PickShare::Count(count),
            seed: 7,
        }),
    };
    fault
}

fn hit(fault: &Fault, world: &World) -> BTreeSet<String> {
    let targets = resolve(fault, world).targets;
    let hit = |pod: &&Pod| {
        targets
            .iter()
            .any(|target| target.device.key == pod.devices[0].key)
    };
    let pods = world.pods.values().filter(hit);
    pods.map(|pod| pod.uid.clone()).collect()
}

#[test]
fn a_fault_on_more_than_the_share_is_refused_on_every_node_and_a_pick_takes_of_the_rest() {
    let guards = half();
    let pods: Vec<_> = (1..=5).map(|index| managed(index, "Deployment web")).collect();
    let mut taken = BTreeSet::new();
    for node in 0..5 {
        let world = seen_by(&guards, &pods, |index| index == node);
        let refused = guards
            .check(&on_web(None), &world, [])
            .expect_err("it is too much");
        assert_eq!(refused.guard, Guard::WorkloadShare);
        assert_eq!(
            refused.reason,
            "at most 50 % of the 5 pods of Deployment web in namespace shop may have faults, which is 2"
        );
        taken.extend(hit(&on_web(Some(5)), &world));
    }
    assert_eq!(taken.len(), 2, "{taken:?}");
    // Of several nodes one pod is still one.
    let one: Vec<_> = (0..5)
        .flat_map(|node| hit(&on_web(Some(1)), &seen_by(&guards, &pods, |index| index == node)))
        .collect();
    assert_eq!(one.len(), 1, "{one:?}");
    assert!(taken.contains(&one[0]));
}

#[test]
fn who_has_no_workload_is_free_and_who_isnt_known_is_not() {
    let guards = half();
    let mut alone = pod(1, "web", 1);
    alone.workload = Workload::Alone;
    let world = seen_by(&guards, &[alone], |_| true);
    assert_eq!(guards.check(&on_web(None), &world, []), Ok(()));
    assert_eq!(hit(&on_web(None), &world).len(), 1);

    let world = seen_by(&guards, &[pod(1, "web", 1)], |_| true);
    let refused = guards
        .check(&on_web(None), &world, [])
        .expect_err("it isn't known");
    assert!(refused.reason.contains("only the API server knows"), "{refused}");
    let without = Guards::default();
    assert_eq!(
        without.check(
            &on_web(None),
            &seen_by(&without, &[pod(1, "web", 1)], |_| true),
            []
        ),
        Ok(())
    );
}

#[test]
fn a_protected_pod_counts_and_takes_nobodys_place() {
    let guards = half();
    let mut pods: Vec<_> = (1..=4).map(|index| managed(index, "StatefulSet db")).collect();
    for pod in &mut pods[..2] {
        pod.annotations.insert(PROTECTED.into(), "true".into());
    }
    let world = seen_by(&guards, &pods, |_| true);
    let both: BTreeSet<_> = pods[2..].iter().map(|pod| pod.uid.clone()).collect();
    assert_eq!(hit(&on_web(Some(4)), &world), both);
    // Those that are left are all that may have it, so that it means nobody else.
    assert_eq!(guards.check(&on_web(None), &world, []), Ok(()));
}

#[test]
fn a_services_backends_are_counted_wherever_they_are() {
    let guards = half();
    let pods: Vec<_> = (1..=3).map(|index| managed(index, "Deployment web")).collect();
    for node in 0..3 {
        let mut world = seen_by(&guards, &pods, |index| index == node);
        let mut service = front("10.96.0.1", 80);
        service.endpoints = pods.iter().map(|pod| backend(pod, 8080)).collect();
        let name = ObjectName {
            namespace: "shop".to_owned(),
            name: "front".to_owned(),
        };
        world.cluster.services.insert_mut(name.clone(), Arc::new(service));
        let mut cut = on_web(None);
        cut.target = TargetSelector::Service { name, pick: None };
        let refused = guards.check(&cut, &world, []).expect_err("it is too much");
        assert_eq!(refused.guard, Guard::WorkloadShare, "node {node}");
    }
}

/// A pod's workload, whether it is protected, and its node.
fn a_pod() -> impl Strategy<Value = (usize, bool, usize)> {
    (0..3_usize, prop::bool::weighted(0.2), 0..4_usize)
}

proptest! {
    #[test]
    fn all_nodes_together_keep_within_the_share(
        share in 0..=100_u32, placed in vec(a_pod(), 0..24), picks in vec(prop::option::of(1..6_u32), 1..4)
    ) {
        let guards = Guards { workload_share: percent(f64::from(share)), ..Guards::default() };
        let pods: Vec<_> = placed.iter().zip(1..).map(|(&(workload, protected, _), index)| {
            let mut pod = managed(index, ["Deployment web", "StatefulSet db", "DaemonSet log"][workload]);
            if protected {
                pod.annotations.insert(PROTECTED.into(), "true".into());
            }
            pod
        }).collect();
        let mut with_faults = BTreeSet::new();
        for node in 0..4 {
            let world = seen_by(&guards, &pods, |index| placed[index].2 == node);
            for pick in &picks {
                with_faults.extend(hit(&on_web(*pick), &world));
            }
        }
        let mut of_workload = BTreeMap::<String, (usize, usize)>::new();
        for pod in &pods {
            let Workload::Of(name) = &pod.workload else { unreachable!("all are managed") };
            let (hit, all) = of_workload.entry(name.clone()).or_default();
            *hit += usize::from(with_faults.contains(&pod.uid));
            *all += 1;
        }
        for (name, (hit, all)) in of_workload {
            prop_assert!(hit as f64 <= f64::from(share) * all as f64 / 100.0 + 1e-6, "{name}: {hit} of {all}");
        }
    }
}

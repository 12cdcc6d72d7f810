//! Guards: what they refuse, and that nothing they guard against is ever resolved.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use sabot_core::guard::{Guard, Guards, PROTECTED, parse_labels};
use sabot_core::model::{
    BootTime, ClusterPod, Fault, LabelSelector, ObjectName, Pick, PickShare, Pod, PodSelector, PodSet,
    Service, TargetSelector, World,
};
use sabot_core::resolve;

use crate::fixtures::{backend, device, fault, front, percent, pod, world};

fn none() -> BTreeSet<String> {
    BTreeSet::new()
}

/// The world as these guards see it, beside these faults.
fn guarded(guards: &Guards, mut world: World, faults: &[Fault]) -> World {
    guards.apply(&mut world, faults, &none());
    world
}

fn on_pods(name: &str, namespace: &str, labels: &str) -> Fault {
    let mut fault = fault(name, BootTime(0));
    fault.target = TargetSelector::Pods {
        selector: PodSelector {
            namespace: namespace.to_owned(),
            name: None,
            labels: parse_labels(labels).expect("labels"),
        },
        pick: None,
    };
    fault
}

fn sandboxes(faults: &[Fault], world: &World) -> BTreeSet<String> {
    let targets = faults.iter().flat_map(|fault| resolve(fault, world).targets);
    let netns: BTreeSet<_> = targets.map(|target| target.device.key.netns).collect();
    let hit = |pod: &&Pod| pod.devices.iter().any(|d| netns.contains(&d.key.netns));
    let pods = world.pods.values().filter(hit);
    pods.map(|pod| pod.sandbox.clone()).collect()
}

#[test]
fn a_protected_namespace_is_refused_whether_its_pods_are_here_or_not() {
    let guards = Guards::default();
    let mut system = pod(1, "dns", 1);
    system.namespace = "kube-system".into();
    for world in [World::default(), world([system])] {
        let world = guarded(&guards, world, &[]);
        let refusal = guards.check(&on_pods("cut", "kube-system", "*"), &world, []);
        let refusal = refusal.expect_err("it is protected");
        assert_eq!(refusal.guard, Guard::ProtectedNamespace);
        assert!(refusal.reason.contains("kube-system"), "{refusal}");
        assert!(refusal.to_string().contains("protected-namespace"), "{refusal}");
        assert_eq!(guards.check(&on_pods("cut", "shop", "*"), &world, []), Ok(()));
    }
}

#[test]
fn a_protected_pod_is_left_out_and_alone_refused() {
    let guards = Guards::default();
    let mut kept = pod(1, "web", 1);
    kept.annotations.insert(PROTECTED.into(), "true".into());
    let cut = on_pods("cut", "shop", "app=web");
    let alone = guarded(&guards, world([kept.clone()]), &[]);
    let refusal = guards.check(&cut, &alone, []).expect_err("nothing else matches");
    assert_eq!(refusal.guard, Guard::ProtectedPod);
    assert!(refusal.reason.contains("shop/web-1"), "{refusal}");

    let both = guarded(&guards, world([kept.clone(), pod(2, "web", 1)]), &[]);
    assert_eq!(guards.check(&cut, &both, []), Ok(()));
    let found = resolve(&cut, &both);
    assert_eq!(found.targets.len(), 1);
    assert_eq!(
        found.targets[0].pod.as_ref().map(|pod| pod.name.as_str()),
        Some("web-2")
    );
    assert_eq!(found.refused.len(), 1);
    assert_eq!(found.refused[0].guard, Some(Guard::ProtectedPod));
    assert!(
        found.refused[0].reason.contains("guard protected-pod"),
        "{found:?}"
    );

    // Any other value protects nothing.
    kept.annotations.insert(PROTECTED.into(), "false".into());
    let world = guarded(&guards, world([kept]), &[]);
    assert_eq!(resolve(&cut, &world).targets.len(), 1);
}

#[test]
fn a_service_is_guarded_by_its_namespace_and_by_its_backends() {
    let guards = Guards::default();
    let on_service = |namespace: &str| Fault {
        target: TargetSelector::Service {
            name: ObjectName {
                namespace: namespace.to_owned(),
                name: "front".to_owned(),
            },
            pick: None,
        },
        ..fault("cut", BootTime(0))
    };
    let mut kept = pod(1, "web", 1);
    kept.annotations.insert(PROTECTED.into(), "true".into());
    let mut world = world([kept.clone(), pod(2, "web", 1)]);
    let service = Service {
        endpoints: world.pods.values().map(|pod| backend(pod, 80)).collect(),
        ..front("10.96.0.1", 80)
    };
    let name = ObjectName {
        namespace: "shop".to_owned(),
        name: "front".to_owned(),
    };
    world.cluster.services.insert_mut(name, Arc::new(service));
    let both = guarded(&guards, world.clone(), &[]);
    assert_eq!(guards.check(&on_service("shop"), &both, []), Ok(()));
    let found = resolve(&on_service("shop"), &both);
    assert_eq!(found.targets.len(), 1);
    assert_eq!(found.refused[0].guard, Some(Guard::ProtectedPod));

    let refusal = guards.check(&on_service("kube-system"), &both, []);
    assert_eq!(
        refusal.expect_err("it is protected").guard,
        Guard::ProtectedNamespace
    );

    world.pods.retain(|_, pod| pod.uid == kept.uid);
    let alone = guarded(&guards, world, &[]);
    let refusal = guards.check(&on_service("shop"), &alone, []);
    assert_eq!(refusal.expect_err("it is protected").guard, Guard::ProtectedPod);
}

#[test]
fn protected_pods_of_other_nodes_are_no_candidates_of_a_pick() {
    let guards = Guards::default();
    let mut cut = on_pods("cut", "shop", "app=web");
    if let TargetSelector::Pods { pick, .. } = &mut cut.target {
        *pick = Some(Pick {
            share: PickShare::Count(1),
            seed: 7,
        });
    }
    let elsewhere = |index: u8, protected: &str| {
        let pod = pod(index, "web", 9);
        let annotations = [(PROTECTED.to_owned(), protected.to_owned())];
        let pod = ClusterPod {
            namespace: pod.namespace,
            name: pod.name,
            uid: pod.uid,
            node: "worker-2".to_owned(),
            labels: pod.labels,
            annotations: annotations.into(),
            addresses: BTreeSet::new(),
            host_network: false,
            workload: Default::default(),
        };
        (pod.uid.clone(), Arc::new(pod))
    };
    // With all others protected the one pod of this node is taken; with none protected it has to be lucky.
    for (protected, taken) in [("true", 1), ("false", 0)] {
        let mut world = world([pod(1, "web", 1)]);
        let pods: PodSet = (2..=60).map(|index| elsewhere(index, protected)).collect();
        let selector = match &cut.target {
            TargetSelector::Pods { selector, .. } => selector.clone(),
            other => panic!("{other:?}"),
        };
        world.cluster.pods = [(selector, Arc::new(pods))].into();
        let world = guarded(&guards, world, &[]);
        assert_eq!(resolve(&cut, &world).targets.len(), taken, "{protected}");
    }
}

#[test]
fn a_pod_that_is_not_up_yet_keeps_a_fault_from_being_refused() {
    let guards = Guards::default();
    let mut kept = pod(1, "web", 1);
    kept.annotations.insert(PROTECTED.into(), "true".into());
    let mut coming = pod(2, "web", 1);
    coming.devices.clear();
    let world = guarded(&guards, world([kept, coming]), &[]);
    assert_eq!(
        guards.check(&on_pods("cut", "shop", "app=web"), &world, []),
        Ok(())
    );
}

#[test]
fn only_pods_that_opted_in_may_have_faults() {
    let guards = Guards {
        opt_in: Some(parse_labels("chaos=yes").expect("labels")),
        ..Guards::default()
    };
    let mut willing = pod(1, "web", 1);
    willing.labels.insert("chaos".into(), "yes".into());
    let cut = on_pods("cut", "shop", "*");
    let world = guarded(&guards, world([willing, pod(2, "cli", 1)]), &[]);
    assert_eq!(guards.check(&cut, &world, []), Ok(()));
    assert_eq!(
        sandboxes(std::slice::from_ref(&cut), &world),
        ["sandbox-1-1".to_owned()].into()
    );
    let refusal = guards.check(&on_pods("cut", "shop", "app=cli"), &world, []);
    let refusal = refusal.expect_err("it didn't");
    assert_eq!(refusal.guard, Guard::OptIn);
    assert!(
        refusal.reason.contains("shop/cli-2") && refusal.reason.contains("chaos"),
        "{refusal}"
    );
}

#[test]
fn a_namespace_path_is_guarded_as_the_pod_that_it_is_of() {
    let guards = Guards::default();
    let mut kept = pod(1, "web", 1);
    kept.annotations.insert(PROTECTED.into(), "true".into());
    let devices = kept.devices.clone();
    let mut world = guarded(&guards, world([kept]), &[]);
    world.namespaces = BTreeMap::from([
        ("/run/netns/pod".into(), devices),
        ("/run/netns/other".into(), vec![device(77, "eth0")]),
    ]);
    let mut cut = fault("cut", BootTime(0));
    cut.target = TargetSelector::Netns("/run/netns/pod".into());
    let refusal = guards.check(&cut, &world, []).expect_err("it is the pod's");
    assert_eq!(refusal.guard, Guard::ProtectedPod);
    assert!(resolve(&cut, &world).targets.is_empty());
    cut.target = TargetSelector::Netns("/run/netns/other".into());
    assert_eq!(guards.check(&cut, &world, []), Ok(()));
    assert_eq!(resolve(&cut, &world).targets.len(), 1);
}

#[test]
fn a_share_counts_pods_under_all_faults_together() {
    let guards = Guards {
        namespace_share: percent(50.0),
        ..Guards::default()
    };
    let pods = [
        pod(1, "web", 1),
        pod(2, "web", 1),
        pod(3, "cli", 1),
        pod(4, "db", 1),
    ];
    let web = on_pods("web", "shop", "app=web");
    let world = guarded(&guards, world(pods), std::slice::from_ref(&web));
    assert_eq!(guards.check(&web, &world, []), Ok(()));
    assert_eq!(
        guards.check(&on_pods("more", "shop", "app=web"), &world, [&web]),
        Ok(())
    );
    let cli = on_pods("cli", "shop", "app=cli");
    let refusal = guards
        .check(&cli, &world, [&web])
        .expect_err("that were three of four");
    assert_eq!(refusal.guard, Guard::NamespaceShare);
    assert!(
        refusal.reason.contains("50 % of the 4 pods of namespace shop"),
        "{refusal}"
    );
    assert!(refusal.reason.contains("which is 2"), "{refusal}");
    assert_eq!(guards.check(&cli, &world, []), Ok(()));
    let refusal = guards.check(&on_pods("all", "shop", "*"), &world, []);
    assert_eq!(refusal.expect_err("four of four").guard, Guard::NamespaceShare);
}

#[test]
fn the_nodes_share_is_over_all_namespaces() {
    let guards = Guards {
        node_share: percent(50.0),
        ..Guards::default()
    };
    let mut other = pod(3, "web", 1);
    other.namespace = "bank".into();
    let mut on_node = pod(4, "proxy", 1);
    on_node.host_network = true;
    on_node.devices.clear();
    let world = guarded(&guards, world([pod(1, "web", 1), other, on_node]), &[]);
    let shop = on_pods("shop", "shop", "app=web");
    assert_eq!(guards.check(&shop, &world, []), Ok(()));
    let refusal = guards.check(&on_pods("bank", "bank", "*"), &world, [&shop]);
    let refusal = refusal.expect_err("two of two");
    assert_eq!(refusal.guard, Guard::NodeShare);
    assert!(refusal.reason.contains("2 pods of this node"), "{refusal}");
}

#[test]
fn shares_are_rounded_down_and_exact() {
    for (pods, share, allowed) in [
        (3, 50.0, 1),
        (1, 99.0, 0),
        (50, 58.0, 29),
        (100, 29.0, 29),
        (7, 100.0, 7),
    ] {
        let guards = Guards {
            namespace_share: percent(share),
            ..Guards::default()
        };
        let all = on_pods("all", "shop", "*");
        let world = guarded(
            &guards,
            world((0..pods).map(|n| pod(n, "web", 1))),
            std::slice::from_ref(&all),
        );
        assert_eq!(sandboxes(&[all], &world).len(), allowed, "{share} % of {pods}");
    }
}

fn a_pod() -> impl Strategy<Value = (u8, bool, bool, bool)> {
    (
        0..3_u8,
        any::<bool>(),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
    )
}

/// Pods in three namespaces, some protected, some with the label `chaos`, some on the node's network.
fn a_world() -> impl Strategy<Value = World> {
    vec(a_pod(), 0..12).prop_map(|pods| {
        let pods = pods
            .into_iter()
            .zip(0..)
            .map(|((namespace, willing, kept, on_node), index)| {
                let mut pod = pod(index, ["web", "cli"][usize::from(index % 2)], 1);
                pod.namespace = ["shop", "bank", "kube-system"][usize::from(namespace)].into();
                if willing {
                    pod.labels.insert("chaos".into(), "yes".into());
                }
                if kept {
                    pod.annotations.insert(PROTECTED.into(), "true".into());
                }
                if on_node {
                    pod.host_network = true;
                    pod.devices.clear();
                }
                pod
            });
        let mut world = world(pods);
        let namespaces = world.pods.values().map(|pod| {
            let path = format!("/run/netns/{}", pod.sandbox);
            (path.into(), pod.devices.clone())
        });
        world.namespaces = namespaces.collect();
        world
    })
}

fn a_fault() -> impl Strategy<Value = Fault> {
    let selector = (0..3_usize, 0..3_usize, prop::option::of((1..4_u32, any::<u64>()))).prop_map(
        |(namespace, app, pick)| TargetSelector::Pods {
            selector: PodSelector {
                namespace: ["shop", "bank", "kube-system"][namespace].into(),
                name: None,
                labels: match app {
                    2 => LabelSelector::default(),
                    app => parse_labels(["app=web", "app=cli"][app]).expect("labels"),
                },
            },
            pick: pick.map(|(count, seed)| Pick {
                share: PickShare::Count(count),
                seed,
            }),
        },
    );
    let netns = (0..12_u8).prop_map(|n| TargetSelector::Netns(format!("/run/netns/sandbox-{n}-1").into()));
    prop_oneof![3 => selector, 1 => netns].prop_map(|target| Fault {
        target,
        ..fault("any", BootTime(0))
    })
}

fn guards() -> impl Strategy<Value = Guards> {
    (any::<bool>(), any::<bool>(), 0..=100_u32, 0..=100_u32).prop_map(|(system, labels, own, node)| Guards {
        protected_namespaces: system.then(|| "kube-system".to_owned()).into_iter().collect(),
        opt_in: labels.then(|| parse_labels("chaos=yes").expect("labels")),
        workload_share: percent(100.0),
        namespace_share: percent(f64::from(own)),
        node_share: percent(f64::from(node)),
    })
}

fn named(faults: Vec<Fault>) -> Vec<Fault> {
    let mut faults = faults;
    for (index, fault) in faults.iter_mut().enumerate() {
        fault.name.name = format!("fault-{index}");
    }
    faults
}

/// How many of the pods in `hit` are of a namespace, and how many there are that can have faults.
fn share(world: &World, hit: &BTreeSet<String>, namespace: Option<&str>) -> (usize, usize) {
    let own = world
        .pods
        .values()
        .filter(|pod| !pod.host_network && namespace.is_none_or(|n| pod.namespace == n));
    let own: Vec<_> = own.collect();
    (
        own.iter().filter(|pod| hit.contains(&pod.sandbox)).count(),
        own.len(),
    )
}

proptest! {
    #[test]
    fn nothing_guarded_is_ever_resolved(guards in guards(), world in a_world(), faults in vec(a_fault(), 0..5)) {
        let faults = named(faults);
        let world = guarded(&guards, world, &faults);
        let hit = sandboxes(&faults, &world);
        for sandbox in &hit {
            let pod = &world.pods[sandbox];
            prop_assert!(!guards.protected_namespaces.contains(&pod.namespace));
            prop_assert!(!pod.annotations.contains_key(PROTECTED));
            prop_assert!(guards.opt_in.is_none() || pod.labels.contains_key("chaos"));
        }
        for namespace in ["shop", "bank", "kube-system"] {
            let (hit, all) = share(&world, &hit, Some(namespace));
            prop_assert!(hit as f64 <= guards.namespace_share.value() * all as f64 / 100.0 + 1e-6);
        }
        let (hit, all) = share(&world, &hit, None);
        prop_assert!(hit as f64 <= guards.node_share.value() * all as f64 / 100.0 + 1e-6);
    }

    #[test]
    fn what_has_faults_keeps_them_while_the_world_stays(
        guards in guards(), world in a_world(), faults in vec(a_fault(), 0..5)
    ) {
        let faults = named(faults);
        let mut world = world;
        let kept = guards.apply(&mut world, &faults, &none());
        let before = world.clone();
        let again = guards.apply(&mut world, &faults, &kept);
        prop_assert_eq!(&again, &kept);
        prop_assert_eq!(&world, &before);
    }

    #[test]
    fn an_accepted_fault_gets_all_that_it_means_and_takes_nothing_from_others(
        guards in guards(), world in a_world(), faults in vec(a_fault(), 1..6)
    ) {
        let faults = named(faults);
        let mut world = guarded(&guards, world, &[]);
        let mut accepted: Vec<Fault> = Vec::new();
        let mut standing = none();
        for fault in faults {
            let verdict = guards.check(&fault, &world, &accepted);
            let mut with_it = accepted.clone();
            with_it.push(fault.clone());
            let mut after = world.clone();
            let standing_after = guards.apply(&mut after, &with_it, &standing);
            let withheld = after.guarded.values().any(|guarded| !guarded.guard.is_protection());
            match verdict {
                Ok(()) => {
                    prop_assert!(!withheld, "{:?}", after.guarded);
                    let before = sandboxes(&accepted, &world);
                    prop_assert!(sandboxes(&with_it, &after).is_superset(&before));
                    (accepted, world, standing) = (with_it, after, standing_after);
                }
                Err(refusal) if refusal.guard.is_protection() => {
                    prop_assert!(resolve(&fault, &after).targets.is_empty());
                }
                // It would have been one too many.
                Err(_) => prop_assert!(withheld),
            }
        }
    }

    #[test]
    fn without_guards_nothing_is_different(world in a_world(), faults in vec(a_fault(), 0..5)) {
        let faults = named(faults);
        let seen = guarded(&Guards::none(), world.clone(), &faults);
        let unprotected = |world: &World| {
            let mut world = world.clone();
            world.pods.values_mut().for_each(|pod| pod.annotations.clear());
            world
        };
        let (seen, plain) = (unprotected(&seen), unprotected(&world));
        let seen = guarded(&Guards::none(), seen, &faults);
        for fault in &faults {
            prop_assert_eq!(resolve(fault, &seen), resolve(fault, &plain));
            prop_assert_eq!(Guards::none().check(fault, &seen, []), Ok(()));
        }
    }
}

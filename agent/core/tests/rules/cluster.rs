//! What isn't known of the cluster yet, and what has changed in it.

use std::collections::BTreeSet;
use std::sync::Arc;

use sabot_core::guard::{Guard, Guards};
use sabot_core::model::{
    ApiServer, BootTime, Cluster, ClusterWanted, Fault, FaultName, ObjectName, Peer, Pick, PickShare,
    Service, TargetSelector, World,
};
use sabot_core::resolve;
use sabot_core::resolve::Presence;

use crate::fixtures::{add_remote, backend, cidr, fault, front, labelled, percent, pod, world};
use crate::services::{named, remote, with_peers};

/// A world with one pod `web`, and an API server that has told nothing yet.
fn untold() -> World {
    let mut world = world([pod(1, "web", 1)]);
    world.cluster.server = ApiServer::Answers;
    world
}

fn told(world: &World, wanted: &ClusterWanted) -> World {
    let mut world = world.clone();
    let known = [&*world.cluster.known, wanted];
    world.cluster.known = Arc::new(ClusterWanted::all(known.into_iter()));
    world
}

fn picking(count: u32) -> Fault {
    Fault {
        target: TargetSelector::Pods {
            selector: labelled("web"),
            pick: Some(Pick {
                share: PickShare::Count(count),
                seed: 7,
            }),
        },
        ..with_peers(Vec::new())
    }
}

#[test]
fn a_fault_waits_for_its_peers_to_be_known() {
    let cut = with_peers(vec![cidr("10.9.0.0/16", &[]), Peer::Pods(labelled("db"))]);
    let mut world = untold();
    let found = resolve(&cut, &world);
    assert_eq!((found.targets.len(), found.presence), (0, Presence::Here));
    assert_eq!(
        found.pending.as_deref(),
        Some("its peers in the cluster aren't known yet")
    );
    // The pods alone aren't enough: they are reached through Services too.
    let half = ClusterWanted {
        pods: vec![labelled("db")],
        ..ClusterWanted::default()
    };
    assert!(resolve(&cut, &told(&world, &half)).targets.is_empty());
    let all = found.presence.wanted(&cut.target, &cut.peers, false);
    let found = resolve(&cut, &told(&world, &all));
    assert_eq!((found.targets.len(), found.pending), (1, None));

    // What this node knows is better than nothing while nobody can tell more.
    world.cluster.server = ApiServer::Away;
    assert_eq!(resolve(&cut, &world).targets.len(), 1);
    let unknown = with_peers(vec![Peer::Pods(labelled("db"))]);
    let found = resolve(&unknown, &world);
    assert!(found.targets.is_empty());
    assert_eq!(
        found.pending.as_deref(),
        Some("its peers in the cluster aren't known, and the cluster's API server doesn't answer")
    );
    world.cluster.server = ApiServer::Absent;
    assert_eq!(resolve(&unknown, &world).targets.len(), 1);
}

/// It may not be read, say.
#[test]
fn what_will_never_be_told_is_not_waited_for() {
    let mut world = untold();
    let cut = with_peers(vec![cidr("10.9.0.0/16", &[]), Peer::Pods(labelled("db"))]);
    let unknown = with_peers(vec![Peer::Pods(labelled("db"))]);
    let picking = picking(5);
    let all = [&cut, &unknown, &picking].map(|f| Presence::Here.wanted(&f.target, &f.peers, false));
    world.cluster.answered = Arc::new(ClusterWanted::all(all.iter()));
    assert_eq!(resolve(&cut, &world).targets.len(), 1);
    for (fault, what) in [(&unknown, "its peers"), (&picking, "the pods of other nodes")] {
        let found = resolve(fault, &world);
        assert!(found.targets.is_empty());
        let said = found.pending.expect("what it waits for");
        assert!(
            said.contains(what) && said.contains("API server doesn't tell"),
            "{said}"
        );
    }
}

/// A Service that has node ports is reached through every node's addresses.
#[test]
fn a_fault_waits_for_the_nodes_whose_ports_lead_to_its_peers() {
    let exposed = |service: Service| {
        let mut service = service;
        service.ports[0].node_port = Some(30_080);
        service
    };
    let mut world = untold();
    let db = pod(3, "db", 9);
    let service = Service {
        endpoints: vec![backend(&db, 8080)],
        ..front("10.96.0.1", 80)
    };
    add_remote(&mut world.cluster, labelled("db"), remote(3, "db", "b"));
    let to_service = with_peers(vec![Peer::Service {
        name: named("front"),
        port: None,
    }]);
    let to_pods = with_peers(vec![Peer::Pods(labelled("db"))]);
    for cut in [to_service, to_pods] {
        let wanted = Presence::Here.wanted(&cut.target, &cut.peers, false);
        let mut world = told(&world, &wanted);
        world
            .cluster
            .services
            .insert_mut(named("front"), Arc::new(service.clone()));
        assert_eq!(resolve(&cut, &world).pending, None, "it has no node ports");
        world
            .cluster
            .services
            .insert_mut(named("front"), Arc::new(exposed(service.clone())));
        let found = resolve(&cut, &world);
        assert_eq!((found.targets.len(), found.held.len()), (0, 1));
        let said = found.pending.expect("what it waits for");
        assert!(
            said.starts_with("the addresses of the nodes") && said.ends_with("aren't known yet"),
            "{said}"
        );
        let every_node = ClusterWanted {
            all_nodes: true,
            ..ClusterWanted::default()
        };
        let found = resolve(&cut, &told(&world, &every_node));
        assert_eq!((found.targets.len(), found.pending), (1, None));
        // They may not be read, or nobody can tell them.
        let mut forbidden = world.clone();
        let answered = [&*world.cluster.known, &every_node];
        forbidden.cluster.answered = Arc::new(ClusterWanted::all(answered.into_iter()));
        assert_eq!(resolve(&cut, &forbidden).targets.len(), 1);
        world.cluster.server = ApiServer::Away;
        assert_eq!(resolve(&cut, &world).targets.len(), 1);
    }
}

#[test]
fn a_fault_that_waits_for_its_peers_takes_its_share() {
    let guards = Guards {
        node_share: percent(50.0),
        ..Guards::none()
    };
    let on = |name: &str, peers| Fault {
        name: FaultName {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
        },
        target: TargetSelector::Pods {
            selector: labelled(name),
            pick: None,
        },
        ..with_peers(peers)
    };
    let waiting = on("web", vec![Peer::Pods(labelled("db"))]);
    let next = on("api", Vec::new());
    let mut world = untold();
    world.pods.insert("sandbox-2".to_owned(), pod(2, "api", 1));
    let kept = guards.apply(&mut world, [&waiting], &BTreeSet::new());
    let found = resolve(&waiting, &world);
    assert_eq!((found.targets.len(), found.held.len(), kept.len()), (0, 1, 1));
    let refused = guards.check(&next, &world, [&waiting]).expect_err("one of two");
    assert_eq!(refused.guard, Guard::NodeShare);
    assert_eq!(guards.check(&next, &world, []), Ok(()));
}

#[test]
fn a_services_backends_wait_for_the_workloads_that_are_counted() {
    let mut world = untold();
    world.cluster.services.insert_mut(
        named("front"),
        Arc::new(Service {
            endpoints: vec![backend(&pod(1, "web", 1), 8080)],
            ..front("10.96.0.1", 80)
        }),
    );
    let of_front = Fault {
        target: TargetSelector::Service {
            name: named("front"),
            pick: None,
        },
        ..with_peers(Vec::new())
    };
    world.cluster.known = Arc::new(ClusterWanted::of_target(&of_front.target, false));
    assert_eq!(resolve(&of_front, &world).targets.len(), 1);
    let guards = Guards {
        workload_share: percent(50.0),
        ..Guards::none()
    };
    world.protections = Arc::new(guards.protections());
    let found = resolve(&of_front, &world);
    assert!(found.targets.is_empty());
    assert!(found.pending.expect("what it waits for").contains("counted"));
}

#[test]
fn a_pick_waits_for_the_pods_that_it_ranks() {
    let world = untold();
    let fault = picking(5);
    for server in [ApiServer::Answers, ApiServer::Away] {
        let mut world = world.clone();
        world.cluster.server = server;
        let found = resolve(&fault, &world);
        assert_eq!((found.targets.len(), found.presence), (0, Presence::Candidate));
        assert!(
            found
                .pending
                .expect("the others")
                .contains("the pods of other nodes")
        );
    }
    let wanted = Presence::Candidate.wanted(&fault.target, &[Peer::Node("worker-1".to_owned())], false);
    assert_eq!(wanted.pods, [labelled("web")]);
    assert!(wanted.nodes.is_empty(), "its peers matter once it has targets");
    let found = resolve(&fault, &told(&world, &wanted));
    assert_eq!((found.targets.len(), found.presence), (1, Presence::Here));
}

#[test]
fn a_fault_of_other_nodes_asks_for_nothing() {
    let elsewhere = |target: TargetSelector| Fault {
        target,
        ..with_peers(vec![Peer::Pods(labelled("db"))])
    };
    let of_nobody = TargetSelector::Pods {
        selector: labelled("other"),
        pick: Some(Pick {
            share: PickShare::Count(1),
            seed: 7,
        }),
    };
    let far = TargetSelector::Service {
        name: ObjectName {
            namespace: "bank".to_owned(),
            name: "front".to_owned(),
        },
        pick: None,
    };
    for target in [of_nobody, far, TargetSelector::Node("worker-9".to_owned())] {
        let fault = elsewhere(target);
        let found = resolve(&fault, &untold());
        assert_eq!(found.presence, Presence::Elsewhere, "{:?}", fault.target);
        assert!(
            found
                .presence
                .wanted(&fault.target, &fault.peers, false)
                .is_empty()
        );
    }
    let near = elsewhere(TargetSelector::Service {
        name: named("front"),
        pick: None,
    });
    let found = resolve(&near, &untold());
    let wanted = found.presence.wanted(&near.target, &near.peers, false);
    assert_eq!((wanted.services.len(), wanted.pods.len()), (1, 0));
}

/// Whether each of these is the same for a fault with these peers: what the change doesn't name stays the same.
fn same(before: &Cluster, after: &Cluster, peers: &[Peer]) -> bool {
    let moved = after.moved_services(before);
    after.is_same_for(&ClusterWanted::of_peers(peers), before, &moved)
}

#[test]
fn what_has_changed_concerns_those_who_name_it() {
    let of_pods = [Peer::Pods(labelled("db"))];
    let of_others = [Peer::Pods(labelled("web"))];
    let of_service = [Peer::Service {
        name: named("front"),
        port: None,
    }];
    let of_node = [Peer::Node("worker-1".to_owned())];
    let mut before = Cluster::default();
    add_remote(&mut before, labelled("db"), remote(3, "db", "b"));
    add_remote(&mut before, labelled("web"), remote(4, "web", "b"));
    let all = [&of_pods[..], &of_others, &of_service, &of_node];
    let concerned = |after: &Cluster| all.map(|peers| !same(&before, after, peers));
    assert_eq!(concerned(&before.clone()), [false; 4]);

    let mut after = before.clone();
    add_remote(&mut after, labelled("db"), remote(5, "db", "c"));
    assert_eq!(concerned(&after), [true, false, false, false]);
    assert_eq!(before.pods[&labelled("db")].size(), 1, "a copy is its own");

    // Any Service of their namespace may lead to the pods.
    let mut after = before.clone();
    after
        .services
        .insert_mut(named("front"), Arc::new(front("10.96.0.1", 80)));
    assert_eq!(after.moved_services(&before), BTreeSet::from([named("front")]));
    assert_eq!(before.moved_services(&after), BTreeSet::from([named("front")]));
    assert_eq!(concerned(&after), [true, true, true, false]);
    after.services.insert_mut(named("other"), Arc::default());
    let with_both = after.clone();
    after.services.remove_mut(&named("other"));
    assert!(same(&with_both, &after, &of_service) && !same(&with_both, &after, &of_pods));

    let mut after = before.clone();
    Arc::make_mut(&mut after.nodes).insert("worker-1".to_owned(), BTreeSet::new());
    assert_eq!(
        concerned(&after),
        [true; 4],
        "Services may have ports on every node"
    );
    let mut after = before.clone();
    Arc::make_mut(&mut after.nodes).insert("worker-2".to_owned(), BTreeSet::new());
    assert_eq!(concerned(&after), [true, true, true, false]);

    let mut after = before.clone();
    after.known = Arc::new(ClusterWanted::of_peers(&of_node));
    assert_eq!(concerned(&after), [false, false, false, true]);
    after.server = ApiServer::Away;
    assert_eq!(concerned(&after), [true; 4]);
    assert!(same(&before, &after, &[cidr("10.0.0.0/8", &[])]));
}

#[test]
fn what_is_wanted_is_known_by_more() {
    let known = ClusterWanted {
        service_namespaces: ["shop".to_owned()].into(),
        all_nodes: true,
        ..ClusterWanted::default()
    };
    let wanted = ClusterWanted {
        services: [named("front")].into(),
        nodes: ["worker-1".to_owned()].into(),
        ..ClusterWanted::default()
    };
    assert!(known.contains(&wanted) && !wanted.contains(&known));
    let fault = fault("cut", BootTime(0));
    assert!(
        Presence::Here
            .wanted(&fault.target, &fault.peers, false)
            .is_empty()
    );
}

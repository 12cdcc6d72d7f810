use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use proptest::prelude::*;
use sabot_core::model::{
    Action, BootTime, Direction, Fault, PacketFilter, Peer, Pick, PickShare, PodSelector, Ramp,
    TargetSelector, World,
};
use sabot_core::plan::{Equipment, PeerEntry};
use sabot_core::{equipment, peer_entries, resolve};

use crate::fixtures::{
    cidr, corrupt, delay, device, drop, every_action, fault, labelled, pod, pods_target, world,
};

const NOW: BootTime = BootTime(0);

fn meant(fault: &Fault, world: &World) -> Vec<String> {
    let names = resolve(fault, world)
        .targets
        .into_iter()
        .map(|target| match target.pod {
            Some(pod) => pod.name,
            None => target.device.key.device,
        });
    names.collect()
}

fn with_target(target: TargetSelector) -> Fault {
    Fault {
        target,
        ..fault("cut", NOW)
    }
}

#[test]
fn pods_are_found_by_labels_and_by_name() {
    let world = world([pod(1, "web", 1), pod(2, "web", 1), pod(3, "db", 1)]);
    assert_eq!(
        meant(&with_target(pods_target("web")), &world),
        ["web-1", "web-2"]
    );
    let selector = PodSelector {
        name: Some("db-3".to_owned()),
        ..labelled("db")
    };
    assert_eq!(
        meant(
            &with_target(TargetSelector::Pods { selector, pick: None }),
            &world
        ),
        ["db-3"]
    );
}

#[test]
fn a_pod_on_the_nodes_network_is_refused_and_never_picked() {
    let mut on_node = pod(1, "web", 1);
    on_node.host_network = true;
    let world = world([on_node, pod(2, "web", 1)]);
    for seed in 0..20 {
        let share = PickShare::Count(1);
        let fault = with_target(TargetSelector::Pods {
            selector: labelled("web"),
            pick: Some(Pick { share, seed }),
        });
        assert_eq!(meant(&fault, &world), ["web-2"]);
        let refused = resolve(&fault, &world).refused;
        assert_eq!(refused.len(), 1);
        assert!(
            refused[0]
                .reason
                .starts_with("the pod shop/web-1 uses the node's network; "),
            "{refused:?}"
        );
    }
}

#[test]
fn what_is_awaited_is_said() {
    let mut world = world([pod(1, "web", 1)]);
    let pending = |target: TargetSelector, world: &World| resolve(&with_target(target), world).pending;
    assert_eq!(pending(pods_target("web"), &world), None);
    let text = pending(pods_target("db"), &world).expect("nothing matches");
    assert_eq!(text, "no pod in namespace shop matches app=db");
    let text = pending(TargetSelector::Interface("eth7".to_owned()), &world).expect("no interface");
    assert_eq!(text, "the node has no interface eth7");
    let text = pending(TargetSelector::Netns("/run/netns/x".into()), &world).expect("no namespace");
    assert_eq!(text, "there is no network namespace /run/netns/x");
    world.namespaces.insert("/run/netns/x".into(), Vec::new());
    let text = pending(TargetSelector::Netns("/run/netns/x".into()), &world).expect("no device");
    assert!(text.contains("has no device"), "{text}");
    for pod in world.pods.values_mut() {
        pod.devices.clear();
    }
    assert_eq!(
        pending(pods_target("web"), &world).expect("no device"),
        "the pod shop/web-1 has no device yet"
    );
}

#[test]
fn a_device_without_mac_header_refuses_what_takes_packets_aside() {
    let mut tunnel = device(9, "tun0");
    tunnel.mac_header = false;
    let mut world = World::default();
    world.interfaces.insert("tun0".to_owned(), tunnel);
    let on = |action| Fault {
        action,
        ..with_target(TargetSelector::Interface("tun0".to_owned()))
    };
    for action in [delay(), drop(20.0), corrupt(20.0), corrupt(100.0)] {
        let found = resolve(&on(action.clone()), &world);
        assert_eq!((found.targets.len(), found.refused.len()), (0, 1), "{action:?}");
        assert!(
            found.refused[0]
                .reason
                .starts_with("the device tun0 has no MAC header"),
            "{found:?}"
        );
    }
    for action in [Action::Partition, drop(0.0), drop(100.0), corrupt(0.0)] {
        let found = resolve(&on(action.clone()), &world);
        assert_eq!((found.targets.len(), found.refused.len()), (1, 0), "{action:?}");
    }
}

#[test]
fn equipment_is_what_the_action_needs_and_no_more() {
    let need = |action, direction| {
        equipment(&Fault {
            action,
            direction,
            ..fault("cut", NOW)
        })
    };
    let egress = Equipment {
        egress: true,
        ..Equipment::default()
    };
    assert_eq!(need(Action::Partition, Direction::Egress), egress);
    assert_eq!(
        need(delay(), Direction::Egress),
        Equipment {
            line: true,
            departures: true,
            ..egress
        }
    );
    assert_eq!(
        need(drop(5.0), Direction::Egress),
        Equipment {
            segmenter: true,
            ..egress
        }
    );
    assert_eq!(need(Action::Partition, Direction::Both), Equipment::HOOKS);
}

#[test]
fn each_action_has_the_detours_that_it_needs() {
    // Line and segmenter, in the order of the fixture.
    let expected = [
        (false, false),
        (true, false),
        (true, false),
        (false, true),
        (false, false),
        (false, true),
        (false, false),
        (false, true),
        (false, true),
        (false, true),
        (true, true),
        (true, true),
        (true, false),
        (true, true),
        (true, true),
    ];
    let actions = every_action();
    assert_eq!(actions.len(), expected.len());
    for (action, (line, segmenter)) in actions.into_iter().zip(expected) {
        let on = |packets| {
            equipment(&Fault {
                action: action.clone(),
                packets,
                ..fault("cut", NOW)
            })
        };
        let need = on(PacketFilter::ALL);
        assert_eq!((need.line, need.segmenter), (line, segmenter), "{action:?}");
        let short = PacketFilter {
            greatest_length: 100,
            ..PacketFilter::ALL
        };
        assert!(
            on(short).segmenter,
            "a super-packet's wire packets differ in length: {action:?}"
        );
    }
}

#[test]
fn a_ramp_makes_every_share_a_partial_one() {
    let ramp = Ramp {
        over: Duration::from_secs(1),
        from: 0.0,
        to: 1.0,
    };
    let ramped = Fault {
        action: drop(100.0),
        ramp: Some(ramp),
        ..fault("cut", NOW)
    };
    assert!(equipment(&ramped).segmenter);
}

#[test]
fn a_named_peer_needs_the_answers_that_arrive() {
    let named = Fault {
        peers: vec![Peer::Host("api.example.com".to_owned())],
        direction: Direction::Egress,
        ..fault("cut", NOW)
    };
    assert!(equipment(&named).ingress);
}

#[test]
fn pods_as_peers_are_all_their_addresses() {
    let mut db = pod(3, "db", 1);
    db.addresses.push("fd00::3".parse().expect("an address"));
    let mut on_node = pod(4, "db", 1);
    on_node.host_network = true;
    let world = world([pod(1, "web", 1), db, on_node]);
    let cut = Fault {
        peers: vec![Peer::Pods(labelled("db"))],
        ..fault("cut", NOW)
    };
    let nets: Vec<String> = peer_entries(&cut, &world)
        .iter()
        .map(|entry| entry.net.to_string())
        .collect();
    assert_eq!(nets, ["10.1.1.3/32", "10.1.1.4/32", "fd00::3/128"]);
}

#[test]
fn a_prefix_that_is_both_included_and_excepted_is_included() {
    let cut = Fault {
        peers: vec![cidr("10.0.0.0/8", &["10.1.0.0/16"]), cidr("10.1.0.0/16", &[])],
        ..fault("cut", NOW)
    };
    let entries = peer_entries(&cut, &World::default());
    assert!(entries.iter().all(|entry| !entry.excepted), "{entries:?}");
    assert_eq!(entries.len(), 2);
}

#[test]
fn every_ipv6_address_does_not_mean_ipv4() {
    let cut = |peers| Fault {
        peers,
        ..fault("cut", NOW)
    };
    let every = PeerEntry::excepted("0.0.0.0/0".parse().expect("a network"));
    let ipv6 = peer_entries(&cut(vec![cidr("::/0", &[])]), &World::default());
    assert!(ipv6.contains(&every), "{ipv6:?}");
    let both = peer_entries(
        &cut(vec![cidr("::/0", &[]), cidr("0.0.0.0/0", &[])]),
        &World::default(),
    );
    assert!(!both.contains(&every) && both.contains(&every.twin()), "{both:?}");
}

/// The kernel's reading of a peer set: IPv4 lies among the IPv4-mapped addresses, and the longest prefix decides.
fn kernel_matches(entries: &BTreeSet<PeerEntry>, address: IpAddr) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => u128::from(v6),
    };
    let covers = |net: IpNet| {
        let length = u32::from(net.prefix_len()) + if net.max_prefix_len() == 32 { 96 } else { 0 };
        let differ = (bits(net.network()) ^ bits(address))
            .checked_shr(128 - length)
            .unwrap_or(0);
        (differ == 0).then_some(length)
    };
    let longest = entries
        .iter()
        .filter_map(|entry| Some((covers(entry.net)?, entry.excepted)))
        .max();
    longest.is_some_and(|(_, excepted)| !excepted)
}

/// What a user means: any of the peers has the address.
fn user_means(peers: &[Peer], address: IpAddr) -> bool {
    peers.iter().any(|peer| match peer {
        Peer::Address(one) => *one == address,
        Peer::Cidr { net, except } => net.contains(&address) && !except.iter().any(|e| e.contains(&address)),
        _ => false,
    })
}

/// Networks of few bits, so that they often contain each other and the addresses.
fn network() -> impl Strategy<Value = IpNet> {
    let v4 = (any::<u8>(), 0..=8_u8).prop_map(|(bits, length)| format!("{bits}.0.0.0/{length}"));
    let v6 = (any::<u8>(), 0..=8_u8).prop_map(|(bits, length)| format!("{bits:x}00::/{length}"));
    prop_oneof![v4, v6].prop_map(|text| text.parse::<IpNet>().expect("a network").trunc())
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u8>().prop_map(|bits| format!("{bits}.0.0.0")),
        any::<u8>().prop_map(|bits| format!("{bits:x}00::")),
    ]
    .prop_map(|text| text.parse().expect("an address"))
}

fn peer() -> impl Strategy<Value = Peer> {
    let range = (network(), prop::collection::vec(network(), 0..4)).prop_map(|(net, except)| Peer::Cidr {
        except: except
            .into_iter()
            .filter(|inner| *inner != net && net.contains(inner))
            .collect(),
        net,
    });
    prop_oneof![5 => range, 1 => address().prop_map(Peer::Address)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(2000), ..ProptestConfig::default() })]

    #[test]
    fn the_longest_prefix_means_the_union_of_the_peers(
        peers in prop::collection::vec(peer(), 1..6),
        addresses in prop::collection::vec(address(), 1..20),
    ) {
        let cut = Fault { peers, ..fault("cut", NOW) };
        let entries = peer_entries(&cut, &World::default());
        for address in addresses {
            prop_assert_eq!(kernel_matches(&entries, address), user_means(&cut.peers, address), "{}", address);
        }
    }
}

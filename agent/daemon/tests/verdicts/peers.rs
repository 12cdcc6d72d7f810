//! Who the other end is.

use std::net::IpAddr;

use sabot_core::plan::{PeerEntry, PeerPort, Slot};
use sabotd::engine::handle::LedgerDirection;
use sabotd::kernel::trial::Verdict;

use crate::frame::{Frame, udp};
use crate::rig::{BOTH, Egress, Ingress, Rig, SLOT, TARGET, cut, partition, peer, peers, single};

/// A packet between the target and another end.
fn between(direction: LedgerDirection, other: &str) -> Frame {
    let target = if other.contains(':') {
        "fd77::7"
    } else {
        "172.16.0.7"
    };
    match direction {
        Egress => Frame::new(target, other, udp(1, 2)),
        Ingress => Frame::new(other, target, udp(1, 2)),
    }
}

/// Peers of a rule, other ends that are among them, and others that aren't.
fn check(entries: &[&str], inside: &[&str], outside: &[&str]) {
    let mut rig = Rig::new();
    rig.put_on_peers(SLOT, partition(), &peers(entries));
    rig.list(&[SLOT]);
    for (others, named) in [(inside, true), (outside, false)] {
        for other in others {
            for direction in BOTH {
                assert_eq!(
                    rig.cuts(direction, &between(direction, other)),
                    named,
                    "{entries:?}: {other}, {direction:?}"
                );
            }
        }
    }
}

#[test]
fn the_other_end_counts_and_not_the_target() {
    let mut rig = Rig::new();
    rig.put_on_peers(SLOT, partition(), &peers(&["10.0.0.1"]));
    rig.list(&[SLOT]);
    let out = Frame::new("10.0.0.1", "10.0.0.2", udp(1, 2));
    assert!(!rig.cuts(Egress, &out));
    assert!(rig.cuts(Ingress, &out));
}

#[test]
fn exact_addresses_are_exact() {
    check(
        &["10.0.0.1", "fd00::1", "255.255.255.255"],
        &["10.0.0.1", "fd00::1", "255.255.255.255"],
        &["10.0.0.0", "10.0.0.2", "fd00::2", "fd00::", "::a00:1", "0.0.0.0"],
    );
}

#[test]
fn prefixes_are_as_long_as_they_say() {
    check(
        &["10.32.0.0/11", "192.0.2.128/25", "fd00:1:2:3::/64", "fd10::/12"],
        &[
            "10.32.0.0",
            "10.63.255.255",
            "192.0.2.128",
            "192.0.2.255",
            "fd00:1:2:3::9",
            "fd1f::1",
        ],
        &[
            "10.31.255.255",
            "10.64.0.0",
            "192.0.2.127",
            "192.0.3.128",
            "fd00:1:2:4::9",
            "fd20::1",
        ],
    );
}

#[test]
fn the_longest_prefix_decides() {
    check(
        &[
            "10.0.0.0/8",
            "!10.1.0.0/16",
            "10.1.2.0/24",
            "!10.1.2.3",
            "fd00::/16",
            "!fd00:1::/32",
            "fd00:1:2::/48",
            "!fd00:1:2::3",
        ],
        &[
            "10.0.0.1",
            "10.2.0.1",
            "10.1.2.4",
            "fd00:2::1",
            "fd00:1:2::4",
            "fd00::",
        ],
        &[
            "10.1.0.1",
            "10.1.3.1",
            "10.1.2.3",
            "11.0.0.1",
            "fd00:1::1",
            "fd00:1:3::1",
            "fd00:1:2::3",
            "fd01::",
        ],
    );
    // An exact address counts beside any exception of a network around it.
    check(
        &["10.0.0.0/8", "!10.1.0.0/16", "10.1.2.3"],
        &["10.1.2.3"],
        &["10.1.2.4"],
    );
}

#[test]
fn all_of_one_family_is_none_of_the_other() {
    check(
        &["0.0.0.0/0"],
        &["0.0.0.0", "10.0.0.1", "255.255.255.255"],
        &["fd00::1", "::1", "2001:db8::1"],
    );
    check(
        &["::/0"],
        &["fd00::1", "2001:db8::1", "::2"],
        &["10.0.0.1", "192.0.2.1"],
    );
    check(&["::/0", "!fd00::/8"], &["2001:db8::1"], &["fd00::1", "10.0.0.1"]);
    check(&["::/64"], &["::2"], &["10.0.0.1"]);
    check(&["0.0.0.0/0", "::/0"], &["10.0.0.1", "fd00::1"], &[]);
    check(
        &["0.0.0.0/0", "!10.0.0.0/8", "::/0", "!10.5.0.0/16"],
        &["11.0.0.1", "fd00::1"],
        &["10.0.0.1", "10.5.0.1"],
    );
}

#[test]
fn an_empty_set_of_peers_is_nobody() {
    let mut rule = partition();
    rule.peers = Some(SLOT.peer_set());
    for (exact, prefix) in [(false, false), (true, false), (false, true), (true, true)] {
        (rule.peers_exact, rule.peers_prefix) = (exact, prefix);
        let rig = Rig::with_rule(&rule);
        for direction in BOTH {
            assert!(!rig.cuts(direction, &between(direction, "10.0.0.1")));
            assert!(!rig.cuts(direction, &between(direction, "fd00::1")));
        }
    }
}

#[test]
fn sets_of_different_slots_do_not_mix() {
    let mut rig = Rig::new();
    // Neighbours in number, and a pair whose numbers are each other's reverse in bytes.
    let slots = [Slot(0), Slot(1), Slot(2), Slot(128)];
    let others = ["10.0.0.1", "10.0.1.1", "fd00::1", "fd01::1"];
    let sets = [["10.0.0.0/24"], ["10.0.1.1"], ["fd00::/64"], ["fd01::1"]];
    for (slot, entries) in slots.iter().zip(sets) {
        rig.put_on_peers(*slot, partition(), &peers(&entries));
    }
    for (mine, slot) in slots.iter().enumerate() {
        rig.list(&[*slot]);
        for (theirs, other) in others.iter().enumerate() {
            let bytes = between(Ingress, other).bytes();
            let verdict = rig.run(Ingress, &single(&bytes)).verdict;
            let expected = if mine == theirs {
                cut(Ingress)
            } else {
                Verdict::Pass
            };
            assert_eq!(verdict, expected, "{slot:?} {other}");
        }
        assert_eq!(rig.trial().counters(*slot, TARGET, Ingress).dropped.packets, 1);
    }
}

#[test]
fn peers_come_and_go() {
    let mut rig = Rig::new();
    let entries = peers(&["10.0.0.1", "10.1.0.0/16", "fd00::/64"]);
    rig.put_on_peers(SLOT, partition(), &entries);
    rig.list(&[SLOT]);
    let all = ["10.0.0.1", "10.1.2.3", "fd00::9"];
    let cut = |rig: &Rig| all.map(|other| rig.cuts(Egress, &between(Egress, other)));
    assert_eq!(cut(&rig), [true, true, true]);
    rig.trial()
        .remove_peers(SLOT.peer_set(), &entries[1..2])
        .expect("it goes");
    assert_eq!(cut(&rig), [true, false, true]);
    // One that is gone already is no error, and an exception takes an entry's place.
    rig.trial()
        .remove_peers(SLOT.peer_set(), &entries[1..2])
        .expect("it is gone");
    rig.trial()
        .add_peers(SLOT.peer_set(), &peers(&["!10.0.0.1", "!fd00::/64"]))
        .expect("there is room");
    assert_eq!(cut(&rig), [false, false, false]);
}

#[test]
fn the_nodes_own_addresses_are_spared_unless_named_exactly() {
    let nodes: [IpAddr; 2] = [
        "10.0.0.1".parse().expect("an address"),
        "fd00::1".parse().expect("an address"),
    ];
    // (peers, spare the node) and whether the node, and then another end, is named.
    for (entries, spare, expected) in [
        (None, true, [false, true]),
        (None, false, [true, true]),
        (Some(vec!["10.0.0.0/24", "fd00::/64"]), true, [false, true]),
        (Some(vec!["10.0.0.0/24", "fd00::/64"]), false, [true, true]),
        (Some(vec!["10.0.0.1", "fd00::1"]), true, [true, false]),
        (
            Some(vec!["10.0.0.0/24", "10.0.0.1", "fd00::/64", "fd00::1"]),
            true,
            [true, true],
        ),
    ] {
        let mut rig = Rig::new();
        rig.spare(&nodes.into());
        let mut rule = partition();
        rule.spare_node = spare;
        match &entries {
            Some(entries) => rig.put_on_peers(SLOT, rule, &peers(entries)),
            None => rig.put(SLOT, &rule),
        }
        rig.list(&[SLOT]);
        for (node, other) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            for direction in BOTH {
                let cut = [node, other].map(|end| rig.cuts(direction, &between(direction, end)));
                assert_eq!(cut, expected, "{entries:?} {spare} {direction:?}");
            }
        }
        rig.spare(&[].into());
        let now_another = rig.cuts(Egress, &between(Egress, "10.0.0.1"));
        assert_eq!(
            now_another,
            entries.is_none() || expected[0] || expected[1],
            "{entries:?}"
        );
    }
}

#[test]
fn a_port_of_the_nodes_is_named_exactly_and_the_rest_of_it_is_spared() {
    let node: IpAddr = "10.0.0.1".parse().expect("an address");
    let only = PeerPort {
        protocol: 17,
        port: Some(2),
    };
    for (spare, expected) in [(true, [true, false]), (false, [true, true])] {
        let mut rig = Rig::new();
        rig.spare(&[node].into());
        let mut rule = partition();
        rule.spare_node = spare;
        let entries = [peer("10.0.0.0/24"), PeerEntry::limited(node, only)];
        rig.put_on_peers(SLOT, rule, &entries);
        rig.list(&[SLOT]);
        // The other end's port is 2 on the way out, and 1 on the way in.
        let cut = BOTH.map(|direction| rig.cuts(direction, &between(direction, "10.0.0.1")));
        assert_eq!(cut, expected, "{spare}");
        assert!(rig.cuts(Ingress, &between(Ingress, "10.0.0.2")));
    }
}

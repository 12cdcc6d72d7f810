//! What keeps the node reachable is left alone on its own devices.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use sabot_abi as abi;

use crate::frame::{Frame, tcp, udp};
use crate::rig::{BOTH, Egress, Ingress, Rig, SLOT, partition, peers};

fn ends(texts: &[&str]) -> BTreeSet<SocketAddr> {
    texts
        .iter()
        .map(|text| text.parse().expect("an address and port"))
        .collect()
}

/// A target that cuts everything, on one of the node's devices or another.
fn cutting(is_node_device: bool, allow: bool) -> Rig {
    let mut rule = partition();
    rule.allow_control_plane = allow;
    let mut rig = Rig::with_rule(&rule);
    if is_node_device {
        rig.equip(|target| target.flags |= abi::TARGET_NODE_DEVICE);
    }
    rig
}

#[test]
fn connections_with_a_known_end_are_kept_on_the_nodes_devices_alone() {
    let known = ends(&["192.0.2.1:22", "203.0.113.1:6443", "[2001:db8::1]:22"]);
    // What is sent to the one end from the other.
    let kept = [
        Frame::new("10.0.0.9", "192.0.2.1", tcp(40_000, 22)),
        Frame::new("192.0.2.1", "10.0.0.9", tcp(22, 40_000)),
        Frame::new("192.0.2.1", "203.0.113.1", tcp(50_000, 6443)),
        Frame::new("203.0.113.1", "192.0.2.1", tcp(6443, 50_000)),
        Frame::new("2001:db8::9", "2001:db8::1", tcp(40_000, 22)),
    ];
    let others = [
        // Another host's SSH, another port of the API server's host, and the right numbers at the wrong end.
        Frame::new("192.0.2.1", "10.0.0.9", tcp(40_000, 22)),
        Frame::new("192.0.2.1", "203.0.113.1", tcp(50_000, 443)),
        Frame::new("10.0.0.9", "192.0.2.1", tcp(22, 40_000)),
        Frame::new("10.0.0.9", "192.0.2.1", udp(40_000, 22)),
        Frame::new("2001:db8::1", "2001:db8::9", tcp(40_000, 22)),
    ];
    for (is_node_device, allow, cuts_kept) in [(true, false, false), (true, true, true), (false, false, true)]
    {
        let rig = cutting(is_node_device, allow);
        rig.trial().set_control_plane(&known).expect("there is room");
        for direction in BOTH {
            for frame in &kept {
                assert_eq!(
                    rig.cuts(direction, frame),
                    cuts_kept,
                    "{is_node_device} {allow} {direction:?}"
                );
            }
            for frame in &others {
                assert!(
                    rig.cuts(direction, frame),
                    "{is_node_device} {allow} {direction:?}"
                );
            }
        }
        rig.trial().set_control_plane(&ends(&[])).expect("they go");
        assert!(
            rig.cuts(Ingress, &kept[0]),
            "what isn't known any more isn't kept"
        );
    }
}

#[test]
fn an_end_is_kept_from_a_rule_that_names_it_as_its_peer() {
    let mut rig = Rig::new();
    rig.equip(|target| target.flags |= abi::TARGET_NODE_DEVICE);
    rig.put_on_peers(SLOT, partition(), &peers(&["203.0.113.1"]));
    rig.list(&[SLOT]);
    rig.trial()
        .set_control_plane(&ends(&["203.0.113.1:6443"]))
        .expect("there is room");
    let to = |port| Frame::new("192.0.2.1", "203.0.113.1", tcp(50_000, port));
    assert!(!rig.cuts(Egress, &to(6443)));
    assert!(rig.cuts(Egress, &to(443)));
    rig.trial().set_control_plane(&ends(&[])).expect("they go");
}

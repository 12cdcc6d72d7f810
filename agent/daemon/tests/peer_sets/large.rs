//! Large sets, up to as many entries as there may be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use sabot_abi as abi;
use sabot_core::plan::PeerEntry;

use crate::rig::{Rig, SLOT};
use crate::{edges, entry};

/// Every other network of this length from 10.128.0.0 on, or for IPv6 from fd00:: on.
fn every_other(count: u32, length: u8) -> Vec<PeerEntry> {
    let net = |index: u32| -> IpNet {
        let first = if length <= 32 {
            let size = 1 << (32 - length);
            IpAddr::from(Ipv4Addr::from(0x0a80_0000 + 2 * index * size))
        } else {
            let size = 1_u128 << (128 - length);
            IpAddr::from(Ipv6Addr::from((0xfd00 << 112) + u128::from(2 * index) * size))
        };
        IpNet::new(first, length).expect("a length")
    };
    (0..count).map(|index| PeerEntry::included(net(index))).collect()
}

#[test]
fn as_many_addresses_as_there_may_be_have_room_and_one_more_has_none() {
    let rig = Rig::new();
    let all = every_other(abi::MAX_PEERS, 32);
    rig.add(&all);
    for entry in all.iter().step_by(97) {
        let behind = edges(&entry.net)[3];
        assert!(rig.cuts(entry.net.addr()) && !rig.cuts(behind), "{entry:?}");
    }
    let more = [entry("10.20.30.40")];
    let refused = rig.trial().add_peers(SLOT.peer_set(), &more);
    let refused = refused.expect_err("there is no room").to_string();
    assert!(
        refused.contains("the table of peers is full (524288 entries)"),
        "{refused}"
    );
    assert!(!rig.cuts(more[0].net.addr()));
    // One that is there changes all the same.
    let excepted = PeerEntry {
        excepted: true,
        ..all[12_345]
    };
    rig.add(&[excepted]);
    assert!(!rig.cuts(excepted.net.addr()));
    rig.remove(&all[..1]);
    rig.add(&more);
    assert!(rig.cuts(more[0].net.addr()));
    rig.remove(&more);
    rig.remove(&all);
    for entry in all.iter().step_by(97) {
        assert!(!rig.cuts(entry.net.addr()), "{entry:?}");
    }
}

/// Large sets, of which each entry is found, and nothing between them. Prints what they cost.
#[test]
fn a_large_set_includes_each_of_its_entries_and_nothing_between() {
    let rig = Rig::new();
    rig.list(0);
    println!(
        "no slot: {} ns",
        rig.nanoseconds("10.0.0.1".parse().expect("one"))
    );
    rig.list(1);
    for (count, length) in [
        (1, 32),
        (150_000, 32),
        (1, 28),
        (150_000, 28),
        (1, 128),
        (150_000, 128),
        (1, 64),
        (150_000, 64),
    ] {
        let entries = every_other(count, length);
        let started = std::time::Instant::now();
        rig.add(&entries);
        let took = started.elapsed();
        let middle = entries[entries.len() / 2].net;
        let [inside, outside] = [middle.network(), edges(&middle)[3]];
        println!(
            "{count} of /{length}: added in {took:?}, {} ns matched, {} ns not",
            rig.nanoseconds(inside),
            rig.nanoseconds(outside)
        );
        for entry in entries.iter().step_by(count as usize / 1000 + 1) {
            let [first, last, _, behind] = edges(&entry.net)[..] else {
                panic!("a network has four edges");
            };
            assert!(rig.cuts(first) && rig.cuts(last), "{first} {last}");
            assert!(!rig.cuts(behind), "{behind}");
        }
        let started = std::time::Instant::now();
        rig.remove(&entries);
        println!("removed in {:?}", started.elapsed());
        assert!(!rig.cuts(inside));
    }
}

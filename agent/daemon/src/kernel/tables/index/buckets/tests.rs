//! What an index says of random networks and of the addresses in them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

/// The index of a list of slots with these peers.
fn index(peers: &[Vec<IpNet>]) -> abi::PeerIndex {
    let mut index = abi::PeerIndex::EMPTY;
    for (place, nets) in peers.iter().enumerate() {
        Buckets::of(nets.iter().copied()).mark(&mut index, place);
    }
    index
}

fn slots(index: &abi::PeerIndex, address: IpAddr) -> u64 {
    index.slots(abi::peer_halves(mapped(address)))
}

fn net(address: IpAddr, length: u8) -> IpNet {
    IpNet::new(address, length).expect("a length").trunc()
}

/// A network of any length, and an address in it.
fn inhabited() -> impl Strategy<Value = (IpNet, IpAddr)> {
    let v4 = (any::<u32>(), any::<u32>(), 0..=32_u8).prop_map(|(address, other, length)| {
        let hosts = u32::MAX.checked_shr(length.into()).unwrap_or(0);
        let inside = Ipv4Addr::from(address & !hosts | other & hosts);
        (net(Ipv4Addr::from(address).into(), length), inside.into())
    });
    let v6 = (any::<u128>(), any::<u128>(), 0..=128_u8).prop_map(|(address, other, length)| {
        let hosts = u128::MAX.checked_shr(length.into()).unwrap_or(0);
        let inside = Ipv6Addr::from(address & !hosts | other & hosts);
        (net(Ipv6Addr::from(address).into(), length), inside.into())
    });
    prop_oneof![v4, v6]
}

proptest! {
    #[test]
    fn every_address_of_every_network_is_found(
        lists in prop::collection::vec(prop::collection::vec(inhabited(), 1..4), 1..=64),
    ) {
        let peers: Vec<Vec<IpNet>> = lists
            .iter()
            .map(|list| list.iter().map(|(net, _)| *net).collect())
            .collect();
        let index = index(&peers);
        for (place, list) in lists.iter().enumerate() {
            for (net, inside) in list {
                for address in [*inside, net.network(), net.broadcast()] {
                    let found = slots(&index, address);
                    prop_assert!(found >> place & 1 == 1, "{net}, {address}: {found:x}");
                }
            }
        }
    }

    #[test]
    fn a_summary_has_the_buckets_of_what_is_left(
        nets in prop::collection::btree_set(inhabited().prop_map(|(net, _)| net), 0..40),
        keep in prop::collection::vec(any::<bool>(), 40),
    ) {
        let mut summary = Summary::default();
        nets.iter().for_each(|net| summary.add(net));
        let kept = nets.iter().zip(&keep);
        let (kept, gone): (Vec<_>, Vec<_>) = kept.partition(|(_, keep)| **keep);
        gone.iter().for_each(|(net, _)| summary.remove(net));
        prop_assert_eq!(summary.buckets(), Buckets::of(kept.iter().map(|(net, _)| **net)));
        prop_assert_eq!(summary.is_empty(), kept.is_empty());
    }

    #[test]
    fn a_place_is_marked_anew_and_alone(
        first in inhabited(), second in inhabited(), place in 0..64_usize,
    ) {
        let mut index = abi::PeerIndex::EMPTY;
        Buckets::every_address().mark(&mut index, 63 - place);
        let around = index;
        Buckets::of([first.0]).mark(&mut index, place);
        Buckets::of([second.0]).mark(&mut index, place);
        let mut expected = around;
        Buckets::of([second.0]).mark(&mut expected, place);
        prop_assert_eq!(index, expected);
        Buckets::default().mark(&mut index, place);
        prop_assert_eq!(index, around);
    }
}

/// The mean number of slots that are visited by addresses that are none of the slots' peers.
fn visited(peers: &[Vec<IpNet>], strangers: impl Iterator<Item = IpAddr>) -> f64 {
    let index = index(peers);
    let (count, visits) = strangers.fold((0, 0), |(count, visits), address| {
        (count + 1, visits + slots(&index, address).count_ones())
    });
    f64::from(visits) / f64::from(count)
}

#[test]
fn slots_with_other_peers_are_seldom_visited() {
    let pod = |node: u8, pod: u8| IpAddr::from([10, 244, node, pod]);
    let strangers = || (0..60).flat_map(|node| (100..=250).map(move |number| pod(node, number)));
    let v6 = |number: u64| IpAddr::from(Ipv6Addr::from((0xfd00_0244_u128 << 96) + u128::from(number)));
    // A pod each, several nodes' pods each, a node's range each.
    let one: Vec<_> = (0..60).map(|node| vec![net(pod(node, 7), 32)]).collect();
    let ten: Vec<_> = (0..60)
        .map(|number| (0..10).map(|node| net(pod(node, number), 32)).collect())
        .collect();
    let ranges: Vec<_> = (0..60).map(|node| vec![net(pod(node + 100, 0), 24)]).collect();
    let in_one_range: Vec<_> = (0..60).map(|number| vec![net(v6(number), 128)]).collect();
    for (peers, bound) in [(one, 0.1), (ten, 1.0), (ranges, 2.0)] {
        let mean = visited(&peers, strangers());
        assert!(mean < bound, "{mean} of 60");
    }
    let mean = visited(&in_one_range, (1000..5000).map(v6));
    assert!(mean < 0.1, "{mean} of 60");
}

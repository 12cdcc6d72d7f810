//! The TCP observer, as the operator wants it.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use sabot_abi::{MAX_PEER_PREFIXES, PEER_NODE, PEER_POD, PEER_SERVICE};
use sabot_core::model::World;

use crate::config::{Config, ObserveMode, PeerClasses};
use crate::engine::handle::Handle;
use crate::kernel::features::Feature;
use crate::kernel::tcp::{PeerPrefix, TcpProgramConfig};
use crate::observe::event::EventHub;
use crate::observe::identity::Identities;
use crate::observe::observers::Observers;
use crate::observe::tcp::{self, TcpObserver};

/// Of the table of peers; pods, the node, ranges and what the operator gives have the rest.
const ROOM_FOR_SERVICES: usize = MAX_PEER_PREFIXES as usize / 2;
/// The feature's name, as GetNode and the metrics say it.
const FEATURE: &str = "tcp_tracepoints";

/// Begins to observe unless told never to, and says how that went; a machine that can't do it does without.
pub(super) fn start(
    config: &Config,
    identities: Identities,
    hub: &EventHub,
) -> (Option<TcpObserver>, Option<Feature>) {
    if config.tcp == ObserveMode::Never {
        return (None, None);
    }
    let programs = TcpProgramConfig {
        connections: config.tcp_connections,
        ..tcp::DEFAULTS
    };
    match tcp::start(identities, hub.clone(), &programs) {
        Ok(observer) => {
            if config.tcp == ObserveMode::Active {
                set_attached(&observer, false);
            }
            (
                Some(observer),
                Some(feature(Ok("TCP connections can be observed".to_owned()))),
            )
        }
        Err(error) => {
            tracing::warn!(%error, "TCP connections are not observed");
            (None, Some(feature(Err(error.to_string()))))
        }
    }
}

fn feature(found: Result<String, String>) -> Feature {
    let consequence =
        "TCP connections of pods are not observed: no round-trip times, retransmits, resets and flows";
    Feature::new(FEATURE, found, consequence)
}

/// Keeps the observer informed of whose addresses are whose; ends with the engine.
pub(super) async fn follow_world(engine: Handle, observers: Arc<Observers>, classes: PeerClasses) {
    let mut snapshots = engine.watch();
    let mut last = Peers::default();
    loop {
        let peers = peers(&snapshots.borrow_and_update().world, &classes);
        if peers != last
            && let Some(observer) = &observers.tcp
        {
            match observer.set_peers(peers.known.iter().copied(), peers.left_out) {
                Ok(()) => last = peers,
                Err(error) => tracing::warn!(%error, "the TCP observer doesn't know all addresses"),
            }
        }
        if snapshots.changed().await.is_err() {
            return;
        }
    }
}

/// What the observer is told.
#[derive(Default, PartialEq)]
struct Peers {
    known: Vec<(PeerPrefix, u32)>,
    /// Addresses that its table has no room for.
    left_out: usize,
}

/// Whose address is whose. Single addresses are those that are known: pods' and the node's, and those of Services as long as
/// the cluster is asked for them. An address that a Service shares with a pod or the node is theirs, and what the table has no
/// room for stays what it is without a Service. Prefixes are those that the operator gives, and the ranges of Services that
/// the cluster tells.
fn peers(world: &World, classes: &PeerClasses) -> Peers {
    let pods = world.pods.values().filter(|pod| !pod.host_network);
    let pods = pods.flat_map(|pod| pod.addresses.iter().map(|&address| (address, PEER_POD)));
    let node = world.node_addresses.iter().map(|&address| (address, PEER_NODE));
    let services = world.cluster.services.values();
    let mut services: Vec<_> = services
        .flat_map(|service| service.addresses.iter().map(|&address| (address, PEER_SERVICE)))
        .collect();
    let left_out = services.len().saturating_sub(ROOM_FOR_SERVICES);
    services.truncate(ROOM_FOR_SERVICES);
    let addresses = services
        .into_iter()
        .chain(pods)
        .chain(node)
        // Loopback is loopback, also where it is the node's.
        .filter(|(address, _)| !address.is_loopback())
        .map(|(address, class): (IpAddr, u32)| (PeerPrefix::host(address), class));
    let ranges = world.cluster.service_ranges.iter();
    let ranges = ranges.map(|&range| (range, PEER_SERVICE));
    let given = classes.iter().map(|(&prefix, &class)| (prefix, class));
    // What is said last holds.
    let prefixes = ranges
        .chain(given)
        .map(|(net, class): (IpNet, u32)| (PeerPrefix::new(net.addr(), net.prefix_len()), class));
    Peers {
        known: prefixes.chain(addresses).collect(),
        left_out,
    }
}

pub(super) fn set_attached(observer: &TcpObserver, wanted: bool) {
    match observer.set_attached(wanted) {
        Ok(()) => tracing::debug!(observing = wanted, "TCP"),
        Err(error) => {
            tracing::warn!(%error, observing = wanted, "the TCP observer could not be changed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;

    use sabot_abi::PEER_PUBLIC;
    use sabot_core::model::{ObjectName, Service};

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn host(text: &str) -> PeerPrefix {
        PeerPrefix::host(address(text))
    }

    /// As the kernel's table keeps them.
    fn classes(world: &World, given: &[(&str, u32)]) -> BTreeMap<PeerPrefix, u32> {
        let given = given.iter();
        let given = given.map(|&(prefix, class)| (prefix.parse().expect("a prefix"), class));
        peers(world, &given.collect()).known.into_iter().collect()
    }

    fn service(addresses: &[&str]) -> Arc<Service> {
        Arc::new(Service {
            addresses: addresses.iter().map(|text| address(text)).collect(),
            ..Service::default()
        })
    }

    #[test]
    fn what_there_is_no_room_for_is_known_to_be_left_out() {
        let mut world = World {
            node_addresses: [address("192.0.2.1")].into(),
            ..World::default()
        };
        for number in 0..=ROOM_FOR_SERVICES {
            let name = ObjectName {
                namespace: "shop".into(),
                name: format!("service-{number}"),
            };
            let ip = Ipv4Addr::from(0x0a60_0000 + number as u32);
            world
                .cluster
                .services
                .insert_mut(name, service(&[&ip.to_string()]));
        }
        let Peers { known, left_out } = peers(&world, &PeerClasses::default());
        assert_eq!((known.len(), left_out), (ROOM_FOR_SERVICES + 1, 1));
        assert!(known.contains(&(host("192.0.2.1"), PEER_NODE)));
    }

    #[test]
    fn services_are_a_class_of_their_own_unless_the_address_is_somebodys() {
        let name = ObjectName {
            namespace: "shop".into(),
            name: "payments".into(),
        };
        let mut world = World {
            node_addresses: [address("192.0.2.1"), address("127.0.0.1")].into(),
            ..World::default()
        };
        let service = service(&["10.96.0.10", "192.0.2.1"]);
        world.cluster.services.insert_mut(name.clone(), service);
        let expected = [(host("10.96.0.10"), PEER_SERVICE), (host("192.0.2.1"), PEER_NODE)];
        assert_eq!(classes(&world, &[]), expected.into());
        // Nobody asks the cluster for it any more.
        world.cluster.services.remove_mut(&name);
        assert_eq!(classes(&world, &[]), [(host("192.0.2.1"), PEER_NODE)].into());
    }

    #[test]
    fn what_is_known_goes_before_what_is_given_and_that_before_what_the_cluster_tells() {
        let prefix = |text: &str, length| PeerPrefix::new(address(text), length);
        let mut world = World {
            node_addresses: [address("10.0.0.1")].into(),
            ..World::default()
        };
        let ranges = ["10.96.0.0/12", "fd00:96::/112"];
        world.cluster.service_ranges =
            Arc::new(ranges.map(|text| text.parse::<IpNet>().expect("a prefix")).into());
        let told = [
            (host("10.0.0.1"), PEER_NODE),
            (prefix("10.96.0.0", 12), PEER_SERVICE),
            (prefix("fd00:96::", 112), PEER_SERVICE),
        ];
        assert_eq!(classes(&world, &[]), told.into());
        // The same prefix, a single address that is known, and another one that isn't.
        let given = [
            ("10.96.0.0/12", PEER_PUBLIC),
            ("10.0.0.1/32", PEER_POD),
            ("10.0.0.2/32", PEER_POD),
        ];
        let expected = [
            (host("10.0.0.1"), PEER_NODE),
            (host("10.0.0.2"), PEER_POD),
            (prefix("10.96.0.0", 12), PEER_PUBLIC),
            (prefix("fd00:96::", 112), PEER_SERVICE),
        ];
        assert_eq!(classes(&world, &given), expected.into());
    }
}

//! The TCP observer, as the operator wants it.

use std::net::IpAddr;
use std::sync::Arc;

use sabot_abi::{MAX_PEER_PREFIXES, PEER_NODE, PEER_POD, PEER_SERVICE};
use sabot_core::model::World;

use crate::config::{Config, ObserveMode};
use crate::engine::handle::Handle;
use crate::kernel::features::Feature;
use crate::kernel::tcp::{PeerPrefix, TcpProgramConfig};
use crate::observe::event::EventHub;
use crate::observe::identity::Identities;
use crate::observe::observers::Observers;
use crate::observe::tcp::{self, TcpObserver};

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
pub(super) async fn follow_world(engine: Handle, observers: Arc<Observers>) {
    let mut snapshots = engine.watch();
    let mut last = Vec::new();
    loop {
        let peers = peers(&snapshots.borrow_and_update().world);
        if peers != last
            && let Some(observer) = &observers.tcp
        {
            match observer.set_peers(peers.iter().copied()) {
                Ok(()) => last = peers,
                Err(error) => tracing::warn!(%error, "the TCP observer doesn't know all addresses"),
            }
        }
        if snapshots.changed().await.is_err() {
            return;
        }
    }
}

/// Whose address is whose: pods' and the node's, and those of Services as long as the cluster is asked for them. An address
/// that a Service shares with a pod or the node is theirs, and what the table has no room for stays what it is without a
/// Service.
fn peers(world: &World) -> Vec<(PeerPrefix, u32)> {
    const ROOM: usize = MAX_PEER_PREFIXES as usize / 2;
    let pods = world.pods.values().filter(|pod| !pod.host_network);
    let pods = pods.flat_map(|pod| pod.addresses.iter().map(|&address| (address, PEER_POD)));
    let node = world.node_addresses.iter().map(|&address| (address, PEER_NODE));
    let services = world.cluster.services.values();
    let services = services.flat_map(|service| service.addresses.iter());
    // What is said last holds.
    services
        .map(|&address| (address, PEER_SERVICE))
        .take(ROOM)
        .chain(pods)
        .chain(node)
        // Loopback is loopback, also where it is the node's.
        .filter(|(address, _)| !address.is_loopback())
        .map(|(address, class): (IpAddr, u32)| (PeerPrefix::host(address), class))
        .collect()
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

    use sabot_core::model::{ObjectName, Service};

    use super::*;

    #[test]
    fn services_are_a_class_of_their_own_unless_the_address_is_somebodys() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let service = Service {
            addresses: ["10.96.0.10", "192.0.2.1"].map(address).into(),
            ports: Vec::new(),
            publishes_not_ready: false,
            endpoints: Vec::new(),
        };
        let name = ObjectName {
            namespace: "shop".into(),
            name: "payments".into(),
        };
        let mut world = World {
            node_addresses: [address("192.0.2.1"), address("127.0.0.1")].into(),
            ..World::default()
        };
        world.cluster.services.insert_mut(name.clone(), Arc::new(service));
        // As the kernel's table keeps them.
        let classes = |world: &World| peers(world).into_iter().collect::<BTreeMap<_, _>>();
        let host = |text| PeerPrefix::host(address(text));
        let expected = [(host("10.96.0.10"), PEER_SERVICE), (host("192.0.2.1"), PEER_NODE)];
        assert_eq!(classes(&world), expected.into());
        // Nobody asks the cluster for it any more.
        world.cluster.services.remove_mut(&name);
        assert_eq!(classes(&world), [(host("192.0.2.1"), PEER_NODE)].into());
    }
}

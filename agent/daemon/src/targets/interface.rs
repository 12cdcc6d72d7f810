//! The node's own devices and addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use sabot_core::model::TargetDevice;

use super::netns::{InspectError, inspect, own_netns, target_device};
use crate::kernel::nsfs::OWN_NETNS;
use crate::kernel::rtnl::{Link, Rtnl};

/// Devices that carry the addresses of services, not of the node: kube-proxy's in IPVS mode, and the node-local DNS
/// cache's. To spare them would be to spare the services.
const SERVICE_DEVICES: [&str; 2] = ["kube-ipvs0", "nodelocaldns"];

/// What the node's own namespace has to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NodeNetwork {
    pub(super) addresses: BTreeSet<IpAddr>,
    /// Those asked for, or why one isn't there.
    pub(super) interfaces: BTreeMap<String, Result<TargetDevice, String>>,
    /// Those with a default route, where they were asked for.
    pub(super) devices: Vec<TargetDevice>,
}

/// Reads the node's addresses, those of its devices that `wanted` names, and, if wanted, those with a default route.
pub(super) fn read(wanted: &BTreeSet<String>, wants_devices: bool) -> Result<NodeNetwork, InspectError> {
    let mut rtnl = Rtnl::open()?;
    let mut interfaces = BTreeMap::new();
    for name in wanted {
        let device = match rtnl.link(name) {
            Ok(Some(link)) => Ok(own_device(&link)),
            Ok(None) => Err(format!("the node has no device named `{name}`")),
            Err(e) => Err(e.to_string()),
        };
        interfaces.insert(name.clone(), device);
    }
    let devices = if wants_devices {
        let inspection = inspect(Path::new(OWN_NETNS))?;
        let uplinks = inspection.devices.iter().filter(|device| device.default_route);
        uplinks.map(|device| own_device(&device.link)).collect()
    } else {
        Vec::new()
    };
    Ok(NodeNetwork {
        addresses: node_addresses(&mut rtnl)?,
        interfaces,
        devices,
    })
}

fn own_device(link: &Link) -> TargetDevice {
    target_device(link, own_netns(), Path::new(OWN_NETNS), "interface")
}

/// Every address that the node can send from: those of its uplinks and of its bridges towards the pods alike.
fn node_addresses(rtnl: &mut Rtnl) -> Result<BTreeSet<IpAddr>, InspectError> {
    let mut services = Vec::new();
    for name in SERVICE_DEVICES {
        services.extend(rtnl.link(name)?.map(|link| link.ifindex));
    }
    Ok(rtnl
        .addresses()?
        .into_iter()
        .filter(|a| !a.address.is_loopback() && !services.contains(&a.ifindex))
        .map(|a| a.address)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::test_netns::TestNetns;

    #[test]
    fn devices_and_addresses_of_the_node() {
        let node = TestNetns::new();
        node.ip("link set lo up");
        node.ip("link add eth0 type veth peer name far0");
        node.ip("address add 192.0.2.1/24 dev eth0");
        node.ip("address add 198.51.100.7/32 dev lo");
        node.ip("link add kube-ipvs0 type veth peer name far1");
        node.ip("address add 10.96.0.1/32 dev kube-ipvs0");
        node.ip("address add 2001:db8::1/64 dev eth0 nodad");
        let wanted = ["eth0", "missing0"].map(String::from).into();

        let network = node.run(move || read(&wanted, false)).unwrap();

        assert_eq!(network.devices, []);
        let expected = ["192.0.2.1", "198.51.100.7", "2001:db8::1"].map(|a| a.parse().unwrap());
        assert_eq!(network.addresses, BTreeSet::from(expected));
        let eth0 = network.interfaces["eth0"].as_ref().unwrap();
        assert_eq!(eth0.key.device, "eth0");
        assert!(eth0.mac_header && eth0.node_device);
        assert_eq!(
            network.interfaces["missing0"],
            Err("the node has no device named `missing0`".into())
        );
    }

    #[test]
    fn a_name_that_no_device_can_have_spoils_nothing() {
        let node = TestNetns::new();
        let wanted = ["lo", "a-name-longer-than-any"].map(String::from).into();

        let network = node.run(move || read(&wanted, false)).unwrap();

        assert!(network.interfaces["lo"].is_ok());
        assert!(network.interfaces["a-name-longer-than-any"].is_err());
    }
}

//! The devices of a network namespace, and those among them that a fault means.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::OnceLock;

use sabot_core::model::{NetnsId, TargetDevice, TargetIdentity, TargetKey};

use crate::kernel::netns::{NetnsError, run_in};
use crate::kernel::nsfs::{NetnsFile, NsfsError, OWN_NETNS, netns_id};
use crate::kernel::rtnl::{Link, Rtnl, RtnlError};

/// Devices that Sabot itself puts into a namespace begin with this.
pub const OWN_DEVICE_PREFIX: &str = "sabot";

#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    #[error(transparent)]
    Open(#[from] NsfsError),
    #[error(transparent)]
    Enter(#[from] NetnsError),
    #[error(transparent)]
    Read(#[from] RtnlError),
}

/// What stands in a network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    pub id: NetnsId,
    /// Every device, Sabot's own included.
    pub devices: Vec<DeviceInfo>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    pub link: Link,
    /// A default route of either family leads to it.
    pub default_route: bool,
}

impl Inspection {
    /// The devices that a fault means: those with a default route, or, where none has one, every device but loopback.
    pub fn meant(&self) -> impl Iterator<Item = &Link> {
        let usable =
            |device: &&DeviceInfo| !device.link.loopback && !device.link.name.starts_with(OWN_DEVICE_PREFIX);
        let routed = self.devices.iter().filter(usable).any(|d| d.default_route);
        self.devices
            .iter()
            .filter(usable)
            .filter(move |d| d.default_route || !routed)
            .map(|d| &d.link)
    }
}

/// Reads the devices of the namespace at `path`. Blocks for a fraction of a millisecond.
pub fn inspect(path: &Path) -> Result<Inspection, InspectError> {
    let netns = NetnsFile::open(path)?;
    let id = netns.id()?;
    // A netlink socket stays in the namespace where it was opened, so that only the opening needs the visit.
    let mut rtnl = if id == own_netns() {
        Rtnl::open()?
    } else {
        run_in(netns.as_fd(), Rtnl::open)??
    };
    let links = rtnl.links()?;
    let routed = rtnl.default_route_links()?;
    Ok(Inspection {
        id,
        devices: links
            .into_iter()
            .map(|link| DeviceInfo {
                default_route: routed.contains(&link.ifindex),
                link,
            })
            .collect(),
    })
}

/// The devices that a fault on the namespace at `path` means, as the engine attaches to them.
pub fn target_devices(path: &Path) -> Result<Vec<TargetDevice>, InspectError> {
    let inspection = inspect(path)?;
    Ok(inspection
        .meant()
        .map(|link| target_device(link, inspection.id, path, &format!("netns:{}", path.display())))
        .collect())
}

/// `owner` names the pod or the namespace, and with the device gives the target's identity.
pub(super) fn target_device(link: &Link, netns: NetnsId, path: &Path, owner: &str) -> TargetDevice {
    TargetDevice {
        key: TargetKey {
            netns,
            device: link.name.clone(),
            ifindex: link.ifindex,
        },
        netns_path: path.to_owned(),
        mac_header: link.mac_header,
        node_device: netns == own_netns(),
        identity: TargetIdentity::of(&format!("{owner}/{}", link.name)),
    }
}

/// The namespace that the daemon runs in.
///
/// # Panics
/// If `/proc` is not mounted, without which nothing here works.
pub fn own_netns() -> NetnsId {
    static OWN: OnceLock<NetnsId> = OnceLock::new();
    *OWN.get_or_init(|| netns_id(Path::new(OWN_NETNS)).expect("/proc is mounted"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::test_netns::TestNetns;

    fn meant(netns: &TestNetns) -> Vec<String> {
        let inspection = inspect(netns.path()).unwrap();
        inspection.meant().map(|link| link.name.clone()).collect()
    }

    /// Three pairs, each with its first end up, and Sabot's own device.
    fn netns_with_devices() -> TestNetns {
        let netns = TestNetns::new();
        netns.ip("link set lo up");
        for (near, far) in [("eth0", "far0"), ("net1", "far1"), ("sabot0", "sabot1")] {
            netns.ip(&format!("link add {near} type veth peer name {far}"));
            netns.ip(&format!("link set {near} up"));
            netns.ip(&format!("link set {far} up"));
        }
        netns
    }

    #[test]
    fn without_a_default_route_every_device_but_loopback_and_ours() {
        let netns = netns_with_devices();
        let mut names = meant(&netns);
        names.sort();
        assert_eq!(names, ["eth0", "far0", "far1", "net1"]);
    }

    #[test]
    fn a_default_route_of_either_family_decides() {
        let netns = netns_with_devices();
        netns.ip("address add 192.0.2.2/24 dev eth0");
        netns.ip("route add default via 192.0.2.1");
        assert_eq!(meant(&netns), ["eth0"]);

        netns.ip("address add 2001:db8::2/64 dev net1 nodad");
        netns.ip("-6 route add default via 2001:db8::1 dev net1");
        let mut names = meant(&netns);
        names.sort();
        assert_eq!(names, ["eth0", "net1"]);

        netns.ip("route del default");
        assert_eq!(meant(&netns), ["net1"]);
    }

    #[test]
    fn a_multipath_default_route_means_all_its_devices() {
        let netns = netns_with_devices();
        netns.ip("address add 192.0.2.2/24 dev eth0");
        netns.ip("address add 198.51.100.2/24 dev net1");
        netns.ip("route add default nexthop via 192.0.2.1 dev eth0 nexthop via 198.51.100.1 dev net1");
        let mut names = meant(&netns);
        names.sort();
        assert_eq!(names, ["eth0", "net1"]);
    }

    #[test]
    fn routes_of_other_tables_and_unreachable_ones_do_not_count() {
        let netns = netns_with_devices();
        netns.ip("address add 192.0.2.2/24 dev eth0");
        netns.ip("route add default via 192.0.2.1 table 100");
        netns.ip("route add unreachable default metric 4278198272");
        assert_eq!(meant(&netns).len(), 4);
    }

    #[test]
    fn a_device_is_described_as_the_kernel_has_it() {
        let netns = TestNetns::new();
        netns.ip("link add eth0 type veth peer name far0");
        netns.ip("link set eth0 up");
        let inspection = inspect(netns.path()).unwrap();
        let find = |name| inspection.devices.iter().find(|d| d.link.name == name).unwrap();
        let (eth0, far0, lo) = (&find("eth0").link, &find("far0").link, &find("lo").link);
        assert!(eth0.up && eth0.mac_header && !eth0.loopback);
        assert!(!far0.up);
        assert!(lo.loopback && !lo.mac_header);
        assert_eq!(
            eth0.ifindex.to_string(),
            netns.ip_output("-o link show eth0").split(':').next().unwrap()
        );

        let devices = target_devices(netns.path()).unwrap();
        assert!(
            devices
                .iter()
                .all(|d| !d.node_device && d.key.netns == inspection.id)
        );
        assert_ne!(inspection.id, own_netns());
    }

    #[test]
    fn the_daemons_own_namespace_is_the_nodes() {
        let devices = target_devices(Path::new(OWN_NETNS)).unwrap();
        assert!(devices.iter().all(|d| d.node_device));
    }

    #[test]
    fn many_devices_need_several_datagrams() {
        let netns = TestNetns::new();
        for i in 0..60 {
            netns.ip(&format!("link add a{i} type veth peer name b{i}"));
        }
        assert_eq!(inspect(netns.path()).unwrap().devices.len(), 121);
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let error = inspect(Path::new("/run/netns/missing")).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot open /run/netns/missing: No such file"),
            "{error}"
        );
    }
}

//! What the kernel's rules spare of the node: its own addresses, and the connections that keep it reachable.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sabot_core::model::{BootTime, ObjectName, Service, World};
use tokio::sync::watch;

use super::datapath::{Datapath, DatapathError};

const RETRY: Duration = Duration::from_secs(1);
const TCP: u8 = 6;

/// What the connections are known by that faults on the node's own devices leave alone.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    /// TCP ports on the node's addresses.
    pub ports: BTreeSet<u16>,
    /// Where the API server is reached, as far as this machine says.
    pub servers: watch::Receiver<BTreeSet<SocketAddr>>,
}

impl ControlPlane {
    /// The Service that stands for the API server in every cluster.
    pub fn service() -> ObjectName {
        ObjectName {
            namespace: "default".to_owned(),
            name: "kubernetes".to_owned(),
        }
    }

    /// The ends of its connections, as the world is.
    pub(super) fn ends(&self, world: &World) -> BTreeSet<SocketAddr> {
        let own = world
            .node_addresses
            .iter()
            .flat_map(|&address| self.ports.iter().map(move |&port| SocketAddr::new(address, port)));
        let service = world.cluster.services.get(&Self::service());
        own.chain(self.servers.borrow().iter().copied())
            .chain(service.into_iter().flat_map(|service| service_ends(service)))
            .collect()
    }
}

/// Where a Service is reached, and its endpoints.
fn service_ends(service: &Service) -> impl Iterator<Item = SocketAddr> {
    let ports = || service.ports.iter().filter(|port| port.protocol == TCP);
    let virtual_ends = service
        .addresses
        .iter()
        .flat_map(move |&address| ports().map(move |port| SocketAddr::new(address, port.port)));
    let backends = service.endpoints.iter().flat_map(|endpoint| {
        let ports = || {
            let tcp = endpoint.ports.iter().filter(|port| port.protocol == TCP);
            tcp.filter_map(|port| port.port)
        };
        endpoint
            .addresses
            .iter()
            .flat_map(move |&address| ports().map(move |port| SocketAddr::new(address, port)))
    });
    virtual_ends.chain(backends)
}

/// What was written of it.
#[derive(Debug, Default)]
pub(super) struct NodeTables {
    addresses: Written<BTreeSet<IpAddr>>,
    control: Written<BTreeSet<SocketAddr>>,
}

impl NodeTables {
    /// Writes what differs from what the kernel has; a failure is tried again after a second.
    pub(super) fn write(
        &mut self,
        datapath: &dyn Datapath,
        addresses: &BTreeSet<IpAddr>,
        control: BTreeSet<SocketAddr>,
        now: BootTime,
    ) {
        let result = self
            .addresses
            .write(addresses, now, |new| datapath.set_node_addresses(new));
        if let Err(error) = result {
            tracing::warn!(%error, "cannot tell the kernel the node's addresses");
        }
        let result = self
            .control
            .write(&control, now, |new| datapath.set_control_plane(new));
        if let Err(error) = result {
            tracing::warn!(%error, "cannot tell the kernel where the node's control plane is");
        }
    }

    pub(super) fn retry_at(&self) -> Option<BootTime> {
        let both = [self.addresses.retry_at, self.control.retry_at];
        both.into_iter().flatten().min()
    }
}

#[derive(Debug)]
struct Written<T> {
    /// `None` until it was written once.
    value: Option<T>,
    retry_at: Option<BootTime>,
}

impl<T> Default for Written<T> {
    fn default() -> Self {
        Self {
            value: None,
            retry_at: None,
        }
    }
}

impl<T: PartialEq + Clone> Written<T> {
    fn write(
        &mut self,
        wanted: &T,
        now: BootTime,
        write: impl FnOnce(&T) -> Result<(), DatapathError>,
    ) -> Result<(), DatapathError> {
        if self.value.as_ref() == Some(wanted) || self.retry_at.is_some_and(|at| now < at) {
            return Ok(());
        }
        let result = write(wanted);
        match &result {
            Ok(()) => {
                self.value = Some(wanted.clone());
                self.retry_at = None;
            }
            Err(_) => self.retry_at = Some(now.after(RETRY)),
        }
        result
    }
}

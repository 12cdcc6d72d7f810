//! Entries that are limited to ports of an address.
//!
//! They stand in a map of their own. The address's own entry says that there are some, beside what it says of
//! the whole address, or in the place of that.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use aya::Ebpf;
use aya::maps::{HashMap as KernelHash, MapData};
use ipnet::IpNet;
use sabot_abi as abi;
use sabot_core::plan::{PeerPort, PeerSetId};

use super::{Maps, NONE, TableError, is_full, mapped, on, place, take, unless_absent};

pub(super) struct Limited {
    map: KernelHash<MapData, abi::PeerPortKey, u32>,
    /// Addresses of which some ports are in a set.
    addresses: HashMap<(PeerSetId, IpAddr), Ports>,
}

struct Ports {
    /// What the set says of the whole address.
    whole: u32,
    known: HashSet<PeerPort>,
}

impl Limited {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, TableError> {
        Ok(Self {
            map: take(ebpf, "PORTS_OF_PEERS")?,
            addresses: HashMap::new(),
        })
    }

    /// What an address's entry says beside `whole`, which is what the set says of the whole address from now on.
    pub(super) fn beside(&mut self, set: PeerSetId, net: &IpNet, whole: u32) -> u32 {
        if self.addresses.is_empty() || !super::is_exact(net) {
            return NONE;
        }
        let ports = self.addresses.get_mut(&(set, net.addr()));
        ports.map_or(NONE, |ports| {
            ports.whole = whole;
            abi::PEER_PORTS
        })
    }

    /// The port comes before the entry that says that there is one.
    pub(super) fn add(
        &mut self,
        maps: &mut Maps,
        set: PeerSetId,
        net: &IpNet,
        only: PeerPort,
    ) -> Result<(), TableError> {
        let inserted = self.map.insert(key(set, net.addr(), only), 1, 0);
        inserted.map_err(|error| {
            if is_full(&error) {
                TableError::PeerPortsFull(abi::MAX_PEER_PORTS)
            } else {
                on("add a peer's port")(error)
            }
        })?;
        if let Some(ports) = self.addresses.get_mut(&(set, net.addr())) {
            ports.known.insert(only);
            return Ok(());
        }
        let whole = maps.get(&place(set, net, false))?;
        maps.insert_whole(set, net, whole | abi::PEER_PORTS)?;
        let known = HashSet::from([only]);
        self.addresses.insert((set, net.addr()), Ports { whole, known });
        Ok(())
    }

    /// One that isn't there is no error.
    pub(super) fn remove(
        &mut self,
        maps: &mut Maps,
        set: PeerSetId,
        net: &IpNet,
        only: PeerPort,
    ) -> Result<(), TableError> {
        let address = (set, net.addr());
        if let Some(ports) = self.addresses.get_mut(&address)
            && ports.known.contains(&only)
        {
            if ports.known.len() > 1 {
                ports.known.remove(&only);
            } else {
                match ports.whole {
                    NONE => maps.remove_whole(set, net)?,
                    whole => maps.insert_whole(set, net, whole)?,
                }
                self.addresses.remove(&address);
            }
        }
        unless_absent(self.map.remove(&key(set, net.addr(), only))).map_err(on("remove a peer's port"))
    }
}

fn key(set: PeerSetId, address: IpAddr, only: PeerPort) -> abi::PeerPortKey {
    abi::PeerPortKey::new(set.0, only.protocol, only.port.unwrap_or(0), mapped(address))
}

//! Loads the `tcp` object and reads and writes its maps.

mod layout;
mod tables;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use aya::maps::{HashMap, MapData, PerCpuArray, RingBuf};
use aya::programs::RawTracePoint;
use aya::programs::raw_trace_point::RawTracePointLinkId;
use aya::{Ebpf, EbpfLoader};
use sabot_abi::{OwnerKey, PEER_PUBLIC, TCP_LOSS_COUNT, TcpFirsts, TcpSocket, TcpStats};

use self::tables::Tables;
use super::object::{Named, ObjectError, require_cookies};
use super::verified;

const TCP: Named = Named("tcp");

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tcp"));

/// What the observer can't do without. The end of sockets comes first, so that none is kept that has gone.
const PROGRAMS: [&str; 7] = [
    "tcp_destroy_sock",
    "inet_sock_set_state",
    "tcp_send_reset",
    "tcp_receive_reset",
    "tcp_retransmit_synack",
    "tcp_probe",
    "tcp_cong_state_set",
];
/// Since 5.19; without it a timer that ran out is seen when the segment is sent again.
const OPTIONAL: &str = "tcp_cong_state_set";
/// The tracepoint of retransmissions, and its programs: the first one needs an argument that it has since 6.17.
const RETRANSMIT: &str = "tcp_retransmit_skb";
const RETRANSMIT_PROGRAMS: [&str; 2] = ["tcp_retransmit_skb_result", "tcp_retransmit_skb"];

/// Addresses that stand for one class of peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerPrefix {
    address: [u8; 16],
    /// Of the IPv6 address, or of the IPv4-mapped one.
    length: u32,
}

impl PeerPrefix {
    /// `length` is the address family's own: 0 to 32, or to 128.
    pub fn new(address: IpAddr, length: u8) -> Self {
        let (address, offset) = match address {
            IpAddr::V4(address) => (address.to_ipv6_mapped(), 96),
            IpAddr::V6(address) => (address, 0),
        };
        Self {
            address: address.octets(),
            length: offset + u32::from(length),
        }
    }

    /// Whether the address is one of them.
    pub fn holds(&self, address: [u8; 16]) -> bool {
        let differing = u128::from_be_bytes(self.address) ^ u128::from_be_bytes(address);
        differing.leading_zeros() >= self.length
    }

    /// One address.
    pub fn host(address: IpAddr) -> Self {
        Self {
            address: octets(address),
            length: 128,
        }
    }
}

/// The class of an address, `PEER_*`, as the programs find it: the longest prefix decides.
pub fn class_of(peers: &[(PeerPrefix, u32)], address: [u8; 16]) -> u32 {
    let holding = peers.iter().filter(|(prefix, _)| prefix.holds(address));
    let longest = holding.max_by_key(|(prefix, _)| prefix.length);
    longest.map_or(PEER_PUBLIC, |(_, class)| *class)
}

/// An address as the programs have it.
pub fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// The other way round.
pub fn address(octets: [u8; 16]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()
}

/// What the programs are told before they are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpProgramConfig {
    /// The size of the ring of events: a power of two, at least a page.
    pub ring_bytes: u32,
    /// Connections that are followed at once, of the whole machine.
    pub connections: u32,
}

/// The programs, until this is dropped.
pub struct TcpPrograms {
    losses: PerCpuArray<MapData, u64>,
    changing: Mutex<Changing>,
}

/// What is written after the start.
struct Changing {
    tables: Tables,
    sockets: HashMap<MapData, u64, TcpSocket>,
    object: Ebpf,
    links: Vec<(&'static str, RawTracePointLinkId)>,
}

impl TcpPrograms {
    /// Loads the programs, which are not yet attached; returns them and the ring of [`sabot_abi::TcpEvent`].
    ///
    /// # Errors
    ///
    /// When this kernel doesn't describe its sockets, or refuses the object (no privilege, no raw tracepoints).
    pub fn load(config: &TcpProgramConfig) -> Result<(Self, RingBuf<MapData>), ObjectError> {
        require_cookies()?;
        let needed = PROGRAMS.into_iter().filter(|name| *name != OPTIONAL);
        let offsets = layout::offsets(needed.chain([RETRANSMIT]))?;
        let mut object = EbpfLoader::new()
            .override_global("OFFSETS", &offsets, true)
            .map_max_entries("EVENTS", config.ring_bytes)
            .map_max_entries("SOCKETS", config.connections)
            .load(OBJECT)
            .map_err(|source| TCP.load(source))?;
        let events = TCP.take(&mut object, "EVENTS")?;
        let programs = Self {
            losses: TCP.take(&mut object, "LOSSES")?,
            changing: Mutex::new(Changing {
                tables: Tables::take(&mut object)?,
                sockets: TCP.take(&mut object, "SOCKETS")?,
                object: load_all(object)?,
                links: Vec::new(),
            }),
        };
        Ok((programs, events))
    }

    /// Puts the programs on their tracepoints, or takes them off; what they have counted stays. Waits for the kernel for
    /// some milliseconds.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; some of the programs may have changed their state then.
    pub fn set_attached(&self, wanted: bool) -> Result<(), ObjectError> {
        let mut changing = self.changing();
        if wanted {
            changing.attach()
        } else {
            changing.detach()
        }
    }

    /// Whose what is from now on. The counters of an owner that is no longer among them go.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; the next call tries what is missing again.
    pub fn set_owners(&self, owners: impl IntoIterator<Item = (OwnerKey, u32)>) -> Result<(), ObjectError> {
        self.changing().tables.set_owners(owners.into_iter().collect())
    }

    /// What class, `PEER_*`, each prefix is of from now on; the longest one decides.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; the next call tries what is missing again.
    pub fn set_peers(&self, peers: impl IntoIterator<Item = (PeerPrefix, u32)>) -> Result<(), ObjectError> {
        self.changing().tables.set_peers(peers.into_iter().collect())
    }

    /// What was said last of them.
    pub fn peers(&self) -> Vec<(PeerPrefix, u32)> {
        self.changing().tables.peers()
    }

    /// An owner's counters, summed over the CPUs; `None` for an owner that there isn't.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read the map.
    pub fn stats(&self, owner: u32) -> Result<Option<TcpStats>, ObjectError> {
        self.changing().tables.stats(owner)
    }

    /// # Errors
    ///
    /// When the kernel refuses to read the map.
    pub fn firsts(&self, owner: u32) -> Result<Option<TcpFirsts>, ObjectError> {
        self.changing().tables.firsts(owner)
    }

    /// From now on the first of everything is looked for again.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to write the map.
    pub fn reset_firsts(&self, owner: u32) -> Result<(), ObjectError> {
        self.changing().tables.reset_firsts(owner)
    }

    /// The connections that are followed. One that ends meanwhile may be missing, or another one seen twice.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read the map.
    pub fn sockets(&self) -> Result<Vec<TcpSocket>, ObjectError> {
        let changing = self.changing();
        let sockets = changing
            .sockets
            .iter()
            .map(|entry| entry.map(|(_, socket)| socket));
        sockets.collect::<Result<_, _>>().map_err(TCP.map("SOCKETS"))
    }

    /// Entries in the tables of owners: by which they are known, of counters, of first times.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a map.
    pub fn entries(&self) -> Result<[usize; 3], ObjectError> {
        self.changing().tables.entries()
    }

    /// What could not be recorded so far, by `sabot_abi::TCP_LOSS_*`.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read the map.
    pub fn losses(&self) -> Result<[u64; TCP_LOSS_COUNT as usize], ObjectError> {
        TCP.sums(&self.losses, "LOSSES")
    }

    fn changing(&self) -> MutexGuard<'_, Changing> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Changing {
    fn attach(&mut self) -> Result<(), ObjectError> {
        if self.links.is_empty() {
            self.forget_sockets()?;
        }
        for name in PROGRAMS {
            match self.attach_one(name, name) {
                Err(error) if name == OPTIONAL => {
                    tracing::debug!(%error, "timers are seen by what they make go out again");
                }
                result => result?,
            }
        }
        let [with_result, without] = RETRANSMIT_PROGRAMS;
        if self.is_attached(without) {
            return Ok(());
        }
        match self.attach_one(with_result, RETRANSMIT) {
            Ok(()) => Ok(()),
            Err(_) => self.attach_one(without, RETRANSMIT),
        }
    }

    fn is_attached(&self, name: &str) -> bool {
        self.links.iter().any(|(known, _)| *known == name)
    }

    fn attach_one(&mut self, name: &'static str, tracepoint: &str) -> Result<(), ObjectError> {
        if self.is_attached(name) {
            return Ok(());
        }
        let link = TCP
            .get::<RawTracePoint>(&mut self.object, name)?
            .attach(tracepoint)
            .map_err(|source| TCP.program(name, source))?;
        self.links.push((name, link));
        Ok(())
    }

    fn detach(&mut self) -> Result<(), ObjectError> {
        while let Some((name, link)) = self.links.pop() {
            TCP.get::<RawTracePoint>(&mut self.object, name)?
                .detach(link)
                .map_err(|source| TCP.program(name, source))?;
        }
        Ok(())
    }

    /// Sockets may have gone while nobody looked, and others may have come in their places.
    fn forget_sockets(&mut self) -> Result<(), ObjectError> {
        let stale: Vec<u64> = self.sockets.keys().filter_map(Result::ok).collect();
        for socket in stale {
            TCP.removed("SOCKETS", self.sockets.remove(&socket))?;
        }
        Ok(())
    }
}

fn load_all(mut object: Ebpf) -> Result<Ebpf, ObjectError> {
    for name in PROGRAMS.into_iter().chain(RETRANSMIT_PROGRAMS) {
        let program: &mut RawTracePoint = TCP.get(&mut object, name)?;
        verified::load(name, program, RawTracePoint::load, RawTracePoint::info)
            .map_err(|source| TCP.program(name, source))?;
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    use sabot_abi::{PEER_NODE, PEER_POD, PEER_PRIVATE};

    use super::*;

    #[test]
    fn the_longest_prefix_that_holds_an_address_decides() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let peers = [
            (PeerPrefix::host(ip("10.1.2.3")), PEER_POD),
            (PeerPrefix::new(ip("10.0.0.0"), 8), PEER_PRIVATE),
            (PeerPrefix::host(ip("fd00::7")), PEER_NODE),
            (PeerPrefix::new(ip("fc00::"), 7), PEER_PRIVATE),
        ];
        for (address, class) in [
            ("10.1.2.3", PEER_POD),
            ("10.1.2.4", PEER_PRIVATE),
            ("11.1.2.3", PEER_PUBLIC),
            ("fd00::7", PEER_NODE),
            ("fd00::8", PEER_PRIVATE),
            ("2001:db8::1", PEER_PUBLIC),
        ] {
            assert_eq!(class_of(&peers, octets(ip(address))), class, "{address}");
        }
        assert_eq!(class_of(&[], octets(ip("10.1.2.3"))), PEER_PUBLIC);
    }
}

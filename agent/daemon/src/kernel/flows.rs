//! Loads the `flows` object and reads its maps.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use aya::maps::{HashMap as BpfHashMap, MapData, PerCpuArray};
use aya::programs::CgroupSkbAttachType;
use aya::{Ebpf, EbpfLoader};
use sabot_abi::{FlowCounts, FlowKey, OwnerKey};

use super::btf::Btf;
use super::object::{Named, ObjectError, OwnerTable, require_cookies};
use super::offsets;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/flows"));
const NAME: Named = Named("flows");
const PROGRAMS: [(&str, CgroupSkbAttachType); 2] = [
    ("udp_ingress", CgroupSkbAttachType::Ingress),
    ("udp_egress", CgroupSkbAttachType::Egress),
];
const FLOWS: &str = "FLOWS";
const NO_ROOM: &str = "NO_ROOM";
const UNRESOLVED: &str = "UNRESOLVED";

/// What was counted since the programs were attached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub flows: HashMap<FlowKey, FlowCounts>,
    /// Packets of flows that the table had no room for.
    pub no_room: u64,
    /// Packets in namespaces that nobody owns.
    pub unresolved: u64,
}

/// The programs, attached until this is dropped.
pub struct FlowPrograms {
    owners: Mutex<OwnerTable>,
    flows: BpfHashMap<MapData, FlowKey, FlowCounts>,
    no_room: PerCpuArray<MapData, u64>,
    unresolved: PerCpuArray<MapData, u64>,
    _object: Ebpf,
}

impl FlowPrograms {
    /// Loads and attaches the programs, with room for that many flows; that takes the kernel some ten milliseconds.
    ///
    /// # Errors
    ///
    /// When the kernel doesn't describe its types, there is no hierarchy of cgroups of version 2, or the kernel refuses the
    /// object.
    pub fn attach(room: u32, owners: &[(OwnerKey, u32)]) -> Result<Self, ObjectError> {
        require_cookies()?;
        let btf = Btf::kernel()?;
        let net = offsets::of_net(&btf)?;
        drop(btf);
        let mut object = EbpfLoader::new()
            .override_global("NET", &net, true)
            .map_max_entries(FLOWS, room)
            .load(OBJECT)
            .map_err(|source| NAME.load(source))?;
        let mut table = OwnerTable::take(NAME, &mut object)?;
        table.set(owners)?;
        let flows = NAME.take(&mut object, FLOWS)?;
        let no_room = NAME.take(&mut object, NO_ROOM)?;
        let unresolved = NAME.take(&mut object, UNRESOLVED)?;
        NAME.attach_to_sockets(&mut object, PROGRAMS)?;
        Ok(Self {
            owners: Mutex::new(table),
            flows,
            no_room,
            unresolved,
            _object: object,
        })
    }

    /// Says who owns what from now on; what was counted of those who don't any more stays.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn set_owners(&self, owners: &[(OwnerKey, u32)]) -> Result<(), ObjectError> {
        let mut table = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        table.set(owners)
    }

    /// # Errors
    ///
    /// When the kernel refuses to read a map.
    pub fn counted(&self) -> Result<Counted, ObjectError> {
        let flows = self.flows.iter().collect::<Result<_, _>>();
        let [no_room] = NAME.sums(&self.no_room, NO_ROOM)?;
        let [unresolved] = NAME.sums(&self.unresolved, UNRESOLVED)?;
        Ok(Counted {
            flows: flows.map_err(NAME.map(FLOWS))?,
            no_room,
            unresolved,
        })
    }
}

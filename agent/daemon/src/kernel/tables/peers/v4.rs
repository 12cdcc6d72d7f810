//! The table of IPv4 entries: buckets of words in memory that the programs read, too.
//!
//! An entry stands in its bucket, or beside it in a hash while that has no cell for it. It comes, changes and goes as one
//! word, so that a packet meanwhile finds it as it was or as it is.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU64, Ordering};

use aya::Ebpf;
use aya::maps::{HashMap as KernelHash, Map, MapData, MapError};
use memmap2::{MmapOptions, MmapRaw};
use sabot_abi as abi;

use super::{NONE, TableError, on, refused, take, unless_absent};

/// What the object calls the map of the buckets.
const BUCKETS: &str = "PEERS_V4";

pub(super) struct PeersV4 {
    buckets: Buckets,
    beside: KernelHash<MapData, abi::PeerKey4, u32>,
    /// How many entries each bucket has beside, of those that have some.
    displaced: HashMap<u32, u32>,
    /// In the buckets and beside.
    count: u32,
}

/// All cells, which the kernel keeps where they are for as long as they are mapped.
struct Buckets {
    cells: MmapRaw,
    #[expect(
        dead_code,
        reason = "programs that are loaded later refer to the map by its descriptor"
    )]
    map: MapData,
}

type Cells = [AtomicU64; abi::PEER_BUCKET_CELLS];
const _: () = assert!(size_of::<Cells>() == size_of::<abi::PeerBucket4>());

impl PeersV4 {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, TableError> {
        Ok(Self {
            buckets: Buckets::take(ebpf)?,
            beside: take(ebpf, "PEERS_V4_BESIDE")?,
            displaced: HashMap::new(),
            count: 0,
        })
    }

    /// [`NONE`] where there is none.
    pub(super) fn get(&self, key: abi::PeerKey4) -> Result<u32, TableError> {
        let bucket = key.bucket();
        if let Some(cell) = self.buckets.find(bucket, key) {
            return Ok(abi::peer_cell_value(cell.load(Ordering::Relaxed)));
        }
        if !self.displaced.contains_key(&bucket) {
            return Ok(NONE);
        }
        match self.beside.get(&key, 0) {
            Err(MapError::KeyNotFound) => Ok(NONE),
            other => other.map_err(on("read a peer")),
        }
    }

    /// Whether there was none before.
    pub(super) fn insert(&mut self, key: abi::PeerKey4, value: u32) -> Result<bool, TableError> {
        let bucket = key.bucket();
        if let Some(cell) = self.buckets.find(bucket, key) {
            write(cell, key.cell(value));
            return Ok(false);
        }
        let was_there = self.get(key)? != NONE;
        if !was_there && self.count == abi::MAX_PEERS {
            return Err(TableError::PeersFull(abi::MAX_PEERS));
        }
        match self.buckets.free(bucket) {
            Some(cell) if !was_there => write(cell, key.cell(value)),
            _ => self.insert_beside(bucket, key, value, was_there)?,
        }
        self.count += u32::from(!was_there);
        Ok(!was_there)
    }

    /// Whether there was one; that there was none is no error.
    pub(super) fn remove(&mut self, key: abi::PeerKey4) -> Result<bool, TableError> {
        let bucket = key.bucket();
        if let Some(cell) = self.buckets.find(bucket, key) {
            write(cell, 0);
        } else if self.get(key)? != NONE {
            self.remove_beside(bucket, key)?;
        } else {
            return Ok(false);
        }
        self.count -= 1;
        Ok(true)
    }

    /// A packet looks beside from when the entry is there.
    fn insert_beside(
        &mut self,
        bucket: u32,
        key: abi::PeerKey4,
        value: u32,
        was_there: bool,
    ) -> Result<(), TableError> {
        self.beside.insert(key, value, 0).map_err(refused)?;
        if !was_there {
            *self.displaced.entry(bucket).or_default() += 1;
            self.buckets.mark(bucket, abi::PEER_BUCKET_FULL);
        }
        Ok(())
    }

    fn remove_beside(&mut self, bucket: u32, key: abi::PeerKey4) -> Result<(), TableError> {
        unless_absent(self.beside.remove(&key)).map_err(on("remove a peer"))?;
        let left = self.displaced.get(&bucket).map_or(0, |count| count - 1);
        if left > 0 {
            self.displaced.insert(bucket, left);
        } else {
            self.displaced.remove(&bucket);
            self.buckets.mark(bucket, 0);
        }
        Ok(())
    }
}

impl Buckets {
    fn take(ebpf: &mut Ebpf) -> Result<Self, TableError> {
        let map = ebpf.take_map(BUCKETS).ok_or(TableError::Missing(BUCKETS))?;
        let Map::Array(map) = map else {
            return Err(TableError::Missing(BUCKETS));
        };
        let length = abi::PEER_BUCKETS as usize * size_of::<Cells>();
        let cells = MmapOptions::new()
            .len(length)
            .map_raw(map.fd().as_fd().as_raw_fd())
            .map_err(|source| on("map the peers into memory")(MapError::IoError(source)))?;
        Ok(Self { cells, map })
    }

    fn cells(&self, bucket: u32) -> &Cells {
        assert!(bucket < abi::PEER_BUCKETS, "a key's bucket is one of them");
        let first = self.cells.as_mut_ptr().cast::<Cells>();
        // SAFETY: so many buckets are mapped, from the beginning of a page on, for as long as `self` is there. All that
        // is done to a cell, here and in the programs, is to load or store it as one.
        unsafe { &*first.add(bucket as usize) }
    }

    fn find(&self, bucket: u32, key: abi::PeerKey4) -> Option<&AtomicU64> {
        let mut cells = self.cells(bucket).iter();
        cells.find(|cell| key.is_in(cell.load(Ordering::Relaxed)))
    }

    fn free(&self, bucket: u32) -> Option<&AtomicU64> {
        let mut cells = self.cells(bucket).iter();
        cells.find(|cell| cell.load(Ordering::Relaxed) & !abi::PEER_BUCKET_FULL == 0)
    }

    /// Whether entries are beside: [`abi::PEER_BUCKET_FULL`] or 0.
    fn mark(&self, bucket: u32, mark: u64) {
        let first = &self.cells(bucket)[0];
        let entry = first.load(Ordering::Relaxed) & !abi::PEER_BUCKET_FULL;
        first.store(entry | mark, Ordering::Release);
    }
}

/// Another entry, or none; the bucket's mark stays. Nobody else writes.
fn write(cell: &AtomicU64, entry: u64) {
    let mark = cell.load(Ordering::Relaxed) & abi::PEER_BUCKET_FULL;
    cell.store(entry | mark, Ordering::Release);
}

//! What stands in BPF maps, looked at from outside of the process that holds them.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

use aya_obj::generated::{BPF_F_MMAPABLE, bpf_attr, bpf_cmd, bpf_map_info, bpf_map_type};
use memmap2::MmapOptions;

use crate::bpf;

/// A map of anybody's.
#[derive(Debug)]
pub(crate) struct Map {
    fd: OwnedFd,
    info: bpf_map_info,
}

impl Map {
    /// `None` for one that is no more.
    ///
    /// # Errors
    ///
    /// The kernel refuses to open it.
    pub(crate) fn open(id: u32) -> io::Result<Option<Self>> {
        // SAFETY: an all-zero attribute is valid; only an integer is set.
        let mut attr = unsafe {
            let mut attr: bpf_attr = mem::zeroed();
            attr.__bindgen_anon_6.__bindgen_anon_1.map_id = id;
            attr
        };
        // SAFETY: the attribute points at nothing.
        let fd = match unsafe { bpf::open(bpf_cmd::BPF_MAP_GET_FD_BY_ID, &mut attr) } {
            Ok(fd) => fd,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        // SAFETY: all-zero bytes are a valid description, and a valid attribute, of which integers are set.
        let (mut info, mut attr): (bpf_map_info, bpf_attr) = unsafe { (mem::zeroed(), mem::zeroed()) };
        attr.info.bpf_fd = fd.as_raw_fd().cast_unsigned();
        attr.info.info_len = size_of::<bpf_map_info>() as u32;
        attr.info.info = &raw mut info as u64;
        // SAFETY: the kernel writes at most as many bytes as the description has, which outlives the call.
        unsafe { bpf::call(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
        Ok(Some(Self { fd, info }))
    }

    /// Of which the kernel keeps 15 bytes.
    pub(crate) fn name(&self) -> String {
        let name = self.info.name.map(|byte| byte as u8);
        let name = CStr::from_bytes_until_nul(&name).unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Whether entries come and go: an array has all of its own from the beginning, a ring has none.
    pub(crate) fn has_keys(&self) -> bool {
        const KEYED: [bpf_map_type; 7] = [
            bpf_map_type::BPF_MAP_TYPE_HASH,
            bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH,
            bpf_map_type::BPF_MAP_TYPE_LRU_HASH,
            bpf_map_type::BPF_MAP_TYPE_LRU_PERCPU_HASH,
            bpf_map_type::BPF_MAP_TYPE_LPM_TRIE,
            bpf_map_type::BPF_MAP_TYPE_HASH_OF_MAPS,
            bpf_map_type::BPF_MAP_TYPE_SOCKHASH,
        ];
        KEYED.iter().any(|kind| *kind as u32 == self.info.type_)
    }

    /// Whether its values can be mapped into memory, which makes it an array.
    pub(crate) fn is_mappable(&self) -> bool {
        self.info.map_flags & BPF_F_MMAPABLE != 0
    }

    /// All of its values, one after the other; only of a map that is mappable.
    ///
    /// # Errors
    ///
    /// The kernel refuses to map it.
    pub(crate) fn values(&self) -> io::Result<Vec<u8>> {
        let length = self.info.max_entries as usize * self.info.value_size.next_multiple_of(8) as usize;
        let mapped = MmapOptions::new()
            .len(length)
            .map_raw_read_only(self.fd.as_raw_fd())?;
        let mut values = vec![0; length];
        // SAFETY: so many bytes are mapped. Some may change meanwhile, for which any byte is a value.
        unsafe { ptr::copy_nonoverlapping(mapped.as_ptr(), values.as_mut_ptr(), length) };
        Ok(values)
    }

    /// An entry that comes or goes meanwhile may be among them or not.
    ///
    /// # Errors
    ///
    /// The kernel refuses to read it.
    pub(crate) fn keys(&self) -> io::Result<BTreeSet<Vec<u8>>> {
        let mut keys = BTreeSet::new();
        let mut last: Option<Vec<u8>> = None;
        // After a key that has gone the kernel begins anew: each is kept once.
        while let Some(key) = self.key_after(last.as_deref())? {
            keys.insert(key.clone());
            last = Some(key);
        }
        Ok(keys)
    }

    /// `None` for an entry that isn't there. Not for maps that have a value for each CPU.
    ///
    /// # Errors
    ///
    /// The kernel refuses to read it.
    pub(crate) fn value(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut value = vec![0; self.info.value_size as usize];
        let answer = self.element(bpf_cmd::BPF_MAP_LOOKUP_ELEM, Some(key), &mut value);
        found(answer).map(|found| found.then_some(value))
    }

    fn key_after(&self, last: Option<&[u8]>) -> io::Result<Option<Vec<u8>>> {
        let mut next = vec![0; self.info.key_size as usize];
        let answer = self.element(bpf_cmd::BPF_MAP_GET_NEXT_KEY, last, &mut next);
        found(answer).map(|found| found.then_some(next))
    }

    /// A command that reads something by a key, of the map's own length, into bytes of the length that the map says.
    fn element(&self, command: bpf_cmd, key: Option<&[u8]>, into: &mut [u8]) -> io::Result<()> {
        debug_assert!(key.is_none_or(|key| key.len() == self.info.key_size as usize));
        // SAFETY: an all-zero attribute is valid; integers are set, two of them addresses of what outlives the call.
        let mut attr = unsafe {
            let mut attr: bpf_attr = mem::zeroed();
            let element = &mut attr.__bindgen_anon_2;
            element.map_fd = self.fd.as_raw_fd().cast_unsigned();
            element.key = key.map_or(0, |key| key.as_ptr() as u64);
            element.__bindgen_anon_1.value = into.as_mut_ptr() as u64;
            attr
        };
        // SAFETY: both are as long as the kernel reads and writes them.
        unsafe { bpf::call(command, &mut attr) }.map(drop)
    }
}

fn found(answer: io::Result<()>) -> io::Result<bool> {
    match answer {
        Ok(()) => Ok(true),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_absent(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOENT)
}

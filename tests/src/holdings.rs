//! What a daemon holds of the machine: descriptors, threads, BPF objects, memory.

use std::fs;
use std::mem::offset_of;

use anyhow::{Context, Result};
use sabot_abi::Holding;

use crate::leaks::{Held, held_by, maps_of};
use crate::maps::Map;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holdings {
    pub descriptors: usize,
    pub threads: usize,
    pub bpf: Held,
    /// Bytes of kernel memory in its maps, as the kernel counts them.
    pub map_bytes: u64,
    /// Bytes of its own that are in memory now.
    pub rss: u64,
}

impl Holdings {
    /// # Errors
    ///
    /// There is no such process.
    pub fn of(pid: u32) -> Result<Self> {
        let count = |what| -> Result<usize> {
            let folder = format!("/proc/{pid}/{what}");
            let entries = fs::read_dir(&folder).with_context(|| format!("{folder} can't be listed"))?;
            Ok(entries.count())
        };
        let status = format!("/proc/{pid}/status");
        let status = fs::read_to_string(&status).with_context(|| format!("{status} can't be read"))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = rss.and_then(|text| text.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        Ok(Self {
            descriptors: count("fd")?,
            threads: count("task")?,
            bpf: held_by(pid)?,
            map_bytes: map_bytes(pid)?,
            rss: kib.with_context(|| format!("process {pid} has no memory"))? << 10,
        })
    }

    /// The kinds of things of which there must be as many as before; threads come and go in a pool.
    pub fn countable(self) -> (usize, Held) {
        (self.descriptors, self.bpf)
    }
}

fn map_bytes(pid: u32) -> Result<u64> {
    let folder = format!("/proc/{pid}/fdinfo");
    let mut bytes = 0;
    for entry in fs::read_dir(&folder).with_context(|| format!("{folder} can't be listed"))? {
        // A descriptor that was closed meanwhile holds nothing.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        if text.contains("map_id:") {
            let memory = text.lines().find_map(|line| line.strip_prefix("memlock:"));
            bytes += memory
                .and_then(|text| text.trim().parse::<u64>().ok())
                .unwrap_or(0);
        }
    }
    Ok(bytes)
}

/// How much before its time the departure queue lets a packet go, ns, for each target of which it has learned that.
///
/// # Errors
///
/// There is no such process, or the kernel refuses to read its map.
pub fn leads(pid: u32) -> Result<Vec<u64>> {
    let mut leads = Vec::new();
    for id in maps_of(pid)? {
        let map = Map::open(id).with_context(|| format!("map {id} can't be opened"))?;
        let Some(map) = map.filter(|map| map.name() == "HOLDING") else {
            continue;
        };
        for key in map.keys()? {
            let holding = map.value(&key)?.context("an array has all of its entries")?;
            let lead = holding.get(offset_of!(Holding, lead)..);
            let lead = lead.and_then(|bytes| bytes.first_chunk());
            leads.push(u64::from_ne_bytes(*lead.context("a holding has a lead")?));
        }
    }
    leads.retain(|lead| *lead != 0);
    Ok(leads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_maps_holds_none() {
        let held = Holdings::of(std::process::id()).expect("it runs");
        assert_eq!((held.bpf, held.map_bytes), (Held::default(), 0));
        assert!(held.descriptors >= 3 && held.threads >= 1 && held.rss > 1 << 20);
    }
}

//! What a daemon holds that pods which have gone could have left: descriptors, and entries of its maps.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::mem::offset_of;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sabot_abi::{DropKey, NO_OWNER, SyscallThread, TcpSocket, peer_cell_value};

use crate::leaks::maps_of;
use crate::maps::Map;
use crate::wait::wait_for;

const LOOK: Duration = Duration::from_millis(100);
/// Longer than anything that the daemon does now and then.
const REST: Duration = Duration::from_secs(3);
/// Descriptors of programs. The tiny ones that say whose packet it is are kept for the next targets: as many as there have
/// been at once, which is also a matter of how fast a machine is.
const PROGRAMS: &str = "anon_inode:bpf-prog";
const KEPT_PROGRAMS: usize = 24;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remains {
    /// By what they are of, as `socket`, `anon_inode:bpf-map` or a path.
    descriptors: BTreeMap<String, usize>,
    /// By the maps' names. Maps of one name count as one.
    entries: BTreeMap<String, usize>,
}

impl Remains {
    /// # Errors
    ///
    /// There is no such process, or the kernel refuses to read one of its maps.
    pub fn of(pid: u32) -> Result<Self> {
        let mut maps = Vec::new();
        for id in maps_of(pid)? {
            let opened = Map::open(id).with_context(|| format!("map {id} can't be opened"))?;
            maps.extend(opened.filter(|map| map.has_keys() || map.is_mappable()));
        }
        let living = living(&maps)?;
        let mut entries: BTreeMap<String, usize> = BTreeMap::new();
        for map in &maps {
            let name = map.name();
            let count = of_pods(map, &living).with_context(|| format!("map {name} can't be read"))?;
            *entries.entry(name).or_default() += count;
        }
        Ok(Self {
            descriptors: descriptors(pid)?,
            entries,
        })
    }

    /// Once that has stood still for a while; `None` if it doesn't within the time.
    ///
    /// # Errors
    ///
    /// As [`Remains::of`].
    pub fn at_rest(pid: u32, patience: Duration) -> Result<Option<Self>> {
        let mut last = Self::of(pid)?;
        let mut since = Instant::now();
        let rested = wait_for(patience, LOOK, || match Self::of(pid) {
            Ok(now) if now == last => (since.elapsed() >= REST).then_some(Ok(())),
            Ok(now) => {
                (last, since) = (now, Instant::now());
                None
            }
            Err(error) => Some(Err(error)),
        });
        rested.transpose().map(|rested| rested.map(|()| last))
    }

    /// How many entries the maps of this name have.
    pub fn entries(&self, map: &str) -> usize {
        self.entries.get(map).copied().unwrap_or_default()
    }

    /// Everything of which there is more than before, in words.
    pub fn beyond(&self, before: &Self) -> Vec<String> {
        let more = |kind: &str, now: &BTreeMap<String, usize>, then: &BTreeMap<String, usize>| {
            let pairs = now.iter().map(|(name, &now)| {
                let kept = if name == PROGRAMS { KEPT_PROGRAMS } else { 0 };
                (name, now, then.get(name).copied().unwrap_or_default() + kept)
            });
            let more = pairs.filter(|(_, now, then)| now > then);
            more.map(|(name, now, then)| format!("{now} {kind} {name} instead of {then}"))
                .collect::<Vec<_>>()
        };
        let mut beyond = more("descriptors of", &self.descriptors, &before.descriptors);
        beyond.extend(more("entries of", &self.entries, &before.entries));
        beyond
    }
}

fn descriptors(pid: u32) -> Result<BTreeMap<String, usize>> {
    let folder = format!("/proc/{pid}/fd");
    let mut kinds = BTreeMap::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("{folder} can't be listed"))? {
        // One that was closed meanwhile isn't held.
        let Ok(target) = fs::read_link(entry?.path()) else {
            continue;
        };
        *kinds
            .entry(kind(&target.to_string_lossy()).to_owned())
            .or_default() += 1;
    }
    Ok(kinds)
}

/// Without the number that each has its own of.
fn kind(target: &str) -> &str {
    match target.split_once(":[") {
        Some((kind, rest))
            if rest
                .trim_end_matches(']')
                .bytes()
                .all(|byte| byte.is_ascii_digit()) =>
        {
            kind
        }
        _ => target,
    }
}

/// The numbers of the owners that the observers' programs know.
fn living(maps: &[Map]) -> Result<BTreeSet<u32>> {
    let mut living = BTreeSet::new();
    for map in maps.iter().filter(|map| map.name() == "OWNERS") {
        for key in map.keys()? {
            living.extend(map.value(&key)?.and_then(|owner| word(&owner, 0)));
        }
    }
    Ok(living)
}

/// How many of a map's entries may be left of pods, by the owners that live.
fn of_pods(map: &Map, living: &BTreeSet<u32>) -> Result<usize> {
    if map.is_mappable() {
        return Ok(cells(&map.values()?));
    }
    let keys = map.keys()?;
    match map.name().as_str() {
        // By names of processes and numbers of calls and errors.
        "LATENCIES" | "ERRNOS" => Ok(0),
        // What lives meets reasons that it hasn't met before.
        "DROPS" => {
            let owners = keys.iter().map(|key| word(key, offset_of!(DropKey, owner)));
            let gone = owners.filter(|owner| owner.is_none_or(|owner| !living.contains(&owner)));
            Ok(gone.count())
        }
        // All connections of the machine; one that a pod had keeps its number, which no other pod gets. What lives may have
        // connections to what has gone without a word.
        "SOCKETS" => count(map, &keys, |socket| {
            let owner = word(socket, offset_of!(TcpSocket, owner));
            owner.is_none_or(|owner| owner != NO_OWNER && !living.contains(&owner))
        }),
        // Traced threads, among them those of the runtime; what has ended must have gone.
        "THREADS" => count(map, &keys, |thread| {
            let [pid, tid] = [offset_of!(SyscallThread, pid), offset_of!(SyscallThread, tid)]
                .map(|offset| word(thread, offset).unwrap_or_default());
            // Those of another pid namespace have no number in ours.
            pid != 0 && !Path::new(&format!("/proc/{pid}/task/{tid}")).exists()
        }),
        _ => Ok(keys.len()),
    }
}

/// Of the buckets of IPv4 peers, which are the only map that is mappable.
fn cells(buckets: &[u8]) -> usize {
    let (cells, _) = buckets.as_chunks();
    let values = cells
        .iter()
        .map(|cell| peer_cell_value(u64::from_ne_bytes(*cell)));
    values.filter(|value| *value != 0).count()
}

/// The entries whose value is as asked.
fn count(map: &Map, keys: &BTreeSet<Vec<u8>>, is_counted: impl Fn(&[u8]) -> bool) -> Result<usize> {
    let mut count = 0;
    for key in keys {
        // One that went meanwhile isn't there.
        if map.value(key)?.is_some_and(|value| is_counted(&value)) {
            count += 1;
        }
    }
    Ok(count)
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_descriptor_is_of_has_no_number() {
        assert_eq!(kind("socket:[4711]"), "socket");
        assert_eq!(kind("anon_inode:[eventfd]"), "anon_inode:[eventfd]");
        assert_eq!(kind("anon_inode:bpf-map"), "anon_inode:bpf-map");
        assert_eq!(kind("/run/netns/web"), "/run/netns/web");
    }

    #[test]
    fn only_what_there_is_more_of_is_told() {
        let remains = |sockets, owners| Remains {
            descriptors: [("socket".to_owned(), sockets), (PROGRAMS.to_owned(), owners)].into(),
            entries: [("OWNERS".to_owned(), owners)].into(),
        };
        assert_eq!(remains(3, 2).beyond(&remains(4, 2)), Vec::<String>::new());
        assert_eq!(
            remains(4, 3).beyond(&remains(3, 2)),
            [
                "4 descriptors of socket instead of 3",
                "3 entries of OWNERS instead of 2"
            ]
        );
        let programs = remains(3, 2 + KEPT_PROGRAMS + 1).beyond(&remains(3, 2));
        assert_eq!(programs.len(), 2, "{programs:?}");
    }
}

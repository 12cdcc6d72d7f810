//! What of Sabot's is left on the machine: programs, maps, links, devices and qdiscs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::netns::{NetnsRef, checked_output};
use crate::qdisc::qdiscs;
use crate::wait::wait_for;

/// How the names of Sabot's devices begin.
const DEVICE_PREFIX: &str = "sabot";
/// How the names of the programs begin that are attached to devices.
const PROGRAM_PREFIXES: [&str; 2] = ["sabot", "fault_"];

/// For how long a list is asked for again.
const LISTING: Duration = Duration::from_secs(2);

/// One object of the BPF subsystem; ids aren't used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Object {
    kind: Kind,
    id: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Prog,
    Map,
    Link,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Prog, Self::Map, Self::Link];

    fn name(self) -> &'static str {
        match self {
            Self::Prog => "prog",
            Self::Map => "map",
            Self::Link => "link",
        }
    }
}

/// What was there before, to compare with.
#[derive(Debug)]
pub struct Leaks {
    places: Vec<Place>,
    /// BPF objects from before.
    before: BTreeSet<Object>,
    /// BPF objects that a daemon was seen to hold.
    learned: BTreeSet<Object>,
}

#[derive(Debug)]
struct Place {
    netns: NetnsRef,
    /// Devices and qdiscs from before.
    before: BTreeSet<String>,
}

impl Leaks {
    /// Notes what is there now: in the kernel, in the host's namespace and in the given ones, which it keeps alive.
    ///
    /// # Errors
    ///
    /// bpftool or the kernel can't be asked.
    pub fn baseline(namespaces: &[&NetnsRef]) -> Result<Self> {
        let mut places = Vec::new();
        for netns in std::iter::once(&NetnsRef::host()?).chain(namespaces.iter().copied()) {
            places.push(Place {
                netns: netns.clone(),
                before: devices(netns)?,
            });
        }
        let mut before = BTreeSet::new();
        for kind in Kind::ALL {
            before.extend(list(kind)?.iter().filter_map(|entry| object(kind, entry)));
        }
        Ok(Self {
            places,
            before,
            learned: BTreeSet::new(),
        })
    }

    /// Notes the BPF objects that a daemon holds now, and the programs of its links; each of them must go.
    ///
    /// # Errors
    ///
    /// bpftool can't be asked, or the process is no more.
    pub fn learn(&mut self, pid: u32) -> Result<()> {
        let held = objects_of(pid).with_context(|| format!("what process {pid} holds can't be read"))?;
        for link in list(Kind::Link)? {
            if object(Kind::Link, &link).is_some_and(|link| held.contains(&link)) {
                let program = link["prog_id"].as_u64();
                self.learned
                    .extend(program.map(|id| Object { kind: Kind::Prog, id }));
            }
        }
        self.learned.extend(held);
        Ok(())
    }

    /// How many BPF objects were learned; 0 means that the daemon held none.
    pub fn learned(&self) -> usize {
        self.learned.len()
    }

    /// Everything that is there and wasn't before, in words; empty when all is gone.
    ///
    /// BPF objects count when a daemon was seen to hold them, or when they have our name and no process holds them or
    /// their link: what another daemon on this machine does isn't a leak.
    ///
    /// # Errors
    ///
    /// bpftool or the kernel can't be asked.
    pub fn left(&self) -> Result<Vec<String>> {
        let mut left = Vec::new();
        for kind in Kind::ALL {
            for entry in list(kind)?
                .iter()
                .filter(|entry| !is_kept_by_looking(kind, entry))
            {
                if let Some(known) = object(kind, entry).filter(|known| self.learned.contains(known)) {
                    let name = entry["name"].as_str().unwrap_or_default();
                    left.push(format!("bpf {} {} {name}", kind.name(), known.id));
                }
            }
        }
        let mut orphans = self.orphans()?;
        if !orphans.is_empty() {
            // A daemon that comes or goes between two looks makes orphans that aren't.
            let again = self.orphans()?;
            orphans.retain(|id, _| again.contains_key(id));
        }
        let orphans = orphans.into_iter();
        left.extend(orphans.map(|(id, name)| format!("bpf prog {id} {name}, which nobody holds")));
        for place in &self.places {
            let now = devices(&place.netns)?;
            let new = now.difference(&place.before);
            left.extend(new.map(|device| format!("{device} in {}", place.netns.path().display())));
        }
        Ok(left)
    }

    /// The new programs with our names that weren't learned, and that no process holds, nor a link to them.
    fn orphans(&self) -> Result<BTreeMap<u64, String>> {
        let programs = list(Kind::Prog)?;
        let links = list(Kind::Link)?;
        let held = held_by_all();
        let is_held =
            |kind: Kind, entry: &Value| object(kind, entry).is_some_and(|object| held.contains(&object));
        let mut orphans = BTreeMap::new();
        for entry in programs {
            let Some(program) = object(Kind::Prog, &entry) else {
                continue;
            };
            let name = entry["name"].as_str().unwrap_or_default();
            let is_ours = PROGRAM_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
            let is_new = !self.before.contains(&program) && !self.learned.contains(&program);
            let is_linked = links
                .iter()
                .any(|link| link["prog_id"].as_u64() == Some(program.id) && is_held(Kind::Link, link));
            if is_ours && is_new && !is_linked && !is_held(Kind::Prog, &entry) {
                orphans.insert(program.id, name.to_owned());
            }
        }
        Ok(orphans)
    }

    /// Waits until nothing is left; returns what still is when the time is over.
    ///
    /// # Errors
    ///
    /// As [`Leaks::left`].
    pub fn wait_clean(&self, timeout: Duration) -> Result<Vec<String>> {
        let mut left = Vec::new();
        let mut failure = None;
        wait_for(timeout, Duration::from_millis(100), || match self.left() {
            Ok(now) => {
                left = now;
                left.is_empty().then_some(())
            }
            Err(error) => {
                failure = Some(error);
                Some(())
            }
        });
        failure.map_or(Ok(left), Err)
    }
}

/// A program array is emptied when its last descriptor closes, by work for which the kernel takes a reference. When two
/// lists of all maps, which open each, end at the same time, the work is queued once and the reference taken twice: the
/// empty array then stays for good (`prog_array_map_clear` in 6.18). What is left of it is what looked for it.
fn is_kept_by_looking(kind: Kind, entry: &Value) -> bool {
    kind == Kind::Map && entry["type"] == "prog_array"
}

/// How many BPF objects of each kind a process has descriptors of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub programs: usize,
    pub maps: usize,
    pub links: usize,
}

/// Counts the BPF objects that a process has descriptors of.
///
/// # Errors
///
/// There is no such process.
pub fn held_by(pid: u32) -> Result<Held> {
    let objects = objects_of(pid)?;
    let count = |kind| objects.iter().filter(|object| object.kind == kind).count();
    Ok(Held {
        programs: count(Kind::Prog),
        maps: count(Kind::Map),
        links: count(Kind::Link),
    })
}

/// The numbers of the maps that a process has descriptors of.
///
/// # Errors
///
/// There is no such process.
pub(crate) fn maps_of(pid: u32) -> Result<Vec<u32>> {
    let objects = objects_of(pid)?;
    let maps = objects.iter().filter(|object| object.kind == Kind::Map);
    maps.map(|map| u32::try_from(map.id).context("ids have 32 bits"))
        .collect()
}

fn list(kind: Kind) -> Result<Vec<Value>> {
    let ask = || checked_output(Command::new("bpftool").args(["-j", kind.name(), "show"]));
    // bpftool fails where an object goes while it is listed, whosever that is.
    let listed = wait_for(LISTING, Duration::from_millis(20), || ask().ok());
    let text = listed.map_or_else(ask, Ok)?;
    let listing: Value = serde_json::from_str(&text).context("`bpftool -j` didn't print JSON")?;
    Ok(listing.as_array().cloned().unwrap_or_default())
}

fn object(kind: Kind, entry: &Value) -> Option<Object> {
    let id = entry["id"].as_u64()?;
    Some(Object { kind, id })
}

/// The BPF objects that a process has descriptors of. bpftool knows that too, but not in every distribution's build.
fn objects_of(pid: u32) -> Result<BTreeSet<Object>> {
    let folder = format!("/proc/{pid}/fdinfo");
    let mut held = BTreeSet::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("{folder} can't be read"))? {
        // A descriptor that was closed meanwhile isn't held.
        let Ok(text) = fs::read_to_string(entry?.path()) else {
            continue;
        };
        held.extend(text.lines().filter_map(fdinfo_object));
    }
    Ok(held)
}

/// The BPF object that a line of a descriptor's fdinfo names. A link's fdinfo also names its program.
fn fdinfo_object(line: &str) -> Option<Object> {
    let (key, value) = line.split_once(':')?;
    let kind = match key {
        "prog_id" => Kind::Prog,
        "map_id" => Kind::Map,
        "link_id" => Kind::Link,
        _ => return None,
    };
    let id = value.trim().parse().ok()?;
    Some(Object { kind, id })
}

/// What all processes hold.
fn held_by_all() -> BTreeSet<Object> {
    let mut held = BTreeSet::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        // A process that has ended meanwhile holds nothing.
        held.extend(objects_of(pid).into_iter().flatten());
    }
    held
}

/// Sabot's devices in a namespace, and every qdisc there that can carry programs, in words.
///
/// # Errors
///
/// The kernel can't be asked.
pub fn devices(netns: &NetnsRef) -> Result<BTreeSet<String>> {
    let look = || -> Result<_> {
        let devices = fs::read_to_string("/proc/thread-self/net/dev").context("/proc isn't mounted")?;
        Ok((devices, qdiscs()?))
    };
    let (devices, qdiscs) = netns.run(look)?;
    let names = devices
        .lines()
        .filter_map(|line| line.trim_start().split_once(':'))
        .map(|(name, _)| name);
    let ours = names
        .filter(|name| name.starts_with(DEVICE_PREFIX))
        .map(|name| format!("device {name}"));
    let carriers = qdiscs
        .iter()
        .filter(|(_, kind)| kind == "clsact" || kind == "ingress")
        .map(|(device, _)| format!("qdisc clsact of {device}"));
    Ok(ours.chain(carriers).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fdinfo_names_objects() {
        let program = Object {
            kind: Kind::Prog,
            id: 751,
        };
        assert_eq!(fdinfo_object("prog_id:\t751"), Some(program));
        assert_eq!(
            fdinfo_object("link_id:\t3"),
            Some(Object {
                kind: Kind::Link,
                id: 3
            })
        );
        assert_eq!(fdinfo_object("pos:\t0"), None);
    }
}

//! What our own programs cost, as the kernel measures it.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aya::programs::{ProgramError, loaded_programs};
use aya::sys::{Stats, SyscallError, enable_stats};

/// One file for each open descriptor; those of programs say which it is and what it has cost.
const DESCRIPTORS: &str = "/proc/self/fdinfo";

#[derive(Debug, thiserror::Error)]
pub enum CostError {
    #[error("cannot read {DESCRIPTORS}: {0}")]
    Descriptors(#[from] io::Error),
    #[error("cannot list the programs: {0}")]
    Programs(#[from] ProgramError),
    #[error("cannot have the kernel measure programs: {0}")]
    Measure(#[from] SyscallError),
}

/// What all programs of one name have cost since they were loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Measured while a [`Measuring`] lives, whoever's.
    pub runs: u64,
    pub time: Duration,
    /// How often the kernel left a run out, always counted: a program that interrupts itself on its processor doesn't run
    /// again there. Some kernels from 6.2 on do so.
    pub misses: u64,
}

/// The kernel measures every program's runs while this lives, everybody's: some 40 ns a run.
#[derive(Debug)]
pub struct Measuring {
    _stats: OwnedFd,
}

impl Measuring {
    /// # Errors
    ///
    /// When the kernel refuses; it can from 5.8 on.
    pub fn start() -> Result<Self, CostError> {
        Ok(Self {
            _stats: enable_stats(Stats::RunTime)?,
        })
    }
}

/// Our programs, whose names the kernel is asked for once.
#[derive(Debug, Default)]
pub struct OwnPrograms {
    /// By their numbers, of which no program gets another one's.
    names: Mutex<BTreeMap<u32, String>>,
}

impl OwnPrograms {
    /// By the programs' names, of which the kernel keeps 15 bytes.
    ///
    /// # Errors
    ///
    /// When they can't be read.
    pub fn costs(&self) -> Result<BTreeMap<String, Cost>, CostError> {
        let own = own_programs(Path::new(DESCRIPTORS))?;
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.retain(|id, _| own.contains_key(id));
        // A name is found only among those of all programs of the machine, of which others may have a thousand.
        if own.keys().any(|id| !names.contains_key(id)) {
            names.extend(names_of(&own)?);
        }
        let mut costs: BTreeMap<String, Cost> = BTreeMap::new();
        for (id, cost) in &own {
            let Some(name) = names.get(id) else { continue };
            let sum = costs.entry(name.clone()).or_default();
            sum.runs += cost.runs;
            sum.time += cost.time;
            sum.misses += cost.misses;
        }
        Ok(costs)
    }
}

fn names_of(own: &HashMap<u32, Cost>) -> Result<Vec<(u32, String)>, ProgramError> {
    let mut names = Vec::new();
    for program in loaded_programs() {
        let program = program?;
        if let (true, Some(name)) = (own.contains_key(&program.id()), program.name_as_str()) {
            names.push((program.id(), name.to_owned()));
        }
    }
    Ok(names)
}

/// How often the kernel has left out a run of any of our programs.
///
/// # Errors
///
/// When they can't be read.
pub fn misses() -> Result<u64, CostError> {
    let own = own_programs(Path::new(DESCRIPTORS))?;
    Ok(own.values().map(|cost| cost.misses).sum())
}

/// By their numbers; a program that several descriptors lead to is there once.
fn own_programs(descriptors: &Path) -> io::Result<HashMap<u32, Cost>> {
    let mut own = HashMap::new();
    for entry in fs::read_dir(descriptors)? {
        // A descriptor that was closed meanwhile has no file any more.
        let Ok(text) = fs::read_to_string(entry?.path()) else {
            continue;
        };
        own.extend(program(&text));
    }
    Ok(own)
}

/// `None` for what is no program; a link's file names its program, but not what that cost.
fn program(text: &str) -> Option<(u32, Cost)> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.strip_prefix(':')?.trim().parse::<u64>().ok()
    };
    let cost = Cost {
        runs: field("run_cnt")?,
        time: Duration::from_nanos(field("run_time_ns")?),
        // Since 5.12.
        misses: field("recursion_misses").unwrap_or_default(),
    };
    Some((u32::try_from(field("prog_id")?).ok()?, cost))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_tells_what_it_cost_and_a_link_does_not() {
        let text = "pos:\t0\nflags:\t02000002\nprog_type:\t17\nprog_tag:\t0102\nprog_id:\t42\nrun_time_ns:\t1500\nrun_cnt:\t3\n";
        let cost = Cost {
            runs: 3,
            time: Duration::from_nanos(1500),
            misses: 0,
        };
        assert_eq!(program(text), Some((42, cost)));
        let missed = format!("{text}recursion_misses:\t7\n");
        assert_eq!(program(&missed), Some((42, Cost { misses: 7, ..cost })));
        assert_eq!(
            program("pos:\t0\nlink_type:\traw_tracepoint\nprog_id:\t42\n"),
            None
        );
        assert_eq!(program("pos:\t0\n"), None);
    }
}

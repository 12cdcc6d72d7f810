//! `cargo xtask soak`: everything at once for as long as one likes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow, ensure};
use sabot_testkit::DaemonOptions;
use sabot_testkit::soak::{Seen, Soak};

use crate::setup::{self, Purpose};
use crate::{build, interrupt, process, ui};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How long; the last storm may outlast it.
    #[arg(long = "for", value_name = "DURATION", default_value = "20m", value_parser = humantime::parse_duration)]
    length: Duration,
    /// What everything random follows from; drawn if it isn't given.
    #[arg(long)]
    seed: Option<u64>,
}

/// Says what it sees after each storm, and in the end on standard output.
///
/// # Errors
///
/// Something wasn't as it must be; names the seed.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(
        process::is_root(),
        "a soak makes network namespaces and loads eBPF programs, which needs root"
    );
    setup::ensure(Purpose::Test)?;
    ui::heading("build: eBPF objects, sabotd, sabot");
    let binaries = build::build(false)?;
    interrupt::catch()?;
    let seed = arguments.seed.unwrap_or_else(drawn);
    let length = arguments.length;
    ui::heading(&format!(
        "soak: {}, seed {seed}",
        humantime::format_duration(length)
    ));
    let soak = Soak {
        length,
        seed,
        daemon: DaemonOptions::new(binaries.sabotd, binaries.sabot),
    };
    // What isn't as it must be is a panic, which has been shown by then.
    let seen = catch_unwind(AssertUnwindSafe(|| soak.run(tell)));
    let seen = seen.map_err(|_| anyhow!("the soak failed: `cargo xtask soak --seed {seed}`"))?;
    println!("seed {seed}\n{seen}");
    interrupt::check()
}

/// After each storm; whether to go on.
fn tell(seen: &Seen) -> bool {
    let title = format!("storm {} after {:.0?}", seen.storms, seen.took);
    let detail = format!(
        "{} packets named, {} others, {} faults, {} calls",
        seen.matched, seen.unnamed, seen.applied, seen.calls
    );
    ui::found(&title, &detail);
    interrupt::check().is_ok()
}

fn drawn() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

//! `cargo xtask manifests`: what stands in the repository although the chart makes it.

use std::fs;

use anyhow::{Context, Result, ensure};
use sabot_deploy::manifests;

use crate::process;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only say whether they are up to date; fail if not.
    #[arg(long)]
    check: bool,
}

/// Writes the kustomize base from the chart.
///
/// # Errors
///
/// The chart doesn't render, or with `--check` what is there differs.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let root = process::root();
    let path = root.join(manifests::BASE);
    let text = manifests::base(&root)?;
    if arguments.check {
        let there = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        ensure!(
            there == text,
            "{} isn't what the chart renders to; run `cargo xtask manifests`",
            manifests::BASE
        );
        return Ok(());
    }
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

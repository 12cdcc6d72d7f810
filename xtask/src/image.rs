//! `cargo xtask image`: the container image as an archive, without Docker.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sabot_deploy::image::{self, Content};
use sabot_deploy::oci::Written;

use crate::build::{self, Binaries};
use crate::process;
use crate::ui::Step;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where the archive goes [default: sabot-image.tar in cargo's target folder]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The image's name and tag; the chart asks for the default
    #[arg(long, value_name = "NAME:TAG", default_value_t = image::default_name())]
    name: String,
    /// Take sabotd and sabot from this folder instead of building them
    #[arg(long, value_name = "FOLDER")]
    binaries: Option<PathBuf>,
}

/// Builds the release binaries, writes the archive and says how large it is.
///
/// # Errors
///
/// The build fails, a file isn't there, or the archive can't be written.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let binaries = build::find_or_build(arguments.binaries.as_deref(), true)?;
    let output = match &arguments.output {
        Some(path) => path.clone(),
        None => process::target_dir()?.join("sabot-image.tar"),
    };
    let written = write(&binaries, &arguments.name, &output)?;
    println!(
        "{}: {} ({:.1} MB, {:.1} MB unpacked)\n{}",
        output.display(),
        arguments.name,
        megabytes(written.archive),
        megabytes(written.unpacked),
        written.digest
    );
    eprintln!(
        "  ctr --namespace k8s.io images import {0}\n  kind load image-archive {0}",
        output.display()
    );
    Ok(())
}

pub(crate) fn write(binaries: &Binaries, name: &str, output: &Path) -> Result<Written> {
    let step = Step::start("the container image");
    let licenses = ["LICENSE-APACHE", "LICENSE-MIT", "ebpf/LICENSE-GPL-2.0"];
    let content = Content {
        sabotd: &binaries.sabotd,
        sabot: &binaries.sabot,
        licenses: &licenses.map(|name| process::root().join(name)),
    };
    let written = image::write(&content, name, true, output).context("the image can't be made")?;
    step.done(&format!("{:.1} MB", megabytes(written.archive)));
    Ok(written)
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

//! `cargo xtask package`: a Debian package and a tarball, for machines without Kubernetes.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use sabot_deploy::package::{self, Content};

use crate::{build, process};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where the packages go [default: cargo's target folder]
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// Take sabotd and sabot from this folder instead of building them
    #[arg(long, value_name = "FOLDER")]
    binaries: Option<PathBuf>,
}

/// Builds the release binaries and packs them.
///
/// # Errors
///
/// The build fails, a file isn't there, or a package can't be written.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let binaries = build::find_or_build(arguments.binaries.as_deref(), true)?;
    let output = match &arguments.output {
        Some(folder) => folder.clone(),
        None => process::target_dir()?,
    };
    fs::create_dir_all(&output).with_context(|| format!("making {}", output.display()))?;
    let root = process::root();
    let content = Content {
        sabotd: &binaries.sabotd,
        sabot: &binaries.sabot,
        repository: &root,
    };
    for path in [
        package::write_deb(&content, &output)?,
        package::write_tarball(&content, &output)?,
    ] {
        let size = fs::metadata(&path)
            .with_context(|| format!("reading {}", path.display()))?
            .len();
        println!("{} ({:.1} MB)", path.display(), size as f64 / 1e6);
    }
    Ok(())
}

//! `cargo xtask build`: the eBPF objects, then the daemon and the client.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use sabot_ebpf_build::Objects;

use crate::{process, ui};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// With the release profile.
    #[arg(long)]
    release: bool,
}

/// Where the binaries are after a build.
pub(crate) struct Binaries {
    pub(crate) sabotd: PathBuf,
    pub(crate) sabot: PathBuf,
}

impl Binaries {
    /// Those that are in a folder.
    ///
    /// # Errors
    ///
    /// Names the one that isn't there.
    fn in_folder(folder: &Path) -> Result<Self> {
        let [sabotd, sabot] = ["sabotd", "sabot"].map(|name| folder.join(name));
        for program in [&sabotd, &sabot] {
            ensure!(program.is_file(), "there is no {}", program.display());
        }
        Ok(Self { sabotd, sabot })
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let binaries = build(arguments.release)?;
    eprintln!(
        "built {}\nbuilt {}",
        binaries.sabotd.display(),
        binaries.sabot.display()
    );
    Ok(())
}

/// Those in a folder, or else what a build makes.
///
/// # Errors
///
/// They aren't in the folder, or can't be built.
pub(crate) fn find_or_build(folder: Option<&Path>, release: bool) -> Result<Binaries> {
    if let Some(folder) = folder {
        return Binaries::in_folder(folder);
    }
    ui::heading("build: eBPF objects, sabotd, sabot");
    build(release)
}

/// Builds everything that runs.
///
/// The objects are built here first, although sabotd's build script would build them too, because cargo hides a build
/// script's progress, and the first build of `core` takes minutes.
pub(crate) fn build(release: bool) -> Result<Binaries> {
    let objects = Objects::new(&process::root())?;
    process::run(&mut objects.build_command())?;
    let mut cargo = process::cargo();
    cargo.args(["build", "--package", "sabotd", "--package", "sabot", "--bins"]);
    if release {
        cargo.arg("--release");
    }
    process::run(&mut cargo)?;
    Binaries::in_folder(&process::target_dir()?.join(if release { "release" } else { "debug" }))
}

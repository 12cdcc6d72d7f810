//! `cargo xtask build`: the eBPF objects, then the daemon and the client.

use std::path::PathBuf;

use anyhow::Result;
use sabot_ebpf_build::Objects;

use crate::process;

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

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let binaries = build(arguments.release)?;
    eprintln!(
        "built {}\nbuilt {}",
        binaries.sabotd.display(),
        binaries.sabot.display()
    );
    Ok(())
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
    let folder = process::target_dir()?.join(if release { "release" } else { "debug" });
    Ok(Binaries {
        sabotd: folder.join("sabotd"),
        sabot: folder.join("sabot"),
    })
}

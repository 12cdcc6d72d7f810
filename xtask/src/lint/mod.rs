//! `cargo xtask lint`: rustfmt and clippy over both workspaces, the programs' stack, and the rules that none of these knows.

mod stack;
mod tidy;

use anyhow::{Context, Result, bail};
use sabot_ebpf_build::Objects;

use crate::{crds, process, ui};

type Check = fn() -> Result<()>;

/// Runs every check, also after one has failed.
///
/// # Errors
///
/// Names the checks that failed; what they found is on standard error.
pub(crate) fn run() -> Result<()> {
    let checks: [(&str, Check); 8] = [
        ("rustfmt", format),
        ("rustfmt of ebpf/programs", format_programs),
        ("rustfmt of fuzz", format_fuzz),
        ("tidy", || tidy::check(&process::root())),
        ("deploy/crds", || crds::check(&process::root())),
        ("clippy of ebpf/programs", clippy_programs),
        ("stack of ebpf/programs", || stack::check(&process::root())),
        ("clippy", clippy),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        ui::heading(&format!("lint: {name}"));
        if let Err(error) = check() {
            ui::missing(name, &format!("{error:#}"));
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("lint failed: {}", failed.join(", "));
    }
    Ok(())
}

fn format() -> Result<()> {
    process::run(process::cargo().args(["fmt", "--all", "--check"]))
}

fn format_programs() -> Result<()> {
    process::run(process::cargo().args(["fmt", "--manifest-path", "ebpf/programs/Cargo.toml", "--check"]))
}

fn format_fuzz() -> Result<()> {
    process::run(process::cargo().args(["fmt", "--manifest-path", "fuzz/Cargo.toml", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    process::run(process::cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

/// The programs are linted for the target that they run on, by the toolchain that builds them.
fn clippy_programs() -> Result<()> {
    let objects = Objects::new(&process::root())?;
    let mut command = objects
        .clippy_command()
        .context("the toolchain for the eBPF programs has no clippy; run `cargo xtask setup --for test`")?;
    process::run(&mut command)
}

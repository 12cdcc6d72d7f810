//! `cargo xtask setup`: finds or installs what building, the demo and the tests need.
//!
//! It is idempotent, asks nothing, and changes nothing that is there. The packages start no service of Sabot's; on a
//! machine with an init system Debian's own `containerd` and `prometheus` packages start theirs, which neither the demo
//! nor the tests use: they run private instances.

mod apt;
mod needs;
mod toolchain;

use anyhow::{Result, bail};

pub(crate) use needs::Purpose;
use needs::{NEEDS, Need};
use sabot_ebpf_build::Toolchain;

use crate::ui;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What to set up for; each one includes those before it.
    #[arg(long = "for", value_enum, default_value_t = Purpose::Build)]
    purpose: Purpose,
    /// Only report what is there and what is missing; fail if something is.
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.check {
        check(arguments.purpose)
    } else {
        ensure(arguments.purpose)
    }
}

/// Installs what is missing for a purpose.
///
/// # Errors
///
/// Says exactly what to install where this machine can't be set up by us.
pub(crate) fn ensure(purpose: Purpose) -> Result<()> {
    ui::heading("setup: the toolchain for eBPF");
    ensure_toolchain()?;
    let missing = missing_packages(purpose);
    if purpose > Purpose::Build {
        ui::heading("setup: programs for the demo and the tests");
        report(purpose, missing.is_empty());
    }
    if missing.is_empty() {
        return Ok(());
    }
    if let Some(reason) = apt::refusal() {
        bail!(
            "{reason}. As root, install these (or what your system calls them):\n    \
             apt-get install --no-install-recommends {}",
            missing.join(" ")
        );
    }
    apt::install(&missing)?;
    let still = missing_packages(purpose);
    if !still.is_empty() {
        bail!("installed, but what they bring isn't found: {}", still.join(", "));
    }
    Ok(())
}

fn ensure_toolchain() -> Result<()> {
    if toolchain::find().is_some() {
        return Ok(());
    }
    let packages = toolchain::missing_packages();
    if !packages.is_empty() {
        ui::missing("compiler and LLVM for eBPF", &packages.join(" "));
        if let Some(reason) = apt::refusal() {
            bail!("{reason}. {}", toolchain::manual_instructions());
        }
        if let Err(error) = apt::install(&packages) {
            bail!("{error:#}\n{}", toolchain::manual_instructions());
        }
    }
    toolchain::build_linker()?;
    if toolchain::find().is_none() {
        // Everything was installed, so the reason is worth more than advice to run this again.
        Toolchain::find_debian().map_err(anyhow::Error::msg)?;
    }
    Ok(())
}

fn check(purpose: Purpose) -> Result<()> {
    ui::heading("setup: what is here");
    let mut complete = true;
    if toolchain::find().is_none()
        && let Err(reasons) = Toolchain::find()
    {
        complete = false;
        ui::missing("compiler and linker for eBPF", &reasons.reasons.join("; "));
    }
    report(purpose, false);
    complete &= missing_packages(purpose).is_empty();
    if !complete {
        let name = format!("{purpose:?}").to_lowercase();
        bail!("not everything is here; run `cargo xtask setup --for {name}`");
    }
    Ok(())
}

/// One line for each need, or one for all of them when all are met and `briefly` is asked for.
fn report(purpose: Purpose, briefly: bool) {
    let needs: Vec<&Need> = NEEDS.iter().filter(|need| need.purpose <= purpose).collect();
    if briefly {
        let names: Vec<&str> = needs.iter().map(|need| need.name).collect();
        ui::found("programs", &names.join(", "));
        return;
    }
    for need in needs {
        if need.is_met() {
            ui::found(need.name, "");
        } else {
            ui::missing(need.name, &format!("missing (package {})", need.package));
        }
    }
}

fn missing_packages(purpose: Purpose) -> Vec<&'static str> {
    let mut packages: Vec<&str> = NEEDS
        .iter()
        .filter(|need| need.purpose <= purpose && !need.is_met())
        .map(|need| need.package)
        .collect();
    // The linter comes with rustup's nightly; Debian has it in a package of its own.
    if purpose >= Purpose::Test && Toolchain::find().is_ok_and(|toolchain| toolchain.clippy().is_none()) {
        packages.push(toolchain::CLIPPY_PACKAGE);
    }
    packages
}

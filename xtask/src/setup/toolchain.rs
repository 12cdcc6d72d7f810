//! The compiler and the linker for eBPF: Debian's packages and a bpf-linker of our own, or what rustup has.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use sabot_ebpf_build::{Flavour, LLVM_MAJOR, Toolchain, clean_environment, linker_root};

use crate::process;
use crate::ui::{self, Step};

/// The newest bpf-linker that builds against `LLVM_MAJOR` and was tried.
const LINKER_VERSION: &str = "0.13.0";

/// rustc, cargo and the library's source, which belong together.
const COMPILER_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
/// What bpf-linker is linked with; the `-dev` packages are what `llvm-config` names.
const LINKER_PACKAGES: [&str; 5] = [
    "llvm-22-dev",
    "libpolly-22-dev",
    "libzstd-dev",
    "zlib1g-dev",
    "libxml2-dev",
];
/// Lints the programs for the eBPF target.
pub(crate) const CLIPPY_PACKAGE: &str = "rust-web-clippy";

/// Reports the toolchain if it is complete.
pub(crate) fn find() -> Option<Toolchain> {
    let toolchain = Toolchain::find().ok()?;
    let flavour = match toolchain.flavour {
        Flavour::Debian => "Debian's rustc-web",
        Flavour::RustupNightly => "rustup's nightly",
    };
    ui::found(
        "compiler for eBPF",
        &format!("{flavour}, {}", toolchain.rustc.display()),
    );
    ui::found("bpf-linker", &toolchain.linker.display().to_string());
    Some(toolchain)
}

/// The packages that are missing for Debian's toolchain.
pub(crate) fn missing_packages() -> Vec<&'static str> {
    let mut wanted = COMPILER_PACKAGES.to_vec();
    if !linker_is_built() {
        wanted.extend(LINKER_PACKAGES);
        if process::find_program("cc").is_none() {
            wanted.push("gcc");
        }
        if process::find_program("c++").is_none() {
            wanted.push("g++");
        }
    }
    wanted.retain(|package| !is_installed(package));
    wanted
}

/// Builds bpf-linker into the cache, unless it is there.
///
/// # Errors
///
/// Holds what cargo said.
pub(crate) fn build_linker() -> Result<()> {
    if linker_is_built() {
        return Ok(());
    }
    let root = linker_root();
    fs::create_dir_all(&root).with_context(|| format!("{} can't be created", root.display()))?;
    let step = Step::start(&format!("build bpf-linker {LINKER_VERSION}"));
    let scratch = root.join("build");
    let result = process::run_quietly(&step, &mut install_command(&root, &scratch));
    // The objects of the build are of no further use, and large.
    let _ = fs::remove_dir_all(&scratch);
    match result {
        Ok(()) => step.done(&root.join("bin/bpf-linker").display().to_string()),
        Err(error) => {
            step.failed("failed");
            return Err(error);
        }
    }
    Ok(())
}

/// What a user of an unknown system is told to install.
pub(crate) fn manual_instructions() -> String {
    format!(
        "Either, on Debian 12 or later, as root:\n    apt-get install --no-install-recommends {} {}\n  \
         and run `cargo xtask setup` again, which builds bpf-linker itself;\n\
         or, anywhere, with rustup:\n    rustup toolchain install nightly --component rust-src\n  \
         and a bpf-linker on the PATH that is built for the LLVM of that nightly's rustc \
         (`cargo binstall bpf-linker`, or https://github.com/aya-rs/bpf-linker/releases).",
        COMPILER_PACKAGES.join(" "),
        LINKER_PACKAGES.join(" "),
    )
}

fn linker_is_built() -> bool {
    linker_root().join("bin/bpf-linker").is_file()
}

fn is_installed(package: &str) -> bool {
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${db:Status-Abbrev}", package])
        .output();
    output.is_ok_and(|output| output.status.success() && output.stdout.starts_with(b"ii"))
}

fn install_command(root: &Path, scratch: &Path) -> Command {
    let mut command = process::cargo();
    clean_environment(&mut command);
    command
        .env("LLVM_PREFIX", format!("/usr/lib/llvm-{LLVM_MAJOR}"))
        .args(["install", &format!("bpf-linker@{LINKER_VERSION}")])
        .args([
            "--no-default-features",
            "--features",
            &format!("llvm-{LLVM_MAJOR}"),
        ])
        .arg("--root")
        .arg(root)
        .arg("--target-dir")
        .arg(scratch);
    command
}

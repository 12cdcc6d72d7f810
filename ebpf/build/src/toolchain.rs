//! Where the compiler and the linker are.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The LLVM major version that `cargo xtask setup` builds bpf-linker against, and Debian's rustc-web contains.
pub const LLVM_MAJOR: u32 = 22;

/// Debian's packages install these beside whatever rustup put on the PATH.
const DEBIAN_BIN: &str = "/usr/bin";

/// A compiler that can build `core` for eBPF, and the linker that goes with it.
#[derive(Clone, Debug)]
pub struct Toolchain {
    pub flavour: Flavour,
    pub cargo: PathBuf,
    pub rustc: PathBuf,
    pub linker: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// rustc-web, cargo-web and rust-web-src.
    Debian,
    /// rustup's nightly with the component rust-src.
    RustupNightly,
}

/// Why no toolchain can be used; each text is a part of one sentence.
#[derive(Debug, thiserror::Error)]
#[error("the toolchain for the eBPF programs is missing ({}); run `cargo xtask setup` once to install it", reasons.join("; "))]
pub struct Missing {
    /// What each flavour lacks.
    pub reasons: Vec<String>,
}

impl Toolchain {
    /// The first complete toolchain: Debian's pair, then rustup's nightly.
    ///
    /// # Errors
    ///
    /// [`Missing`] says what each of them lacks.
    pub fn find() -> Result<Self, Missing> {
        let mut reasons = Vec::new();
        for find in [Self::find_debian, Self::find_rustup] {
            match find() {
                Ok(toolchain) => return Ok(toolchain),
                Err(reason) => reasons.push(reason),
            }
        }
        Err(Missing { reasons })
    }

    /// Debian's pair with the linker from our cache.
    ///
    /// # Errors
    ///
    /// What is missing.
    pub fn find_debian() -> Result<Self, String> {
        let bin = Path::new(DEBIAN_BIN);
        let (cargo, rustc) = (bin.join("cargo"), bin.join("rustc"));
        if !cargo.is_file() || !rustc.is_file() {
            return Err(format!("no {DEBIAN_BIN}/rustc and {DEBIAN_BIN}/cargo"));
        }
        if core_source(&rustc).is_none() {
            return Err(format!("{} has no library source", rustc.display()));
        }
        let linker = find_linker(&rustc)?;
        Ok(Self {
            flavour: Flavour::Debian,
            cargo,
            rustc,
            linker,
        })
    }

    /// rustup's nightly, called by its own path, so that the outer cargo's toolchain doesn't matter.
    ///
    /// # Errors
    ///
    /// What is missing.
    pub fn find_rustup() -> Result<Self, String> {
        let mut which = Command::new("rustup");
        which.args(["which", "--toolchain", "nightly", "rustc"]);
        clean_environment(&mut which);
        let rustc = output(&mut which).ok_or("no nightly toolchain in rustup")?;
        let rustc = PathBuf::from(rustc);
        if core_source(&rustc).is_none() {
            return Err("rustup's nightly has no rust-src".to_owned());
        }
        let linker = find_linker(&rustc)?;
        let cargo = rustc.with_file_name("cargo");
        Ok(Self {
            flavour: Flavour::RustupNightly,
            cargo,
            rustc,
            linker,
        })
    }

    /// `cargo-clippy` of this toolchain, where it has one.
    pub fn clippy(&self) -> Option<PathBuf> {
        Some(self.cargo.with_file_name("cargo-clippy")).filter(|path| path.is_file())
    }

    /// A command of this toolchain in a clean environment: nothing of an outer cargo reaches it.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        clean_environment(&mut command);
        let mut path = OsString::from(self.linker.parent().unwrap_or(Path::new("")));
        if let Some(rest) = env::var_os("PATH") {
            path.push(":");
            path.push(rest);
        }
        command
            .env("PATH", path)
            .env("CARGO", &self.cargo)
            .env("RUSTC", &self.rustc)
            // Debian's rustc is a stable release; building `core` is a nightly feature.
            .env("RUSTC_BOOTSTRAP", "1")
            // Debug information is what bpf-linker makes BTF from, and BTF is what maps and globals are found by.
            .env("CARGO_ENCODED_RUSTFLAGS", "-Cdebuginfo=2\u{1f}-Clink-arg=--btf");
        command
    }
}

/// `$SABOT_CACHE`, or `sabot` in the user's cache folder.
pub fn cache_dir() -> PathBuf {
    if let Some(dir) = env::var_os("SABOT_CACHE").filter(|dir| !dir.is_empty()) {
        return dir.into();
    }
    if let Some(dir) = env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        return Path::new(&dir).join("sabot");
    }
    let home = env::var_os("HOME").unwrap_or_else(|| "/root".into());
    Path::new(&home).join(".cache/sabot")
}

/// The root that `cargo xtask setup` installs bpf-linker under; the binary is in its `bin`.
pub fn linker_root() -> PathBuf {
    cache_dir().join("toolchain")
}

/// Our own linker where the compiler's LLVM is the one that it was built for; otherwise one on the PATH, whose owner
/// has matched the two.
fn find_linker(rustc: &Path) -> Result<PathBuf, String> {
    let own = linker_root().join("bin/bpf-linker");
    let major = llvm_major(rustc).ok_or_else(|| format!("{} doesn't tell its LLVM", rustc.display()))?;
    if own.is_file() && major == LLVM_MAJOR {
        return Ok(own);
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .map(|dir| dir.join("bpf-linker"))
        .find(|linker| linker.is_file())
        .ok_or_else(|| {
            format!(
                "no bpf-linker for LLVM {major} in {} or on the PATH",
                own.parent().unwrap_or(&own).display()
            )
        })
}

/// The LLVM major version in `rustc -vV`.
fn llvm_major(rustc: &Path) -> Option<u32> {
    let mut command = Command::new(rustc);
    clean_environment(&mut command);
    let text = output(command.arg("-vV"))?;
    let version = text
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?;
    version.split('.').next()?.parse().ok()
}

/// The source of `core` that belongs to a compiler.
fn core_source(rustc: &Path) -> Option<PathBuf> {
    let mut command = Command::new(rustc);
    clean_environment(&mut command);
    let sysroot = output(command.args(["--print", "sysroot"]))?;
    Some(Path::new(&sysroot).join("lib/rustlib/src/rust/library/core/Cargo.toml"))
        .filter(|path| path.is_file())
}

/// Takes out what an outer cargo, rustup's proxies and a build script's environment would impose on a nested cargo.
pub fn clean_environment(command: &mut Command) {
    const KEPT: [&str; 2] = ["CARGO_HOME", "CARGO_MAKEFLAGS"];
    const KEPT_PREFIXES: [&str; 3] = ["CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR"];
    const DROPPED: [&str; 10] = [
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        "LD_LIBRARY_PATH",
        "TARGET",
        "HOST",
        "OUT_DIR",
        "PROFILE",
        "DEBUG",
        "OPT_LEVEL",
        "NUM_JOBS",
    ];
    for (key, _) in env::vars_os() {
        let Some(name) = key.to_str() else { continue };
        let cargo = name.starts_with("CARGO")
            && !KEPT.contains(&name)
            && !KEPT_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        let rustc = ["RUSTC", "RUSTDOC", "DEP_"]
            .iter()
            .any(|prefix| name.starts_with(prefix));
        if cargo || rustc || DROPPED.contains(&name) {
            command.env_remove(&key);
        }
    }
}

/// Trimmed standard output of a command that succeeds.
fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_toolchain_is_one_sentence_that_names_setup() {
        let missing = Missing {
            reasons: vec!["no /usr/bin/rustc".to_owned(), "no nightly toolchain".to_owned()],
        };
        let text = missing.to_string();
        assert!(text.contains("`cargo xtask setup`"), "{text}");
        assert!(text.contains("no /usr/bin/rustc; no nightly toolchain"), "{text}");
        assert!(!text.contains('\n'), "{text}");
    }

    #[test]
    fn a_nested_command_sees_nothing_of_the_outer_cargo() {
        // cargo sets both of these for every test it runs.
        assert!(env::var_os("CARGO_MANIFEST_DIR").is_some());
        let mut command = Command::new("env");
        clean_environment(&mut command);
        let seen = output(&mut command).expect("env runs");
        assert!(!seen.contains("CARGO_MANIFEST_DIR="), "{seen}");
        assert!(!seen.contains("CARGO_PKG_NAME="), "{seen}");
        assert!(seen.contains("PATH="), "{seen}");
    }
}

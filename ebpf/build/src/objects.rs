//! The objects: one for each folder of `ebpf/programs/src` that has a `main.rs`, and [`VARIANTS`] of them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::toolchain::{Missing, Toolchain};

const TARGET: &str = if cfg!(target_endian = "little") {
    "bpfel-unknown-none"
} else {
    "bpfeb-unknown-none"
};

/// Objects with another's source, each from a package of its own.
const VARIANTS: [&str; 1] = ["fault_locked"];

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    Missing(#[from] Missing),
    #[error("{} can't be started: {source}", program.display())]
    Start { program: PathBuf, source: io::Error },
    /// The compiler has said why on its standard error.
    #[error("the eBPF programs don't build:\n{messages}")]
    Compile { messages: String },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// The workspace of the programs, and the toolchain that builds it.
#[derive(Clone, Debug)]
pub struct Objects {
    toolchain: Toolchain,
    programs: PathBuf,
}

impl Objects {
    /// `root` is the root of the repository.
    ///
    /// # Errors
    ///
    /// [`BuildError::Missing`] without a toolchain.
    pub fn new(root: &Path) -> Result<Self, BuildError> {
        Ok(Self {
            toolchain: Toolchain::find()?,
            programs: root.join("ebpf/programs"),
        })
    }

    pub fn toolchain(&self) -> &Toolchain {
        &self.toolchain
    }

    /// The names of the objects, sorted.
    ///
    /// # Errors
    ///
    /// [`BuildError::Io`] when the sources can't be listed.
    pub fn names(&self) -> Result<Vec<String>, BuildError> {
        let source = self.programs.join("src");
        let at = |source_error| BuildError::Io {
            path: source.clone(),
            source: source_error,
        };
        let mut names = VARIANTS.map(str::to_owned).to_vec();
        for entry in fs::read_dir(&source).map_err(at)? {
            let entry = entry.map_err(at)?;
            if entry.path().join("main.rs").is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// The command that builds every object; the compiler's messages go where the caller sends them.
    ///
    /// The target folder is the programs' own, so that debug, release and check builds of the daemon share it; cargo's
    /// lock on it serialises them.
    pub fn build_command(&self) -> Command {
        let mut command = self.toolchain.command(&self.toolchain.cargo);
        command.arg("build").args(self.arguments());
        command
    }

    /// clippy over the programs for the eBPF target; `None` where the toolchain has none.
    pub fn clippy_command(&self) -> Option<Command> {
        let mut command = self.toolchain.command(&self.toolchain.clippy()?);
        command
            .arg("clippy")
            .args(self.arguments())
            .args(["--", "-D", "warnings"]);
        Some(command)
    }

    /// Builds the objects and copies them to `out`; returns where they are.
    ///
    /// # Errors
    ///
    /// [`BuildError::Compile`] holds the compiler's messages.
    pub fn build_into(&self, out: &Path) -> Result<Vec<PathBuf>, BuildError> {
        let output = self
            .build_command()
            .stdin(Stdio::null())
            .output()
            .map_err(|source| BuildError::Start {
                program: self.toolchain.cargo.clone(),
                source,
            })?;
        if !output.status.success() {
            let messages = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(BuildError::Compile { messages });
        }
        let built = self.target_dir().join(TARGET).join("release");
        let mut copies = Vec::new();
        for name in self.names()? {
            let copy = out.join(&name);
            fs::copy(built.join(&name), &copy).map_err(|source| BuildError::Io {
                path: built.join(&name),
                source,
            })?;
            copies.push(copy);
        }
        Ok(copies)
    }

    fn target_dir(&self) -> PathBuf {
        self.programs.join("target")
    }

    fn arguments(&self) -> Vec<std::ffi::OsString> {
        let mut arguments: Vec<std::ffi::OsString> = vec![
            "--workspace".into(),
            "--release".into(),
            "--target".into(),
            TARGET.into(),
            "-Z".into(),
            "build-std=core".into(),
        ];
        arguments.extend(["--manifest-path".into(), self.programs.join("Cargo.toml").into()]);
        arguments.extend(["--target-dir".into(), self.target_dir().into()]);
        arguments
    }
}

/// What a build of the objects reads, for `cargo::rerun-if-changed`. The target folder is not among it.
pub fn source_paths(root: &Path) -> [PathBuf; 6] {
    let ebpf = root.join("ebpf");
    [
        ebpf.join("programs/src"),
        ebpf.join("programs/Cargo.toml"),
        ebpf.join("programs/Cargo.lock"),
        ebpf.join("programs/locked/Cargo.toml"),
        ebpf.join("abi/src"),
        ebpf.join("abi/Cargo.toml"),
    ]
}

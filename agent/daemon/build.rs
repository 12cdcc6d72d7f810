//! Builds the eBPF objects and leaves them in `OUT_DIR`, under their names, for `include_bytes_aligned!`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::exit;

use sabot_ebpf_build::{BuildError, Objects, source_paths};

fn main() {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("../..");
    for path in source_paths(&root) {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    println!("cargo::rerun-if-env-changed=SABOT_CACHE");
    match build(&root, Path::new(&variable("OUT_DIR"))) {
        Ok(()) => {}
        // One line, said by cargo itself, instead of a dump of the script's output.
        Err(missing @ BuildError::Missing(_)) => println!("cargo::error={missing}"),
        Err(other) => {
            eprintln!("{other}");
            exit(1);
        }
    }
}

fn build(root: &Path, out: &Path) -> Result<(), BuildError> {
    let objects = Objects::new(root)?;
    let toolchain = objects.toolchain();
    for tool in [&toolchain.rustc, &toolchain.linker] {
        println!("cargo::rerun-if-changed={}", tool.display());
    }
    objects.build_into(out)?;
    Ok(())
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}

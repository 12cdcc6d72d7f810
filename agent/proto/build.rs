//! Compiles every `.proto` under `proto/` with protox, so that no `protoc` is needed.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use prost::Message as _;

fn main() -> anyhow::Result<()> {
    let root = Path::new("proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let out = PathBuf::from(env::var("OUT_DIR").context("cargo sets OUT_DIR")?);

    let sabot = protox::compile(protos_in(&root.join("sabot"))?, [root]).context("compiling sabot.v1")?;
    fs::write(out.join("sabot.v1.descriptors.bin"), sabot.encode_to_vec())
        .context("writing the descriptor set")?;
    tonic_prost_build::configure()
        .compile_fds(sabot)
        .context("generating sabot.v1")?;

    let runtime =
        protox::compile(protos_in(&root.join("runtime"))?, [root]).context("compiling runtime.v1")?;
    // The server side serves the tests, which stand in for a runtime.
    tonic_prost_build::configure()
        .compile_fds(runtime)
        .context("generating runtime.v1")?;
    Ok(())
}

/// The `.proto` files under `directory`, sorted, so that the output doesn't depend on the order of the directory.
fn protos_in(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        let entries = fs::read_dir(&directory).with_context(|| format!("listing {}", directory.display()))?;
        for entry in entries {
            let path = entry
                .with_context(|| format!("listing {}", directory.display()))?
                .path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|e| e == "proto") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

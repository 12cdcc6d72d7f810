//! Compiles every `.proto` under `proto/` without protoc.

use std::path::PathBuf;

fn main() -> anyhow::Result<()> {
    let root = PathBuf::from("proto");
    let files = [root.join("runtime/v1/api.proto")];
    println!("cargo::rerun-if-changed=proto");
    let set = protox::compile(&files, [&root])?;
    tonic_prost_build::configure().compile_fds(set)?;
    Ok(())
}

//! Finds the toolchain for eBPF in Rust and builds the objects of `ebpf/programs` with it.
//!
//! It is shared by sabotd's build script, which embeds the objects, and by xtask, which installs the toolchain and lints
//! the programs. eBPF needs a compiler that may build `core` from source and a linker, `bpf-linker`, that reads the same
//! LLVM major version as the compiler writes.

mod objects;
mod toolchain;

pub use objects::{BuildError, Objects, source_paths};
pub use toolchain::{Flavour, LLVM_MAJOR, Missing, Toolchain, cache_dir, clean_environment, linker_root};

//! The short form of fuzzing: each check on its corpus, and on a number of inputs that a seed makes of it.
//!
//! Without the compiler's coverage it finds less than the fuzz targets do, and the same each time. What it finds is kept as
//! a file, which belongs into the corpus once the error is mended.

mod fields;
mod mutations;
mod words;

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use sabot_fuzz_checks as checks;

use self::mutations::Mutations;

const SEED: u64 = 7;

/// A reader's check, and how many inputs are made for it: a second's.
struct Target {
    name: &'static str,
    check: fn(&[u8]),
    inputs: usize,
}

const TARGETS: [Target; 7] = [
    target("abi", checks::abi::check, 50_000),
    target("classifier", checks::classifier::check, 50_000),
    target("cri_calls", checks::cri_calls::check, 1_500),
    target("cri_pods", checks::cri_pods::check, 100_000),
    target("http", checks::http::check, 2_000),
    target("manifest", checks::manifest::check, 10_000),
    target("proto", checks::proto::check, 100_000),
];

const fn target(name: &'static str, check: fn(&[u8]), inputs: usize) -> Target {
    Target { name, check, inputs }
}

#[test]
fn abi() {
    search("abi");
}

#[test]
fn classifier() {
    search("classifier");
}

#[test]
fn cri_calls() {
    search("cri_calls");
}

#[test]
fn cri_pods() {
    search("cri_pods");
}

#[test]
fn http() {
    search("http");
}

#[test]
fn manifest() {
    search("manifest");
}

#[test]
fn proto() {
    search("proto");
}

#[test]
fn every_fuzz_target_has_its_short_form() {
    let files = read(&folder("targets"));
    let names: Vec<&str> = files
        .iter()
        .filter_map(|(name, _)| name.strip_suffix(".rs"))
        .collect();
    assert_eq!(names, TARGETS.map(|target| target.name));
}

fn search(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.expect("it is among them");
    let corpus = read(&folder("corpus").join(name));
    for (file, bytes) in &corpus {
        attempt(target, file, bytes);
    }
    let words = words::read(&folder("dictionaries").join(name));
    let corpus = corpus.into_iter().map(|(_, bytes)| bytes).collect();
    for (number, bytes) in Mutations::new(corpus, words, SEED)
        .take(target.inputs)
        .enumerate()
    {
        attempt(target, &format!("input {number}"), &bytes);
    }
}

/// # Panics
///
/// The check finds something. The finding itself is what was printed before.
fn attempt(target: &Target, what: &str, bytes: &[u8]) {
    if catch_unwind(|| (target.check)(bytes)).is_ok() {
        return;
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{}", target.name));
    fs::write(&path, bytes).expect("a finding can be kept");
    panic!(
        "{what} of `{}` is a finding, kept in {}",
        target.name,
        path.display()
    );
}

/// A folder of `fuzz`.
fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

/// The files of a folder in the order of their names.
fn read(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("a folder can be listed").path();
            let name = path.file_name().expect("files have names");
            let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (name.to_string_lossy().into_owned(), bytes)
        })
        .collect();
    files.sort();
    files
}

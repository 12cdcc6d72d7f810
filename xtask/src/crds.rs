//! `cargo xtask crds`: the CustomResourceDefinitions as they follow from the types.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Args;
use sabot_resources::Kind;

use crate::process;

/// Where they stand, in the repository.
const FOLDER: &str = "deploy/crds";

#[derive(Args)]
pub(crate) struct Arguments {
    /// Only say whether they are up to date.
    #[arg(long)]
    check: bool,
}

/// Writes them, or checks what is there.
///
/// # Errors
///
/// A file that can't be written; with `--check`, one that isn't there or isn't what the types say.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let root = process::root();
    if arguments.check {
        return check(&root);
    }
    fs::create_dir_all(root.join(FOLDER)).with_context(|| format!("{FOLDER} can't be created"))?;
    for (path, text) in files() {
        fs::write(root.join(&path), text).with_context(|| format!("{path} can't be written"))?;
        println!("{path}");
    }
    Ok(())
}

/// # Errors
///
/// Names the files that aren't what the types say.
pub(crate) fn check(root: &Path) -> Result<()> {
    let is_other = |(path, text): &(String, String)| {
        fs::read_to_string(root.join(path)).map_or(true, |found| found != *text)
    };
    let other: Vec<_> = files().filter(is_other).map(|(path, _)| path).collect();
    if !other.is_empty() {
        bail!("run `cargo xtask crds`: not up to date: {}", other.join(", "));
    }
    Ok(())
}

fn files() -> impl Iterator<Item = (String, String)> {
    let file = |kind: Kind| {
        let path = format!("{FOLDER}/{}.yaml", kind.plural());
        (path, sabot_resources::to_yaml(kind))
    };
    Kind::ALL.into_iter().map(file)
}

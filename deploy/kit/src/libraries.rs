//! The shared libraries that programs need, as this machine's loader finds them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The libraries of some programs with their loader, each once and by the path where the loader looks for it. A program
/// that is linked statically needs none.
///
/// # Errors
///
/// A program that isn't one, or a library that isn't here; named.
pub fn of(programs: &[&Path]) -> Result<BTreeSet<PathBuf>> {
    let mut all = BTreeSet::new();
    for program in programs {
        let output = Command::new("ldd")
            .arg(program)
            .env("LC_ALL", "C")
            .output()
            .context("`ldd` can't be started; on Debian it is in libc-bin")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() && !is_static(&said) {
            bail!(
                "`ldd {}` failed: {}{}",
                program.display(),
                said.trim(),
                text.trim()
            );
        }
        all.extend(parse(&text).with_context(|| format!("the libraries of {}", program.display()))?);
    }
    Ok(all)
}

/// `ldd` says so of a program without a loader, and fails.
fn is_static(said: &str) -> bool {
    said.contains("not a dynamic executable")
}

/// Reads what `ldd` prints: `NAME => PATH (ADDRESS)`, `PATH (ADDRESS)` for the loader, `NAME (ADDRESS)` for what the
/// kernel provides.
fn parse(text: &str) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for line in text.lines().map(str::trim) {
        let (name, place) = line.split_once(" => ").unwrap_or((line, line));
        if place.starts_with("not found") {
            bail!("{name} isn't on this machine");
        }
        let path = place.split(" (").next().unwrap_or(place);
        if path.starts_with('/') {
            found.insert(PathBuf::from(path));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_found() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                    \tlibgcc_s.so.1 => /lib/x86_64-linux-gnu/libgcc_s.so.1 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found = parse(text).expect("all are there");
        let expected = [
            "/lib/x86_64-linux-gnu/libgcc_s.so.1",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(found, expected.map(PathBuf::from).into());
        assert!(
            parse("\tstatically linked\n")
                .expect("none is missing")
                .is_empty()
        );
    }

    #[test]
    fn one_that_is_missing_is_named() {
        let error = parse("\tlibhelm.so.2 => not found\n").expect_err("it is missing");
        assert!(error.to_string().contains("libhelm.so.2"), "{error}");
    }

    #[test]
    fn a_real_programs_libraries_are_files() {
        let this = std::env::current_exe().expect("a test has a path");
        let found = of(&[&this]).expect("it runs, so they are here");
        assert!(
            found
                .iter()
                .any(|path| path.display().to_string().contains("/libc.so")),
            "{found:?}"
        );
        assert!(found.iter().all(|path| path.is_file()), "{found:?}");
        assert!(of(&[Path::new("/nowhere")]).is_err());
    }
}

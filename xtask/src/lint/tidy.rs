//! Rules about the text of the sources.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::ui;

/// A source file that is longer is usually about two things.
const LONGEST: usize = 500;

/// Files that are read; generated ones (Cargo.lock) and binaries aren't among them.
const EXTENSIONS: [&str; 8] = ["rs", "toml", "md", "proto", "yaml", "yml", "py", "sh"];
const SKIPPED: [&str; 3] = ["target", ".git", "node_modules"];

/// Work that was put off, written so that this file doesn't find itself.
const MARKERS: [&str; 6] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("to", "do!("),
    concat!("unimplemented", "!("),
    concat!("dbg", "!("),
];

/// Reads every source below the root.
///
/// # Errors
///
/// Says how many rules are broken; each place is on standard error.
pub(super) fn check(root: &Path) -> Result<()> {
    let mut files = Vec::new();
    collect(root, &mut files)?;
    let mut broken = 0;
    for file in &files {
        let text = fs::read_to_string(file).with_context(|| format!("{} can't be read", file.display()))?;
        let name = file.strip_prefix(root).unwrap_or(file);
        let is_rust = file.extension().is_some_and(|extension| extension == "rs");
        for finding in findings(&text, is_rust) {
            ui::missing(&name.display().to_string(), &finding);
            broken += 1;
        }
    }
    if broken > 0 {
        bail!("{broken} places break our rules");
    }
    ui::found("tidy", &format!("{} files", files.len()));
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("{} can't be listed", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let name = entry.file_name();
        if kind.is_dir() && !SKIPPED.iter().any(|&skipped| name == skipped) {
            collect(&path, files)?;
        } else if kind.is_file()
            && path
                .extension()
                .is_some_and(|found| EXTENSIONS.iter().any(|&e| found == e))
        {
            files.push(path);
        }
    }
    Ok(())
}

/// What is wrong with one file, each with its line.
fn findings(text: &str, is_rust: bool) -> Vec<String> {
    let mut found = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    if is_rust && lines.len() > LONGEST {
        found.push(format!(
            "{} lines; more than {LONGEST} are usually two concepts",
            lines.len()
        ));
    }
    for (index, line) in lines.iter().enumerate() {
        let number = index + 1;
        for marker in MARKERS.iter().filter(|&&marker| line.contains(marker)) {
            found.push(format!("line {number}: `{marker}`: finish it or file it"));
        }
        if line.ends_with([' ', '\t']) {
            found.push(format!("line {number}: blanks at its end"));
        }
        let code = line.trim_start();
        if is_rust
            && ["#[allow(", "#![allow("]
                .iter()
                .any(|start| code.starts_with(start))
        {
            found.push(format!(
                "line {number}: `expect` tells when it is no longer needed, `allow` doesn't"
            ));
        }
        let is_expect = ["#[expect(", "#![expect("]
            .iter()
            .any(|start| code.starts_with(start));
        if is_rust && is_expect && !attribute(&lines[index..]).contains("reason") {
            found.push(format!("line {number}: `expect` without a reason"));
        }
    }
    if !text.is_empty() && !text.ends_with('\n') {
        found.push("no newline at its end".to_owned());
    }
    found
}

/// An attribute up to the line that closes it.
fn attribute(lines: &[&str]) -> String {
    let end = lines.iter().position(|line| line.trim_end().ends_with(")]"));
    lines[..=end.unwrap_or(0)].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_finds_what_breaks_it() {
        let allow = concat!("#[al", "low(dead_code)]\nfn f() {}\n");
        let bare = concat!("#[exp", "ect(dead_code)]\nfn f() {}\n");
        let later = format!("// {}: later\n", MARKERS[0]);
        for (text, expected) in [
            (allow, "allow"),
            (bare, "without a reason"),
            (&later, "line 1"),
            ("a \n", "blanks"),
        ] {
            let found = findings(text, true);
            assert_eq!(found.len(), 1, "{text:?}: {found:?}");
            assert!(found[0].contains(expected), "{found:?}");
        }
        assert_eq!(findings(&"x\n".repeat(501), true).len(), 1);
        assert_eq!(findings("x", true), ["no newline at its end"]);
    }

    #[test]
    fn what_keeps_the_rules_passes() {
        let text = "#[expect(\n    dead_code,\n    reason = \"shown in the manual\"\n)]\nfn f() {}\n";
        assert_eq!(findings(text, true), Vec::<String>::new());
        assert_eq!(findings(&"x\n".repeat(501), false), Vec::<String>::new());
    }
}

//! Debian's other suites, read beside what this machine's apt is set to, which stays as it is.
//!
//! Where the archives are is what apt already knows: the mirror of the configured suites has the other ones too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::process;
use crate::ui::Step;

/// The keys of all of Debian's releases.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An archive of Debian's, by the label that it gives itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Archive {
    Main,
    Security,
}

impl Archive {
    fn label(self) -> &'static str {
        match self {
            Self::Main => "Debian",
            Self::Security => "Debian-Security",
        }
    }
}

/// A suite of an archive, as `bookworm-backports`.
#[derive(Clone, Debug)]
pub(super) struct Suite {
    pub(super) archive: Archive,
    pub(super) name: String,
}

impl Suite {
    pub(super) fn new(archive: Archive, name: &str) -> Self {
        Self {
            archive,
            name: name.to_owned(),
        }
    }
}

/// apt with a list of suites of its own.
pub(super) struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Reads the lists of some suites into a folder.
    ///
    /// # Errors
    ///
    /// This machine's apt knows no mirror of the archive, or the mirror doesn't have the suite.
    pub(super) fn with(folder: &Path, suites: &[Suite]) -> Result<Self> {
        ensure!(
            process::find_program("apt-get").is_some(),
            "this system has no apt-get to fetch Debian's kernels with"
        );
        let apt = Self {
            folder: folder.to_path_buf(),
        };
        let known = configured()?;
        let mut sources = String::new();
        for suite in suites {
            let site = site(&known, suite.archive)?;
            sources.push_str(&source(site, &suite.name, Path::new(KEYRING).exists()));
        }
        fs::create_dir_all(folder.join("lists/partial"))
            .with_context(|| format!("{} can't be made", folder.display()))?;
        fs::write(folder.join("sources.list"), sources)?;
        let names: Vec<&str> = suites.iter().map(|suite| suite.name.as_str()).collect();
        let step = Step::start(&format!("apt-get update of {}", names.join(", ")));
        match process::run_quietly(&step, apt.command("apt-get").arg("update")) {
            Ok(()) => step.done("read"),
            Err(error) => {
                step.failed("failed");
                return Err(error);
            }
        }
        Ok(apt)
    }

    /// The names of all packages that begin so.
    pub(super) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let text = output(self.command("apt-cache").args(["pkgnames", prefix]))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// What a package depends on, without what that depends on in turn.
    pub(super) fn depends(&self, package: &str) -> Result<Vec<String>> {
        let text = output(self.command("apt-cache").args([
            "depends",
            "--no-recommends",
            "--no-suggests",
            "--no-conflicts",
            "--no-breaks",
            "--no-replaces",
            "--no-enhances",
            package,
        ]))?;
        let names = text.lines().filter_map(|line| line.split_once("Depends: "));
        Ok(names.map(|(_, name)| name.trim().to_owned()).collect())
    }

    /// Fetches packages into a folder.
    pub(super) fn download(&self, step: &Step, packages: &[String], into: &Path) -> Result<()> {
        let mut command = self.command("apt-get");
        command.current_dir(into).arg("download").args(packages);
        process::run_quietly(step, &mut command)
    }

    /// Fetches a package of a suite into a folder, with everything that it needs and this machine hasn't installed.
    pub(super) fn download_with_needs(
        &self,
        step: &Step,
        suite: &str,
        package: &str,
        into: &Path,
    ) -> Result<()> {
        fs::create_dir_all(into.join("partial"))?;
        let mut command = self.command("apt-get");
        command
            .args(["--option", &format!("Dir::Cache::archives={}", into.display())])
            .args(["install", "--download-only", "--yes", "--no-install-recommends"])
            .args(["--target-release", suite, package]);
        process::run_quietly(step, &mut command)
    }

    fn command(&self, program: &str) -> Command {
        let path = |name: &str| self.folder.join(name).display().to_string();
        let options = [
            format!("Dir::Etc::sourcelist={}", path("sources.list")),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::State::lists={}", path("lists")),
            // The machine's caches are of its own lists.
            "Dir::Cache::pkgcache=".to_owned(),
            "Dir::Cache::srcpkgcache=".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            // Folders of ours are not open to apt's own user.
            "APT::Sandbox::User=root".to_owned(),
        ];
        let mut command = Command::new(program);
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(options.iter().flat_map(|option| ["--option", option]));
        command
    }
}

/// Unpacks a package, without what it would do when it is installed.
pub(super) fn unpack(package: &Path, into: &Path) -> Result<()> {
    output(Command::new("dpkg-deb").arg("--extract").args([package, into])).map(drop)
}

/// The packages in a folder.
pub(super) fn packages(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("{} can't be read", folder.display()))?;
    let mut packages: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    packages.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    Ok(packages)
}

/// The archives that this machine's apt reads: label and mirror of each.
fn configured() -> Result<Vec<(String, String)>> {
    let text = output(Command::new("apt-get").args(["indextargets", "--format", "$(LABEL)|$(SITE)"]))?;
    let pairs = text.lines().filter_map(|line| line.split_once('|'));
    Ok(pairs
        .map(|(label, site)| (label.to_owned(), site.to_owned()))
        .collect())
}

fn site(known: &[(String, String)], archive: Archive) -> Result<&str> {
    let label = archive.label();
    let found = known.iter().find(|(known, _)| known == label);
    found.map(|(_, site)| site.as_str()).with_context(|| {
        format!(
            "this machine's apt has read no archive `{label}`: add it to its sources and run `apt-get update`"
        )
    })
}

fn source(site: &str, suite: &str, has_keyring: bool) -> String {
    let option = if has_keyring {
        format!("[signed-by={KEYRING}] ")
    } else {
        String::new()
    };
    format!("deb {option}{site} {suite} main\n")
}

/// What a command prints.
///
/// # Errors
///
/// It fails; with what it said.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("{command:?} can't be started"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed ({}): {}", output.status, said.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{command:?} printed no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_suites_come_from_the_mirror_that_is_configured() {
        let known = [
            ("Debian".to_owned(), "http://mirror.example/debian".to_owned()),
            ("Other".to_owned(), "http://other.example".to_owned()),
        ];
        let site = site(&known, Archive::Main).expect("it is known");
        let line = source(site, "bookworm-backports", false);
        assert_eq!(line, "deb http://mirror.example/debian bookworm-backports main\n");
    }

    #[test]
    fn an_archive_that_apt_does_not_know_is_named() {
        let error = site(&[], Archive::Security).expect_err("nothing is known");
        assert!(error.to_string().contains("`Debian-Security`"), "{error}");
    }
}

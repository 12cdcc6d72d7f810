//! One command in one guest, for whoever needs another kernel than this machine's.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::initramfs::{Files, Job};
use super::kernel::{FAMILIES, Kernel};
use super::qemu::Qemu;
use super::{Room, boot, cache};
use crate::ui::Step;

/// What is to be run, and where.
pub(crate) struct Errand<'a> {
    /// One word.
    pub(crate) name: &'a str,
    /// As `cargo xtask vm --kernel` takes it.
    pub(crate) kernel: &'a str,
    /// Our own programs with where they stand in the guest, without a slash before it.
    pub(crate) programs: &'a [(String, PathBuf)],
    /// Programs of this machine that the command calls, beyond those that every guest has.
    pub(crate) tools: &'a [&'a str],
    /// Words with spaces between them.
    pub(crate) command: &'a str,
    pub(crate) limit: Duration,
}

impl Errand<'_> {
    /// Boots a guest, lets it run the command and returns the JSON document that it printed in one line, whether it
    /// succeeded or not.
    ///
    /// # Errors
    ///
    /// qemu or the kernel can't be had, or no document came; with the last that the guest said.
    pub(crate) fn document(&self) -> Result<String> {
        let family = FAMILIES.iter().find(|family| family.version == self.kernel);
        let family = family.with_context(|| format!("there is no kernel {}", self.kernel))?;
        let qemu = Qemu::get(&cache())?;
        let kernel = Kernel::get(family, &cache())?;
        let job = Job {
            name: self.name.to_owned(),
            limit: self.limit,
            command: self.command.to_owned(),
        };
        let archive = Files::gather(self.programs, self.tools)?.archive(&kernel, family, &[job])?;
        let scratch = tempfile::tempdir()?;
        let room = Room::new(scratch.path(), &archive)?;
        let step = Step::start(&format!("{} on {}", self.name, kernel.release));
        let mut heard = Heard::default();
        let broken = boot::run(&qemu, &room.disk(&kernel), self.limit, &step, |line| {
            heard.line(line);
            None
        })?;
        match (broken, heard.document) {
            (None, Some(document)) => {
                step.done("measured");
                Ok(document)
            }
            (Some(why), _) => {
                step.failed("the guest didn't come to its end");
                bail!("the guest didn't come to its end: {why}")
            }
            (None, None) => {
                step.failed("no document");
                let status = heard.status.unwrap_or_default();
                let last = boot::last_words(&room.console);
                bail!("`{}` ended with status {status}; {last}", self.command)
            }
        }
    }
}

/// What the guest said.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    document: Option<String>,
    status: Option<String>,
}

impl Heard {
    fn line(&mut self, line: &str) {
        let line = line.trim_end();
        if line.starts_with('{') {
            self.document = Some(line.to_owned());
        } else if let Some((_, status)) = line.strip_prefix("@end ").and_then(|end| end.rsplit_once(' ')) {
            self.status = Some(status.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_heard_between_other_lines() {
        let mut heard = Heard::default();
        for line in [
            "@kernel 6.12\r\n",
            "@suite the bench\n",
            "{\"a\": 1}\r\n",
            "\n",
            "@end the bench 1\n",
            "@done\n",
        ] {
            heard.line(line);
        }
        assert_eq!(heard.document.as_deref(), Some("{\"a\": 1}"));
        assert_eq!(heard.status.as_deref(), Some("1"));
    }
}

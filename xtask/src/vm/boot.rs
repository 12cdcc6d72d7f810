//! One guest: booted, listened to, and ended when it says nothing for too long.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::qemu::Qemu;
use crate::interrupt;
use crate::ui::Step;

/// From the start to the first line.
const BOOT: Duration = Duration::from_secs(300);
/// What a job may take beyond its own limit.
const GRACE: Duration = Duration::from_secs(60);
/// What a guest says last.
const DONE: &str = "@done";
const LOOK: Duration = Duration::from_millis(500);

/// KVM isn't asked for, so that results don't depend on whether the machine has it. `rep movsb` is emulated byte by byte,
/// and five levels of page tables cost a fifth level of walks: both go.
const MACHINE: &[&str] = &[
    "-accel",
    "tcg,thread=multi",
    "-cpu",
    "max,erms=off,fsrm=off,la57=off",
    "-smp",
    "2",
    "-m",
    "3G",
    "-nodefaults",
    "-no-reboot",
    "-display",
    "none",
];
/// A panic ends the guest. Its timer can be late on a busy machine, which old kernels take for a broken one.
const COMMAND_LINE: &str = "console=ttyS0 loglevel=4 panic=-1 no_timer_check tsc=reliable clocksource=tsc mitigations=off rdinit=/init";

/// What a guest is made of.
pub(super) struct Disk<'a> {
    pub(super) image: &'a Path,
    pub(super) initramfs: &'a Path,
    /// Gets what the kernel says.
    pub(super) console: &'a Path,
}

/// Boots a guest and lets it run all its jobs, of which none takes longer than `longest`. `listen` gets each line that the
/// guest says, and returns what is worth telling whoever waits.
///
/// Returns why the guest didn't come to its end; `None`: it did. What it said until then is its result.
///
/// # Errors
///
/// qemu can't be started, or the task was interrupted.
pub(super) fn run(
    qemu: &Qemu,
    disk: &Disk<'_>,
    longest: Duration,
    step: &Step,
    mut listen: impl FnMut(&str) -> Option<String>,
) -> Result<Option<String>> {
    let machine = Machine::start(&mut command(qemu, disk))?;
    let (mut is_up, mut is_done) = (false, false);
    let ended = loop {
        match machine.next_line(if is_up { longest + GRACE } else { BOOT }) {
            Ok(Some(line)) => {
                is_up = true;
                is_done |= line.trim_end() == DONE;
                if let Some(news) = listen(&line) {
                    step.note(&news);
                }
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    drop(machine);
    if is_done {
        return Ok(None);
    }
    interrupt::check()?;
    let why = ended.map_or_else(|| "it ended".to_owned(), |error| error.to_string());
    Ok(Some(format!("{why}; {}", last_words(disk.console))))
}

/// The last of what the kernel and the jobs' standard errors said.
pub(super) fn last_words(console: &Path) -> String {
    let text = fs::read_to_string(console).unwrap_or_default();
    let last: Vec<&str> = text.lines().rev().take(15).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    format!("its console's last lines:\n{}", last.join("\n"))
}

fn command(qemu: &Qemu, disk: &Disk<'_>) -> Command {
    let mut command = qemu.command();
    command
        .args(MACHINE)
        .arg("-kernel")
        .arg(disk.image)
        .arg("-initrd")
        .arg(disk.initramfs)
        .args(["-append", COMMAND_LINE])
        .arg("-serial")
        .arg(format!("file:{}", disk.console.display()))
        .args(["-serial", "stdio"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    command
}

/// A running qemu; dropping it ends it.
struct Machine {
    child: Child,
    lines: Receiver<String>,
}

impl Machine {
    fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.spawn().context("qemu can't be started")?;
        let output = child.stdout.take().context("qemu has no output")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || forward(output, &sender));
        Ok(Self { child, lines })
    }

    /// `None`: it ended.
    fn next_line(&self, limit: Duration) -> Result<Option<String>> {
        let end = Instant::now() + limit;
        loop {
            interrupt::check()?;
            match self.lines.recv_timeout(LOOK) {
                Ok(line) => return Ok(Some(line)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) if Instant::now() >= end => {
                    bail!("it said nothing for {} s", limit.as_secs())
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // One that has ended already can't be killed, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn forward(output: ChildStdout, lines: &mpsc::Sender<String>) {
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        // A test may print what isn't text.
        if lines.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
            return;
        }
        line.clear();
    }
}

//! bpftrace and strace, doing what sabotd does.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// How long a tool may take to begin.
const PATIENCE: Duration = Duration::from_secs(30);

/// A tool that runs until this is dropped.
pub(super) struct Tool {
    child: Child,
    folder: TempDir,
}

impl Tool {
    fn start(name: &str, mut command: Command) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(folder.path().join("out"))?)
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{name} can't be started: install Debian's package `{name}`"))?;
        Ok(Self { child, folder })
    }

    fn output(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    /// Waits for `ready`, trying `step` in between.
    fn wait(&mut self, name: &str, mut step: impl FnMut(), ready: impl Fn(&Self) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !ready(self) {
            if let Some(status) = self.child.try_wait()? {
                bail!("{name} ended early: {status}");
            }
            if Instant::now() > deadline {
                bail!("{name} doesn't begin");
            }
            step();
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        // As from the keyboard: strace then leaves its thread in peace.
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT);
        let _ = self.child.wait();
    }
}

/// Histograms of the calls of the threads of one name, by syscall, and their failures. `call` makes one as such a thread.
pub(super) fn bpftrace(comm: &str, call: impl FnMut()) -> Result<Tool> {
    let script = format!(
        r#"tracepoint:raw_syscalls:sys_enter /comm == "{comm}"/ {{ @start[tid] = nsecs; }}
        tracepoint:raw_syscalls:sys_exit /@start[tid]/ {{
            @ns[comm, args->id] = hist(nsecs - @start[tid]);
            if (args->ret < 0) {{ @errors[comm, args->id, args->ret] = count(); }}
            delete(@start[tid]);
        }}
        interval:s:1 {{ print(@ns); }}"#
    );
    let mut command = sabot_testkit::traced::bpftrace();
    command.args(["-e", &script]);
    let mut tool = Tool::start("bpftrace", command)?;
    tool.wait("bpftrace", call, |tool| {
        fs::read_to_string(tool.output()).is_ok_and(|text| text.contains("@ns["))
    })?;
    Ok(tool)
}

/// Counts and times of the calls of one thread of this process.
pub(super) fn strace(tid: i32) -> Result<Tool> {
    let mut command = Command::new("strace");
    command.args(["-c", "-o", "/dev/null", "-p", &tid.to_string()]);
    let mut tool = Tool::start("strace", command)?;
    let status = format!("/proc/self/task/{tid}/status");
    tool.wait(
        "strace",
        || {},
        |_| {
            fs::read_to_string(&status).is_ok_and(|text| {
                let tracer = text.lines().find_map(|line| line.strip_prefix("TracerPid:"));
                tracer.is_some_and(|pid| pid.trim() != "0")
            })
        },
    )?;
    Ok(tool)
}

//! A daemon of our own: private socket, private metrics, its log kept.

mod client;

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

pub use self::client::Client;
use crate::http::{self, HttpAnswer};
use crate::metrics::Scrape;
use crate::netns::NetnsRef;
use crate::wait::{wait_for, wait_until};

const START: Duration = Duration::from_secs(20);
const STOP: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(5);

/// How a daemon is started.
#[derive(Clone, Debug)]
pub struct DaemonOptions {
    pub sabotd: PathBuf,
    pub sabot: PathBuf,
    /// The CRI socket; `None`: no runtime.
    pub runtime: Option<PathBuf>,
    /// The node's namespace; `None`: the one we are in.
    pub netns: Option<NetnsRef>,
    pub node_name: String,
    /// More flags, after ours.
    pub flags: Vec<String>,
    /// More environment.
    pub environment: Vec<(String, String)>,
}

impl DaemonOptions {
    pub fn new(sabotd: PathBuf, sabot: PathBuf) -> Self {
        Self {
            sabotd,
            sabot,
            runtime: None,
            netns: None,
            node_name: "node-a".to_owned(),
            flags: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// With the binaries in `$SABOT_BIN_DIR`, or else beside the running test's own.
    ///
    /// # Errors
    ///
    /// They aren't built.
    pub fn built() -> Result<Self> {
        let folder = match env::var_os("SABOT_BIN_DIR") {
            Some(folder) => PathBuf::from(folder),
            None => {
                let this = env::current_exe().context("the running binary has no path")?;
                let deps = this.parent().context("the running binary has no folder")?;
                deps.parent().unwrap_or(deps).to_path_buf()
            }
        };
        let options = Self::new(folder.join("sabotd"), folder.join("sabot"));
        for binary in [&options.sabotd, &options.sabot] {
            ensure!(
                binary.is_file(),
                "{} isn't built: run `cargo xtask build` first",
                binary.display()
            );
        }
        Ok(options)
    }

    #[must_use]
    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|&flag| flag.to_owned()));
        self
    }

    #[must_use]
    pub fn runtime(mut self, socket: &Path) -> Self {
        self.runtime = Some(socket.to_path_buf());
        self
    }

    #[must_use]
    pub fn netns(mut self, netns: &NetnsRef) -> Self {
        self.netns = Some(netns.clone());
        self
    }

    /// The command line, with a private socket and metrics address.
    fn command(&self, socket: &Path, metrics: SocketAddr) -> Command {
        let mut command = match &self.netns {
            Some(netns) => netns.command(&self.sabotd.to_string_lossy()),
            None => Command::new(&self.sabotd),
        };
        for (key, _) in env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("SABOT_")) {
            command.env_remove(key);
        }
        let runtime = match &self.runtime {
            Some(path) => path.display().to_string(),
            None => "none".to_owned(),
        };
        command
            .arg("--socket")
            .arg(socket)
            .args(["--metrics-address", &metrics.to_string()])
            .args(["--runtime-endpoint", &runtime])
            .args(["--node-name", &self.node_name])
            .args(["--log-format", "text"])
            .args(&self.flags)
            .envs(self.environment.iter().cloned());
        command
    }
}

/// A running daemon. Dropping it ends it; its log is shown when that happens in a panic.
#[derive(Debug)]
pub struct Daemon {
    options: DaemonOptions,
    folder: TempDir,
    metrics: SocketAddr,
    child: Child,
    ended: Option<ExitStatus>,
}

impl Daemon {
    /// Starts it and waits until it answers on its socket and says that it is healthy.
    ///
    /// # Errors
    ///
    /// It can't be started, ends, or doesn't answer in time; with its log.
    pub fn start(options: DaemonOptions) -> Result<Self> {
        let mut daemon = Self::spawn(options)?;
        let ready = wait_for(START, LOOK, || daemon.readiness());
        match ready {
            Some(Ok(())) => Ok(daemon),
            Some(Err(status)) => bail!("sabotd ended ({status}):\n{}", daemon.log()),
            None => bail!("sabotd wasn't ready within {START:?}:\n{}", daemon.log()),
        }
    }

    /// Starts it and doesn't wait: for starts that are meant to fail.
    ///
    /// # Errors
    ///
    /// It can't be started.
    pub fn spawn(options: DaemonOptions) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("sabot-daemon-").tempdir()?;
        let metrics = http::free_address(options.netns.as_ref())?;
        let log = File::create(folder.path().join("log"))?;
        let child = options
            .command(&folder.path().join("sabotd.sock"), metrics)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A Ctrl-C at the terminal is for the test, which then ends the daemon.
            .process_group(0)
            .spawn()
            .with_context(|| format!("{} can't be started", options.sabotd.display()))?;
        Ok(Self {
            options,
            folder,
            metrics,
            child,
            ended: None,
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The pid of the process that removes its filters if it is killed.
    pub fn reaper(&self) -> Option<u32> {
        let own = format!("PPid:\t{}\n", self.pid());
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.find(|pid| is_reaper(*pid) && status_of(*pid).contains(&own))
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("sabotd.sock")
    }

    /// Where `/metrics`, `/healthz` and `/readyz` are, as the daemon's namespace sees it.
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics
    }

    /// Everything it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Runs `sabot` against this daemon; a failure of the command is for the caller to see.
    ///
    /// # Errors
    ///
    /// It can't be started.
    pub fn sabot<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Output> {
        self.sabot_command(arguments)
            .output()
            .with_context(|| format!("{} can't be started", self.options.sabot.display()))
    }

    /// `sabot` with arguments, to be run by the caller: with input, or in the background.
    pub fn sabot_command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(&self.options.sabot);
        command.arg("--socket").arg(self.socket()).args(arguments);
        command
    }

    /// Runs `sabot` and returns what it printed.
    ///
    /// # Errors
    ///
    /// It didn't succeed; with what it said.
    pub fn sabot_ok<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<String> {
        let output = self.sabot(arguments)?;
        if !output.status.success() {
            let words: Vec<_> = arguments
                .iter()
                .map(|word| word.as_ref().to_string_lossy())
                .collect();
            bail!(
                "`sabot {}` failed ({}): {}",
                words.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs `sabot` with `-o json` and returns the document that it printed.
    ///
    /// # Errors
    ///
    /// It didn't succeed, or didn't print one document.
    pub fn sabot_json<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Value> {
        let mut all: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
        all.extend([OsStr::new("-o"), OsStr::new("json")]);
        let text = self.sabot_ok(&all)?;
        serde_json::from_str(&text).with_context(|| format!("`sabot` didn't print a document: {text}"))
    }

    /// A gRPC client on its socket.
    ///
    /// # Errors
    ///
    /// It doesn't answer.
    pub fn client(&self) -> Result<Client> {
        Client::connect(&self.socket())
    }

    /// The status and the body of an HTTP request to its metrics address.
    ///
    /// # Errors
    ///
    /// It doesn't answer.
    pub fn http(&self, path: &str) -> Result<(u16, String)> {
        let answer = self.http_as(path, "*/*")?;
        Ok((answer.status, answer.body))
    }

    /// The answer to an HTTP request that accepts these media types.
    ///
    /// # Errors
    ///
    /// It doesn't answer.
    pub fn http_as(&self, path: &str, accept: &str) -> Result<HttpAnswer> {
        http::get(self.options.netns.as_ref(), self.metrics, path, accept)
    }

    /// Everything that `/metrics` says now.
    ///
    /// # Errors
    ///
    /// It doesn't answer, or not in the text format.
    pub fn scrape(&self) -> Result<Scrape> {
        let (status, body) = self.http("/metrics")?;
        ensure!(status == 200, "/metrics answered {status}: {body}");
        Scrape::parse(&body)
    }

    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// It is no more.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        ensure!(self.ended.is_none(), "sabotd has ended already");
        kill(Pid::from_raw(self.child.id().cast_signed()), signal)
            .with_context(|| format!("{signal} can't be sent"))
    }

    /// Kills it with SIGKILL and waits for its end.
    ///
    /// # Errors
    ///
    /// It is no more.
    pub fn kill9(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.wait_end(STOP).map(drop)
    }

    /// The same after its reaper was killed.
    ///
    /// # Errors
    ///
    /// Either is no more.
    pub fn kill9_with_reaper(&mut self) -> Result<()> {
        let reaper = self.reaper().context("sabotd has no reaper")?;
        kill(Pid::from_raw(reaper.cast_signed()), Signal::SIGKILL).context("the reaper can't be killed")?;
        self.kill9()
    }

    /// Ends it with SIGTERM; returns how it ended.
    ///
    /// # Errors
    ///
    /// It didn't end in time.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait_end(STOP)
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    ///
    /// It doesn't, within the time.
    pub fn wait_end(&mut self, timeout: Duration) -> Result<ExitStatus> {
        wait_for(timeout, LOOK, || self.poll_end())
            .with_context(|| format!("sabotd still runs after {timeout:?}:\n{}", self.log()))
    }

    /// Stops it with SIGSTOP, until [`Daemon::resume`].
    ///
    /// # Errors
    ///
    /// It is no more.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        let stat = format!("/proc/{}/stat", self.pid());
        let is_stopped = || {
            let text = fs::read_to_string(&stat).unwrap_or_default();
            text.rsplit_once(") ")
                .is_some_and(|(_, rest)| rest.starts_with('T'))
        };
        ensure!(wait_until(STOP, LOOK, is_stopped), "sabotd doesn't stop");
        Ok(())
    }

    /// # Errors
    ///
    /// It is no more.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn poll_end(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// `None`: not yet.
    fn readiness(&mut self) -> Option<Result<(), ExitStatus>> {
        if let Some(status) = self.poll_end() {
            return Some(Err(status));
        }
        let answers = UnixStream::connect(self.socket()).is_ok();
        let healthy = answers && self.http("/healthz").is_ok_and(|(status, _)| status == 200);
        healthy.then_some(Ok(()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.poll_end().is_none() {
            // It may have been stopped.
            let _ = self.resume();
            if self.terminate().is_err() {
                let _ = self.kill9();
            }
        }
        if thread::panicking() {
            let status = self
                .ended
                .map_or(-1, |status| status.code().or(status.signal()).unwrap_or(-1));
            eprintln!(
                "---- sabotd's log (it ended with {status}) ----\n{}----",
                self.log()
            );
        }
    }
}

/// Whether a daemon's reaper has this pid.
pub fn is_reaper(pid: u32) -> bool {
    status_of(pid).starts_with("Name:\tsabotd-reaper\n")
}

/// Of a process; empty where there is none.
fn status_of(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default()
}

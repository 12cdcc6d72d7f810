//! A real containerd with real pods, private to a test: own root, state, socket, network and node.
//!
//! The node is a network namespace that the fixture makes; everything else lies in a directory of its own. All of it goes
//! with the guard, whatever state containerd is in by then. Needs root and Debian's packages, which a failure names.

mod cleanup;
mod client;
mod config;
pub mod fake;
mod image;
mod machine;
mod manifest;
mod node;
mod pod;
mod pods;

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sabot_proto::runtime::v1::{ImageSpec, ListPodSandboxRequest, PullImageRequest};
use tempfile::TempDir;
use tonic::{Code, Response, Status};

pub use self::cleanup::mounts_below;
pub use self::client::{CallRecord, Cri};
pub use self::manifest::ManifestPod;
pub use self::pod::{ExecResult, Pod, PodSpec};

use self::client::Client;
use self::config::Layout;
use self::image::BUSYBOX;
use self::node::Node;

/// Longer than it takes on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// For one sandbox when everything is taken down; what is left then is removed by force.
const TEARDOWN_TIMEOUT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// A running containerd; dropping it removes its pods, processes, mounts, cgroups and files.
#[derive(Debug)]
pub struct Containerd {
    process: Child,
    client: Client,
    node: Node,
    layout: Layout,
    /// What it is started by.
    prefix: Vec<OsString>,
    /// Ids of all sandboxes that were ever made here.
    sandboxes: Mutex<Vec<String>>,
    pods: AtomicU64,
    // Last: it is removed after everything in it has been closed.
    _directory: TempDir,
}

impl Containerd {
    /// Starts one in a new directory inside `workdir`. The directory's path must leave room for a socket's, which has at
    /// most 107 bytes.
    pub fn start(workdir: &Path) -> Result<Self> {
        Self::start_under(workdir, &[])
    }

    /// Starts one whose mounts are shared with its containers where they ask for it, as systemd has them on real nodes. It
    /// has a mount namespace for that, since this machine's mounts may be private: what it mounts isn't seen outside.
    ///
    /// # Errors
    ///
    /// As for [`Containerd::start`].
    pub fn start_with_shared_mounts(workdir: &Path) -> Result<Self> {
        let prefix = ["unshare", "--mount", "--propagation", "shared"];
        Self::start_under(workdir, &prefix.map(OsString::from))
    }

    /// Starts it by another program, which must become containerd in the end: its arguments are these, and then containerd's
    /// command line.
    pub fn start_under(workdir: &Path, prefix: &[OsString]) -> Result<Self> {
        machine::check()?;
        let directory = tempfile::Builder::new()
            .prefix("cri-")
            .tempdir_in(workdir)
            .with_context(|| format!("making a directory in {}", workdir.display()))?;
        let name = directory
            .path()
            .file_name()
            .context("a temporary directory has a name")?;
        let layout = Layout {
            root: directory.path().to_owned(),
            id: format!("sabot-{}", name.to_string_lossy().to_lowercase()),
        };
        layout.write()?;
        let node = Node::create(layout.node())?;
        let process = spawn(&node, &layout, prefix)?;
        let mut containerd = Self {
            process,
            client: Client::new(&layout.socket())?,
            node,
            layout,
            prefix: prefix.to_vec(),
            sandboxes: Mutex::new(Vec::new()),
            pods: AtomicU64::new(0),
            _directory: directory,
        };
        containerd.wait_until_ready()?;
        containerd.import_image()?;
        Ok(containerd)
    }

    /// Kills the containerd with SIGKILL; its pods run on.
    ///
    /// # Errors
    ///
    /// It can't be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill().context("killing containerd")?;
        self.process.wait().context("waiting for containerd's end")?;
        Ok(())
    }

    /// Starts the one that was killed again, on the same socket and with the same pods.
    ///
    /// # Errors
    ///
    /// It doesn't become ready; with its log.
    pub fn start_again(&mut self) -> Result<()> {
        self.process = spawn(&self.node, &self.layout, &self.prefix)?;
        self.wait_until_ready()
    }

    /// The CRI socket.
    pub fn socket(&self) -> PathBuf {
        self.layout.socket()
    }

    /// Opens the node's network namespace.
    pub fn node_netns(&self) -> &Path {
        self.node.path()
    }

    /// Process id of containerd.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A call of the runtime's, by its name; it is recorded as all of the fixture's own are.
    ///
    /// # Errors
    ///
    /// The runtime's status.
    pub fn call<T, F>(&self, name: &str, call: impl FnOnce(Cri) -> F) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.client.call(name, call)
    }

    /// Has an image pulled; there is no registry, so that it can only fail.
    ///
    /// # Errors
    ///
    /// The runtime's status.
    pub fn pull(&self, image: &str) -> Result<String> {
        self.client.pull(PullImageRequest {
            image: Some(ImageSpec { image: image.into() }),
            sandbox_config: None,
        })
    }

    /// Every call to the runtime that was answered so far, but for those of `ctr`.
    pub fn calls(&self) -> Vec<CallRecord> {
        self.client.records()
    }

    /// A command that runs on the node, in its network namespace.
    pub fn node_command(&self, program: &str) -> Command {
        self.node.command(program)
    }

    /// Where everything of this containerd lies; gone with it.
    pub fn directory(&self) -> &Path {
        &self.layout.root
    }

    fn made_sandboxes(&self) -> MutexGuard<'_, Vec<String>> {
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn list_sandboxes(&self) -> Result<Vec<String>> {
        let list = |mut cri: Cri| async move { cri.list_pod_sandbox(ListPodSandboxRequest::default()).await };
        let list = self
            .client
            .call_within(TEARDOWN_TIMEOUT, "ListPodSandbox", list)?;
        Ok(list.items.into_iter().map(|item| item.id).collect())
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = self.process.try_wait()? {
                bail!("containerd ended at its start with {status}; {}", self.log_tail());
            }
            match self.list_sandboxes() {
                Ok(_) => return Ok(()),
                // Without its CRI plugin it serves everything else, and always will.
                Err(e) if Instant::now() > deadline || has_code(&e, Code::Unimplemented) => {
                    return Err(e.context(format!("containerd did not become ready; {}", self.log_tail())));
                }
                Err(_) => thread::sleep(POLL),
            }
        }
    }

    fn import_image(&self) -> Result<()> {
        let archive = self.layout.image();
        image::write_archive(&archive, &applets()?)?;
        self.import(&archive, image::IMAGE)?;
        fs::remove_file(&archive)?;
        Ok(())
    }

    /// Imports an image's archive, and waits until pods can have the image of this name.
    ///
    /// # Errors
    ///
    /// containerd doesn't take the archive, or it has another image.
    pub fn import(&self, archive: &Path, name: &str) -> Result<()> {
        self.ctr(&["images", "import", &archive.to_string_lossy()])?;
        // The CRI plugin learns of images from events, and marks those that it has taken up.
        let deadline = Instant::now() + START_TIMEOUT;
        let is_taken =
            |line: &str| line.starts_with(name) && line.contains("io.cri-containerd.image=managed");
        while !self.ctr(&["images", "list"])?.lines().any(is_taken) {
            ensure!(
                Instant::now() < deadline,
                "CRI did not take up the image {name}; {}",
                self.log_tail()
            );
            thread::sleep(POLL);
        }
        Ok(())
    }

    fn ctr(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new("ctr")
            .arg("--address")
            .arg(self.socket())
            .args(["--namespace", "k8s.io"])
            .args(arguments)
            .output()
            .context("running ctr")?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "`ctr {}` failed: {stderr}",
            arguments.join(" ")
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.layout.log()).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        format!(
            "containerd's last words:\n{}",
            lines[lines.len().saturating_sub(15)..].join("\n")
        )
    }

    /// In order: stopping containerd doesn't stop pods.
    fn remove_pods(&self) {
        let sandboxes = self.list_sandboxes().unwrap_or_default();
        thread::scope(|scope| {
            for id in &sandboxes {
                // What can't be stopped in order is killed afterwards.
                scope.spawn(|| self.remove_sandbox(id));
            }
        });
    }

    fn is_running(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    fn stop_process(&mut self) {
        let Ok(pid) = self.process.id().try_into().map(Pid::from_raw) else {
            return;
        };
        let deadline = Instant::now() + STOP_TIMEOUT;
        let _ = kill(pid, Signal::SIGTERM);
        while self.is_running() {
            if Instant::now() > deadline {
                let _ = self.process.kill();
                let _ = self.process.wait();
                return;
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.remove_pods();
        let (socket, cgroup) = (self.layout.socket(), self.layout.cgroup());
        // Their shims end by themselves, a moment later, and tidy up as they go.
        let deadline = Instant::now() + STOP_TIMEOUT;
        while !cleanup::shims_of(&socket).is_empty() && self.is_running() && Instant::now() < deadline {
            thread::sleep(POLL);
        }
        self.stop_process();
        cleanup::kill_all(|| cleanup::shims_of(&socket));
        cleanup::kill_all(|| cleanup::processes_in_cgroup(&cgroup));
        cleanup::unmount_below(&self.layout.root);
        cleanup::remove_cgroup(&cgroup);
        cleanup::remove_shim_sockets(&self.layout.bundles());
        cleanup::remove_cni_cache(&self.layout.id, &self.made_sandboxes());
    }
}

fn spawn(node: &Node, layout: &Layout, prefix: &[OsString]) -> Result<Child> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(layout.log())
        .context("opening containerd's log")?;
    let containerd = OsString::from("containerd");
    let mut words = prefix.iter().chain([&containerd]);
    let program = words.next().context("there is a program")?;
    node.command(program)
        .args(words)
        .arg("--config")
        .arg(layout.config())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("starting containerd")
}

fn has_code(error: &anyhow::Error, code: Code) -> bool {
    error
        .downcast_ref::<Status>()
        .is_some_and(|status| status.code() == code)
}

fn applets() -> Result<Vec<String>> {
    let output = Command::new(BUSYBOX)
        .arg("--list")
        .output()
        .context("running busybox")?;
    Ok(String::from_utf8(output.stdout)?
        .lines()
        .map(String::from)
        .collect())
}

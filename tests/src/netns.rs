//! Network namespaces: one that a test owns, and references to those of others.

use std::fs::{self, File};
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// Where `ip netns` looks for namespaces.
const FOLDER: &str = "/run/netns";

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A network namespace of our own; dropping it unmounts its file and lets it go.
#[derive(Debug)]
pub struct Netns {
    reference: NetnsRef,
    name: String,
}

impl Netns {
    /// Makes `/run/netns/PREFIX-PID-N`, where `ip -n NAME` finds it, with `lo` up.
    ///
    /// # Errors
    ///
    /// Names the step that failed; without root that is the first.
    pub fn new(prefix: &str) -> Result<Self> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{prefix}-{}-{number}", process::id());
        let path = Path::new(FOLDER).join(&name);
        fs::create_dir_all(FOLDER).with_context(|| format!("{FOLDER} can't be created"))?;
        File::create_new(&path).with_context(|| format!("{} can't be created", path.display()))?;
        let mounted = path.clone();
        let made = thread::spawn(move || -> Result<()> {
            unshare(CloneFlags::CLONE_NEWNET).context("no new network namespace (root is needed)")?;
            let this = Path::new("/proc/thread-self/ns/net");
            mount(Some(this), &mounted, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .with_context(|| format!("the namespace can't be mounted on {}", mounted.display()))
        })
        .join();
        match made {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let _ = fs::remove_file(&path);
                return Err(error);
            }
            Err(_) => bail!("the thread that makes {name} panicked"),
        }
        let reference = NetnsRef::open(&path)?;
        let netns = Self { reference, name };
        netns.ip(&["link", "set", "lo", "up"])?;
        Ok(netns)
    }

    /// The name that `ip -n` and `ip netns` know.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Deref for Netns {
    type Target = NetnsRef;

    fn deref(&self) -> &NetnsRef {
        &self.reference
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let path = &self.reference.path;
        if let Err(error) = umount2(path, MntFlags::MNT_DETACH) {
            eprintln!("{} can't be unmounted: {error}", path.display());
        }
        if let Err(error) = fs::remove_file(path) {
            eprintln!("{} can't be removed: {error}", path.display());
        }
    }
}

/// A network namespace that may belong to someone else. While this or a clone of it lives, so does the namespace.
#[derive(Clone, Debug)]
pub struct NetnsRef {
    file: Arc<OwnedFd>,
    path: PathBuf,
    inode: u64,
}

impl NetnsRef {
    /// Opens a namespace by its path, as `/run/netns/x` or `/proc/PID/ns/net`.
    ///
    /// # Errors
    ///
    /// The path can't be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("{} can't be opened", path.display()))?;
        let inode = file
            .metadata()
            .with_context(|| format!("{} has no inode", path.display()))?
            .ino();
        Ok(Self {
            file: Arc::new(file.into()),
            path: path.to_path_buf(),
            inode,
        })
    }

    /// The namespace of this process.
    ///
    /// # Errors
    ///
    /// `/proc` isn't mounted.
    pub fn host() -> Result<Self> {
        Self::open(Path::new("/proc/self/ns/net"))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The inode of its nsfs file, which is its identity.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Runs a closure on a thread of its own inside. Sockets that it makes stay inside wherever they are used.
    ///
    /// # Panics
    ///
    /// With the closure's panic; or when the namespace can't be entered, which takes root.
    pub fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        let result = thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter();
                    inside()
                })
                .join()
        });
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Starts a thread that lives inside.
    pub fn spawn<T: Send + 'static>(&self, inside: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let this = self.clone();
        thread::spawn(move || {
            this.enter();
            inside()
        })
    }

    /// A command that runs inside; only its network namespace differs from ours.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let file = Arc::clone(&self.file);
        // SAFETY: between fork and exec the closure makes one system call on a file that it owns; it neither allocates
        // nor takes a lock.
        unsafe {
            command.pre_exec(move || {
                setns(file.as_fd(), CloneFlags::CLONE_NEWNET)
                    .map_err(|errno| io::Error::from_raw_os_error(errno as i32))
            });
        }
        command
    }

    /// Runs `ip` inside and returns what it printed.
    ///
    /// # Errors
    ///
    /// Holds what `ip` said.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        checked_output(self.command("ip").args(arguments))
    }

    fn enter(&self) {
        if let Err(error) = setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET) {
            panic!(
                "the namespace {} (fd {}) can't be entered: {error}",
                self.path.display(),
                self.file.as_raw_fd()
            );
        }
    }
}

/// Standard output of a command.
///
/// # Errors
///
/// It can't be started, or doesn't succeed: then with its standard error.
pub(crate) fn checked_output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("{command:?} can't be started"))?;
    if !output.status.success() {
        bail!(
            "{command:?} failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("{command:?} didn't print text"))
}

//! A network namespace for a test, held by a thread: no mount, no process, gone with its guard.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;

type Job = Box<dyn FnOnce() + Send>;

pub(crate) struct TestNetns {
    path: PathBuf,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl TestNetns {
    pub(crate) fn new() -> Self {
        let (ready, path) = mpsc::channel();
        let (jobs, queue) = mpsc::channel::<Job>();
        let thread = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace needs root");
            let path = format!("/proc/{}/task/{}/ns/net", std::process::id(), gettid());
            ready.send(PathBuf::from(path)).unwrap();
            for job in queue {
                job();
            }
        });
        Self {
            path: path.recv().expect("the thread made its namespace"),
            jobs: Some(jobs),
            thread: Some(thread),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` inside.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        let job = Box::new(move || done.send(work()).unwrap());
        self.jobs.as_ref().unwrap().send(job).unwrap();
        result.recv().expect("the work inside the namespace panicked")
    }

    /// Runs `ip` with these arguments inside.
    pub(crate) fn ip(&self, arguments: &str) {
        self.ip_output(arguments);
    }

    pub(crate) fn ip_output(&self, arguments: &str) -> String {
        let words: Vec<String> = arguments.split_whitespace().map(String::from).collect();
        let Output {
            status,
            stdout,
            stderr,
        } = self.run(move || {
            Command::new("ip")
                .args(words)
                .output()
                .expect("iproute2 is installed")
        });
        assert!(
            status.success(),
            "ip {arguments}: {}",
            String::from_utf8_lossy(&stderr)
        );
        String::from_utf8(stdout).unwrap()
    }
}

impl Drop for TestNetns {
    fn drop(&mut self) {
        let inode = |path: &Path| path.metadata().map(|file| file.ino()).ok();
        let own = inode(&self.path);
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // A thread counts as joined before the kernel has let go of its namespaces; its number may be another one's then.
        while own.is_some() && inode(&self.path) == own {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

//! Pods of a lab under the names that a container runtime, here a fake one, gives them.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sabot_proto::sabot::v1::{ListTargetsRequest, target};
use sabot_testkit::cri::fake::{Events, FakeRuntime, FakeSandbox, socket_in};
use sabot_testkit::daemon::Client;
use sabot_testkit::wait::wait_for;
use sabot_testkit::{Daemon, DaemonOptions, Lab};
use tempfile::TempDir;

use super::spec;
use crate::interrupt;

const NAMESPACE: &str = "bench";
/// A daemon that opens nothing for this long has attached what it is to attach beforehand.
const QUIET: Duration = Duration::from_millis(500);
/// The label of the first pods of each of the counts that were asked for.
const FIRST: &str = "first";

/// A runtime that knows all pods of a lab but the first one, which is everybody's peer.
pub(super) struct Pods {
    _runtime: FakeRuntime,
    folder: TempDir,
    known: usize,
}

impl Pods {
    /// With a label for the first ones of each of these counts, of which [`Pods::first`] makes a target.
    ///
    /// # Errors
    ///
    /// There is no temporary folder.
    pub(super) fn of(lab: &Lab, counts: &[usize]) -> Result<Self> {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let runtime = FakeRuntime::start(&socket_in(&folder), "1", Events::Unimplemented);
        let pods = lab.pods().iter().skip(1);
        let known = pods.len();
        for (index, pod) in pods.enumerate() {
            let mut sandbox = FakeSandbox::ready(&format!("pod-{index}"), pod.netns().path());
            sandbox.namespace = NAMESPACE.to_owned();
            let labels = counts.iter().filter(|count| index < **count);
            sandbox.labels = labels
                .map(|count| (format!("{FIRST}-{count}"), "yes".to_owned()))
                .collect();
            sandbox.addresses = vec![pod.ipv4().to_string()];
            runtime.put(&format!("sandbox-{index}"), sandbox);
        }
        Ok(Self {
            _runtime: runtime,
            folder,
            known,
        })
    }

    /// The first pods, as many as that; the count must be one of those that there is a label for.
    pub(super) fn first(count: usize) -> target::Kind {
        spec::pods(NAMESPACE, &format!("{FIRST}-{count}"), "yes")
    }

    /// A daemon that asks this runtime.
    pub(super) fn options(&self, options: &DaemonOptions, lab: &Lab) -> DaemonOptions {
        options
            .clone()
            .runtime(&socket_in(&self.folder))
            .netns(lab.node())
    }

    /// Starts a daemon and waits until it knows all pods and has come to rest.
    ///
    /// # Errors
    ///
    /// It doesn't.
    pub(super) fn start(&self, options: DaemonOptions) -> Result<(Daemon, Client)> {
        let daemon = Daemon::start(options)?;
        let client = daemon.client()?;
        let listed = || {
            let request = ListTargetsRequest {
                namespace: Some(NAMESPACE.to_owned()),
            };
            let answer = client.wait(client.nodes().list_targets(request)).ok()?;
            (answer.into_inner().targets.len() == self.known).then_some(())
        };
        wait_for(spec::PATIENCE, Duration::from_millis(10), listed)
            .with_context(|| format!("the daemon doesn't find {} pods", self.known))?;
        wait_quiet(&daemon)?;
        Ok((daemon, client))
    }
}

/// Waits until the daemon has stopped opening descriptors: what it attaches beforehand is attached.
fn wait_quiet(daemon: &Daemon) -> Result<()> {
    let folder = format!("/proc/{}/fd", daemon.pid());
    let end = Instant::now() + spec::PATIENCE;
    let (mut last, mut since) = (0, Instant::now());
    while since.elapsed() < QUIET {
        interrupt::sleep(Duration::from_millis(20))?;
        ensure!(
            Instant::now() < end,
            "the daemon doesn't come to rest in {:?}",
            spec::PATIENCE
        );
        let now = fs::read_dir(&folder)
            .with_context(|| format!("{folder} can't be read"))?
            .count();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    Ok(())
}

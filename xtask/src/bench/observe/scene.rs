//! Pods that the daemon knows by name, so that what they do is counted and not only seen.

use anyhow::Result;
use sabot_testkit::cri::fake::{Events, FakeRuntime, FakeSandbox, socket_in};
use sabot_testkit::{Daemon, Lab};
use tempfile::TempDir;

use crate::bench::Plan;

/// A lab with a runtime that names its pods.
pub(super) struct Scene {
    // What is above ends before what is below.
    _runtime: FakeRuntime,
    folder: TempDir,
    pub(super) lab: Lab,
}

impl Scene {
    pub(super) fn new(pods: usize) -> Result<Self> {
        let lab = Lab::new(pods)?;
        let folder = tempfile::tempdir()?;
        let runtime = FakeRuntime::start(&socket_in(&folder), "1.7.0", Events::Offered);
        for (number, pod) in lab.pods().iter().enumerate() {
            let name = format!("pod-{number}");
            let sandbox = FakeSandbox {
                addresses: vec![pod.ipv4().to_string(), pod.ipv6().to_string()],
                ..FakeSandbox::ready(&name, pod.netns().path())
            };
            runtime.put(&name, sandbox);
        }
        Ok(Self {
            _runtime: runtime,
            folder,
            lab,
        })
    }

    pub(super) fn daemon(&self, plan: &Plan, flags: &[&str]) -> Result<Daemon> {
        let options = plan.options.clone().netns(self.lab.node()).flags(flags);
        Daemon::start(options.runtime(&socket_in(&self.folder)))
    }
}

//! iperf3 between two pods.

use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sabot_testkit::LabPod;
use sabot_testkit::wait::wait_until;
use serde_json::Value;

const PORT: &str = "5201";
/// What a stream takes at most beyond its time, in seconds.
const PATIENCE: u32 = 15;
const START: Duration = Duration::from_secs(10);

/// A server; dropping it ends it.
pub(super) struct Server {
    child: Child,
    address: String,
}

impl Server {
    /// # Errors
    ///
    /// It can't be started, or doesn't listen.
    pub(super) fn start(pod: &LabPod) -> Result<Self> {
        let address = pod.ipv4().to_string();
        let child = pod
            .netns()
            .command("iperf3")
            .args(["--server", "--bind", &address, "--port", PORT])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("iperf3 can't be started")?;
        let server = Self { child, address };
        let listens = || {
            let mut command = pod.netns().command("ss");
            let output = command.args(["-Hltn", &format!("sport = :{PORT}")]).output();
            output.is_ok_and(|output| !output.stdout.is_empty())
        };
        ensure!(
            wait_until(START, Duration::from_millis(20), listens),
            "iperf3 doesn't listen on port {PORT}"
        );
        Ok(server)
    }

    /// Bits per second of one TCP stream from a pod, as the server received them; each end has a CPU of its own.
    ///
    /// # Errors
    ///
    /// iperf3 fails.
    pub(super) fn receive(&self, from: &LabPod, seconds: u32) -> Result<f64> {
        let output = from
            .netns()
            .command("timeout")
            .args([&(seconds + PATIENCE).to_string(), "iperf3"])
            .args(["--client", &self.address, "--port", PORT, "--json"])
            .args(["--time", &seconds.to_string()])
            // Where the scheduler puts the two ends decides more than anything that is measured here.
            .args(["--affinity", "0,1"])
            .output()
            .context("iperf3 can't be started")?;
        // What `timeout` says of a command that it had to end.
        ensure!(
            output.status.code() != Some(124),
            "iperf3 doesn't come to an end {PATIENCE} s after its time"
        );
        let answer: Value = serde_json::from_slice(&output.stdout).context("iperf3 printed no JSON")?;
        answer["end"]["sum_received"]["bits_per_second"]
            .as_f64()
            .with_context(|| format!("iperf3 failed: {}", answer["error"]))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

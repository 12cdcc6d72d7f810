//! iperf3 between two pods.

use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sabot_testkit::LabPod;
use sabot_testkit::wait::{on_this_machine, wait_until};
use serde_json::Value;

const PORT: &str = "5201";
const START: Duration = Duration::from_secs(10);
/// What a stream takes at most.
const PATIENCE: Duration = Duration::from_secs(20);
/// What `timeout` says of a command that it had to end.
const TIMED_OUT: i32 = 124;

/// Bits per second of one TCP stream, as the server received them. Each end has a CPU of its own: where the scheduler puts
/// the two would decide more than anything that is measured here.
///
/// # Errors
///
/// iperf3 fails, or doesn't come to an end.
pub(in crate::bench) fn stream(from: &LabPod, to: &LabPod, seconds: u32) -> Result<f64> {
    let seconds = seconds.to_string();
    run(from, to, &["--time", &seconds, "--affinity", "0,1"])
}

/// Bits per second of several TCP streams together, whose ends run where the scheduler puts them, as does whatever else
/// works for them.
///
/// # Errors
///
/// As [`stream`].
pub(in crate::bench) fn streams(from: &LabPod, to: &LabPod, count: u32, seconds: u32) -> Result<f64> {
    let (seconds, count) = (seconds.to_string(), count.to_string());
    run(from, to, &["--time", &seconds, "--parallel", &count])
}

/// Bits per second of one TCP stream by Reno, whose answer to a loss theory knows.
///
/// # Errors
///
/// As [`stream`].
pub(in crate::bench) fn reno(from: &LabPod, to: &LabPod, seconds: u32) -> Result<f64> {
    run(
        from,
        to,
        &["--time", &seconds.to_string(), "--congestion", "reno"],
    )
}

/// One TCP stream of so many bytes, however long it takes.
///
/// # Errors
///
/// As [`stream`].
pub(in crate::bench) fn transfer(from: &LabPod, to: &LabPod, bytes: u64) -> Result<()> {
    run(from, to, &["--bytes", &bytes.to_string()]).map(drop)
}

fn run(from: &LabPod, to: &LabPod, options: &[&str]) -> Result<f64> {
    // A server for each run: one that serves several may be busy with the end of the last, or end with its error.
    let server = Server::start(to)?;
    let patience = on_this_machine(PATIENCE).as_secs();
    let output = from
        .netns()
        .command("timeout")
        .arg(patience.to_string())
        .args(["iperf3", "--client", &server.address, "--port", PORT])
        .arg("--json")
        .args(options)
        .output()
        .context("iperf3 can't be started")?;
    ensure!(
        output.status.code() != Some(TIMED_OUT),
        "iperf3 hasn't come to an end after {patience} s"
    );
    let answer: Value = serde_json::from_slice(&output.stdout).context("iperf3 printed no JSON")?;
    answer["end"]["sum_received"]["bits_per_second"]
        .as_f64()
        .with_context(|| format!("iperf3 failed: {}", answer["error"]))
}

/// A server; dropping it ends it.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(pod: &LabPod) -> Result<Self> {
        let address = pod.ipv4().to_string();
        let child = pod
            .netns()
            .command("iperf3")
            .args(["--server", "--one-off", "--bind", &address, "--port", PORT])
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
            wait_until(START, Duration::from_millis(5), listens),
            "iperf3 doesn't listen on port {PORT}"
        );
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

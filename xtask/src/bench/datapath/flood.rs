//! Many small datagrams, and the sender's time for each.

use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg};
use nix::time::{ClockId, clock_gettime};
use sabot_testkit::{Lab, LabPod};

use super::addresses::RANGE;

/// Datagrams in one system call.
const BATCH: usize = 64;
const PAYLOAD: [u8; 32] = [0x5a; 32];
/// The next hop of everything that is sent.
const SINK: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);

/// Sends everything for [`RANGE`] to the sink: the bridge finds that its frames would leave by the port that they came
/// in by, and drops them. That is as cheap as it gets, and the same for all pods.
///
/// # Errors
///
/// Holds what `ip` or `bridge` said.
pub(super) fn sink(lab: &Lab, pod: &LabPod) -> Result<()> {
    let std::net::IpAddr::V4(own) = pod.ipv4() else {
        anyhow::bail!("a pod of the lab has no IPv4 address");
    };
    let mac = format!("02:00:00:00:fe:{:02x}", own.octets()[3]);
    let sink = SINK.to_string();
    pod.netns().ip(&[
        "neighbour",
        "add",
        &sink,
        "lladdr",
        &mac,
        "dev",
        "eth0",
        "nud",
        "permanent",
    ])?;
    pod.netns()
        .ip(&["route", "add", RANGE, "via", &sink, "dev", "eth0", "onlink"])?;
    let output = lab
        .node()
        .command("bridge")
        .args(["fdb", "add", &mac, "dev", pod.port(), "master", "static"])
        .output()
        .context("`bridge` can't be started")?;
    ensure!(
        output.status.success(),
        "`bridge fdb add` failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// A socket in a pod that sends to anybody.
pub(super) struct Sender(UdpSocket);

impl Sender {
    /// # Errors
    ///
    /// The pod has no UDP socket.
    pub(super) fn new(pod: &LabPod) -> Result<Self> {
        let socket = pod
            .netns()
            .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))
            .context("the pod has no UDP socket")?;
        Ok(Self(socket))
    }

    /// Sends one datagram to each destination. Returns the processor time of this thread for each in ns: with what the
    /// kernel does in its name down to the bridge, and without what others on this machine do meanwhile.
    ///
    /// # Errors
    ///
    /// One can't be sent.
    pub(super) fn flood(&self, destinations: &[SocketAddrV4]) -> Result<f64> {
        let addresses: Vec<Option<SockaddrIn>> = destinations
            .iter()
            .map(|to| Some(SockaddrIn::from(*to)))
            .collect();
        let payload = [IoSlice::new(&PAYLOAD)];
        let slices = vec![payload; BATCH];
        let mut headers = MultiHeaders::preallocate(BATCH, None);
        let before = thread_time()?;
        let mut sent = 0;
        while sent < addresses.len() {
            let batch = &addresses[sent..addresses.len().min(sent + BATCH)];
            let results = sendmmsg(
                self.0.as_raw_fd(),
                &mut headers,
                &slices[..batch.len()],
                batch,
                [],
                MsgFlags::empty(),
            )
            .context("a datagram can't be sent")?;
            sent += results.count();
        }
        let took = thread_time()?.saturating_sub(before);
        Ok(took.as_secs_f64() * 1e9 / sent as f64)
    }
}

fn thread_time() -> Result<Duration> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("the thread's time can't be read")?;
    Ok(time.into())
}

//! Traffic between namespaces that knows exactly what was sent, what arrived, and when.

mod bulk;
mod counterpart;
mod dnsmasq;
mod echo;
mod names;
mod ping;
mod probe;
mod stamped;
mod stream;
mod udp;

pub use bulk::{Bulk, Received, Sent};
pub use counterpart::Counterpart;
pub use dnsmasq::{Dnsmasq, FOREIGN_NAME, KNOWN_NAME, Lookup, MISSING_NAME};
pub use echo::{Echo, echo_once};
pub use names::NameServer;
pub use ping::{PingReport, ping};
pub use probe::{INTERVAL, Outage, Passage, ProbeServer, Prober, Sample};
pub use stamped::{Arrival, StampedLoad};
pub use stream::Stream;
pub use udp::{MIN_PAYLOAD, UdpLoad, UdpReceiver, UdpReport};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often a waiting thread looks whether it is to end.
const TICK: Duration = Duration::from_millis(50);

/// Tells threads to end; set when its owner is dropped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The median of durations; zero of none.
pub fn median(mut values: Vec<Duration>) -> Duration {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// The error of a system call that answers 0 when it succeeds.
pub(crate) fn cvt(result: libc::c_int) -> std::io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

/// Gives a socket a receive buffer in which a paused reader loses nothing; root may go over the system's limit.
pub(crate) fn grow_receive_buffer(
    socket: &impl std::os::fd::AsRawFd,
    bytes: libc::c_int,
) -> std::io::Result<()> {
    // SAFETY: the option's value is a `c_int` that outlives the call, and its size is given as such.
    cvt(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const bytes).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })
}

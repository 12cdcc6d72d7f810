//! Events as streams carry them, decoded and enriched.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use sabot_core::model::FaultName;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::identity::Identity;
use super::identity::containers::Container;

/// The streams in which the kernel can lose events.
pub const STREAM_CRI: &str = "cri";
pub const STREAM_DNS: &str = "dns";
pub const STREAM_DROPS: &str = "drops";
pub const STREAM_PACKETS: &str = "packets";
pub const STREAM_QUERIES: &str = "queries";
pub const STREAM_SYSCALLS: &str = "syscalls";
pub const STREAM_TCP: &str = "tcp";

#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub time: SystemTime,
    /// In which it happened, or that it is about; a sandbox has no name.
    pub container: Option<Arc<Container>>,
    pub kind: EventKind,
}

#[derive(Clone, Debug, PartialEq)]
pub enum EventKind {
    Packet(PacketEvent),
    Syscall(SyscallEvent),
    Fault(FaultEvent),
    Cri(CriEvent),
    Container(ContainerEvent),
    Dns(DnsEvent),
    Drop(DropEvent),
    Tcp(TcpEvent),
    /// The receiver was too slow, or a ring was full: this many events of the stream are missing here.
    Lost {
        stream: &'static str,
        count: u64,
    },
}

/// A sampled packet that a fault decided on.
#[derive(Clone, Debug, PartialEq)]
pub struct PacketEvent {
    pub fault: FaultName,
    pub pod_namespace: String,
    pub pod_name: String,
    pub device: String,
    pub egress: bool,
    /// `passed`, `dropped`, `bypassed`, `delayed`, `corrupted`.
    pub outcome: &'static str,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub source_port: u16,
    pub destination_port: u16,
    pub protocol: u8,
    pub wire_packets: u32,
    pub wire_bytes: u32,
}

/// A slow or failed syscall of a watched process.
#[derive(Clone, Debug, PartialEq)]
pub struct SyscallEvent {
    /// The watched name, or the path of the watched cgroup.
    pub process: String,
    /// The thread's own name.
    pub comm: String,
    /// 0 where the daemon's pid namespace doesn't know the process.
    pub pid: u32,
    pub tid: u32,
    pub syscall: &'static str,
    pub duration: Duration,
    pub result: i64,
    /// `None` when it succeeded; otherwise as `ENOENT`.
    pub errno: Option<&'static str>,
    /// What it was about: names and values, in the order of the arguments.
    pub detail: Vec<(&'static str, String)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FaultEvent {
    pub fault: FaultName,
    /// `applied`, `edited`, `injected`, `partial`, `failed`, `expired`, `deleted`; of one target the moments of its timeline.
    pub change: &'static str,
    pub message: String,
    /// The target that it happened to; `None` for the fault as a whole.
    pub target: Option<Arc<Identity>>,
}

/// A call of the container runtime that has ended. What isn't known is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CriEvent {
    /// As `RunPodSandbox`; `unknown` where its name wasn't seen.
    pub operation: &'static str,
    pub pod_namespace: String,
    pub pod_name: String,
    /// Ids.
    pub sandbox: String,
    pub container: String,
    pub image: String,
    /// Who asked.
    pub process: String,
    /// 0 for a process of another pid namespace.
    pub pid: u32,
    /// `None` where its beginning wasn't seen.
    pub duration: Option<Duration>,
    /// gRPC's code as `NotFound`, or in lower case what it has none for: `unread`, `reset`, `disconnected`, `lost`.
    pub outcome: &'static str,
    /// The runtime's words on a failure.
    pub message: String,
}

/// What the container runtime says has happened to a container or to a sandbox. What isn't known is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerEvent {
    /// `created`, `started`, `stopped`, `deleted`, or `other`.
    pub change: &'static str,
    pub pod_namespace: String,
    pub pod_name: String,
    /// Ids.
    pub sandbox: String,
    /// Empty for the sandbox itself.
    pub container: String,
}

/// A packet that something else than a fault dropped.
#[derive(Clone, Debug, PartialEq)]
pub struct DropEvent {
    pub owner: Arc<Identity>,
    pub egress: bool,
    /// As the kernel names it.
    pub reason: String,
    /// Unspecified for what isn't IP.
    pub source: IpAddr,
    pub destination: IpAddr,
    pub source_port: u16,
    pub destination_port: u16,
    pub protocol: u8,
    pub wire_packets: u32,
    pub wire_bytes: u32,
}

/// A query that went wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct DnsEvent {
    pub owner: Arc<Identity>,
    pub outcome: DnsOutcome,
    /// Empty where it could not be read.
    pub name: String,
    /// As `AAAA`; empty where it could not be read.
    pub kind: String,
    pub server: IpAddr,
    /// As `SERVFAIL`; `None` without an answer.
    pub rcode: Option<&'static str>,
    /// From the first sending to the answer, or until it was given up.
    pub latency: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsOutcome {
    Unanswered,
    /// Answered late, and with nothing wrong otherwise.
    Slow,
    /// The answer says that something failed.
    Failed,
}

/// Something that happened to a TCP connection.
#[derive(Clone, Debug, PartialEq)]
pub struct TcpEvent {
    pub owner: Arc<Identity>,
    pub change: TcpChange,
    /// Both ends are unspecified, with port 0, for a reset that answers a segment of no connection.
    pub local: IpAddr,
    pub remote: IpAddr,
    /// 0 where the kernel had none yet, or no longer.
    pub local_port: u16,
    pub remote_port: u16,
    /// As `ETIMEDOUT`.
    pub errno: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpChange {
    /// A connection that the owner asked for was never established; without an error the application gave it up.
    ConnectFailed,
    /// An error ended an established connection.
    Lost,
    ResetSent,
    ResetReceived,
    /// The retransmission timer ran out.
    Rto,
}

/// Told whether somebody reads every event; false when it needn't be told any more.
type Tap = Box<dyn Fn(bool) -> bool + Send + Sync>;

/// Where events are published; slow readers lose events and are told how many.
#[derive(Clone)]
pub struct EventHub {
    sender: broadcast::Sender<Arc<Event>>,
    demand: Arc<Mutex<Demand>>,
}

/// Who reads every event, and who wants to know whether somebody does.
#[derive(Default)]
struct Demand {
    readers: usize,
    taps: Vec<Tap>,
}

impl EventHub {
    pub fn new(capacity: usize) -> Self {
        Self {
            sender: broadcast::Sender::new(capacity),
            demand: Arc::default(),
        }
    }

    /// Never blocks; without readers the event is dropped.
    pub fn publish(&self, event: Event) {
        let _ = self.sender.send(Arc::new(event));
    }

    /// Every event from now on.
    pub fn subscribe(&self) -> Subscription {
        Subscription {
            events: self.sender.subscribe(),
            _reader: Some(Reader::new(&self.demand)),
        }
    }

    /// What is published anyway: of what happens often, as much as it takes to know a recent one of each kind.
    pub fn overhear(&self) -> Subscription {
        Subscription {
            events: self.sender.subscribe(),
            _reader: None,
        }
    }

    /// Tells whether somebody reads every event, now and at each change, before whoever begins to read has his subscription;
    /// as long as `tap` answers with true.
    pub fn on_demand(&self, tap: impl Fn(bool) -> bool + Send + Sync + 'static) {
        let mut demand = lock(&self.demand);
        if tap(demand.readers > 0) {
            demand.taps.push(Box::new(tap));
        }
    }
}

/// Events, until this is dropped.
pub struct Subscription {
    events: broadcast::Receiver<Arc<Event>>,
    /// Of one that has every event.
    _reader: Option<Reader>,
}

impl Subscription {
    /// The next event.
    ///
    /// # Errors
    ///
    /// When events were missed, or nobody can publish any more.
    pub async fn recv(&mut self) -> Result<Arc<Event>, RecvError> {
        self.events.recv().await
    }

    /// The next event, if there is one by now.
    ///
    /// # Errors
    ///
    /// As [`Self::recv`], and when there is none.
    pub fn try_recv(&mut self) -> Result<Arc<Event>, TryRecvError> {
        self.events.try_recv()
    }

    /// Events that have come and weren't received yet.
    pub fn waiting(&self) -> usize {
        self.events.len()
    }
}

/// Counts as somebody who reads every event.
struct Reader(Arc<Mutex<Demand>>);

impl Reader {
    fn new(demand: &Arc<Mutex<Demand>>) -> Self {
        lock(demand).change(|readers| readers + 1);
        Self(Arc::clone(demand))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        lock(&self.0).change(|readers| readers - 1);
    }
}

impl Demand {
    fn change(&mut self, change: impl FnOnce(usize) -> usize) {
        let before = self.readers > 0;
        self.readers = change(self.readers);
        let now = self.readers > 0;
        if now != before {
            self.taps.retain(|tap| tap(now));
        }
    }
}

fn lock(demand: &Mutex<Demand>) -> MutexGuard<'_, Demand> {
    demand.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taps_are_told_of_the_first_reader_and_of_the_last() {
        let hub = EventHub::new(4);
        let told = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&told);
        hub.on_demand(move |wanted| {
            noted.lock().unwrap().push(wanted);
            true
        });
        let overheard = hub.overhear();
        let first = hub.subscribe();
        let second = hub.subscribe();
        drop(first);
        assert_eq!(*told.lock().unwrap(), [false, true]);
        drop((second, overheard));
        assert_eq!(*told.lock().unwrap(), [false, true, false]);
    }

    #[test]
    fn a_tap_that_has_gone_is_told_nothing_more() {
        let hub = EventHub::new(4);
        let told = Arc::new(Mutex::new(0));
        let noted = Arc::clone(&told);
        hub.on_demand(move |wanted| {
            *noted.lock().unwrap() += 1;
            !wanted
        });
        drop(hub.subscribe());
        drop(hub.subscribe());
        assert_eq!(*told.lock().unwrap(), 2);
    }
}

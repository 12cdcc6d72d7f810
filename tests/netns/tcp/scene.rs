//! An observer in the test's own process, told its owners by the test.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sabot_abi::{NO_OWNER, OwnerKey, PEER_PUBLIC};
use sabot_testkit::NetnsRef;
use sabot_testkit::rig::PATIENCE;
use sabot_testkit::wait::wait_for;
use sabotd::kernel::netns::cookie;
use sabotd::kernel::tcp::TcpProgramConfig;
use sabotd::observe::event::{EventHub, EventKind, Subscription, TcpEvent};
use sabotd::observe::flows::{self, Counted, Flow, FlowQuery};
use sabotd::observe::identity::{Identities, Identity, Owner, Owners};
use sabotd::observe::tcp::{DEFAULTS, TcpObserver, TcpTotals, start};
use tokio::runtime::Runtime;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::watch;

/// Counters that stand still for this long have come to rest.
const REST: Duration = Duration::from_millis(300);

pub(crate) struct Scene {
    pub(crate) observer: TcpObserver,
    events: Subscription,
    owners: watch::Sender<Arc<Owners>>,
    // Dropped after what it runs.
    pub(crate) runtime: Runtime,
}

impl Scene {
    /// Observes these namespaces, whose owners have the numbers 1, 2 and so on.
    pub(crate) fn new(namespaces: &[&NetnsRef]) -> Self {
        let owners = (1..).zip(namespaces).map(|(number, netns)| pod(number, netns));
        Self::with(Owners::new(owners), DEFAULTS.ring_bytes)
    }

    pub(crate) fn with(owners: Owners, ring_bytes: u32) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime starts");
        let hub = EventHub::new(1 << 16);
        let events = hub.subscribe();
        let (sender, receiver) = watch::channel(Arc::new(owners));
        let config = TcpProgramConfig {
            ring_bytes,
            ..DEFAULTS
        };
        let guard = runtime.enter();
        let observer = start(Identities::from_watch(receiver), hub, &config);
        drop(guard);
        Self {
            observer: observer.expect("root is needed to observe TCP"),
            events,
            owners: sender,
            runtime,
        }
    }

    /// Says who is there from now on, and waits until the kernel knows.
    pub(crate) fn tell(&self, owners: Vec<Owner>) {
        let keys = owners.iter().map(|owner| owner.keys.len()).sum::<usize>();
        let count = owners.len();
        self.owners.send_replace(Arc::new(Owners::new(owners)));
        let known = || self.observer.entries().expect("the maps can be read") == [keys, count, count];
        assert!(
            wait_for(PATIENCE, Duration::from_millis(2), || known().then_some(())).is_some(),
            "the kernel was not told of {count} owners: {:?}",
            self.observer.entries()
        );
    }

    pub(crate) fn totals(&self, owner: u32) -> TcpTotals {
        let totals = self.observer.totals(owner).expect("the maps can be read");
        totals.expect("the owner is known")
    }

    /// The counters once they have come to rest.
    pub(crate) fn settled(&self, owner: u32) -> TcpTotals {
        let mut last = self.totals(owner);
        let settled = wait_for(PATIENCE, Duration::ZERO, || {
            thread::sleep(REST);
            let now = self.totals(owner);
            let same = now == last;
            last = now;
            same.then(|| last.clone())
        });
        settled.unwrap_or_else(|| panic!("the counters of {owner} don't come to rest"))
    }

    /// Owners of connections that are followed, leaving out those of the rest of the machine.
    pub(crate) fn followed(&self) -> Vec<u32> {
        let mut owners = self.observer.followed().expect("the maps can be read");
        owners.retain(|owner| *owner != NO_OWNER);
        owners
    }

    pub(crate) fn flows(&self, query: &FlowQuery) -> Vec<Flow> {
        let connections = self.observer.connections().expect("the maps can be read");
        let counted = connections.into_iter().map(Counted::Tcp);
        flows::top(counted, &self.observer.owners(), query, |_| PEER_PUBLIC)
    }

    /// Events that have come so far, and how many were lost.
    pub(crate) fn events(&mut self) -> (Vec<TcpEvent>, u64) {
        let (mut events, mut lost) = (Vec::new(), 0);
        loop {
            match self.events.try_recv() {
                Ok(event) => match &event.kind {
                    EventKind::Tcp(tcp) => events.push(tcp.clone()),
                    EventKind::Lost { count, .. } => lost += count,
                    other => panic!("{other:?} is not TCP's"),
                },
                Err(TryRecvError::Empty) => return (events, lost),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

pub(crate) fn pod(number: u32, netns: &NetnsRef) -> Owner {
    owner(number, vec![key(netns, 0)])
}

pub(crate) fn owner(number: u32, keys: Vec<OwnerKey>) -> Owner {
    Owner {
        number,
        identity: Arc::new(Identity::Pod {
            namespace: "shop".into(),
            name: format!("pod-{number}"),
        }),
        keys,
        paths: Vec::new(),
    }
}

pub(crate) fn key(netns: &NetnsRef, cgroup: u64) -> OwnerKey {
    let file = std::fs::File::open(netns.path()).expect("the namespace has a file");
    OwnerKey {
        cookie: cookie(file.as_fd()).expect("the namespace has a cookie"),
        cgroup,
    }
}

/// Reads all that arrives on as many connections as there come, and closes each when the other end has; gives their
/// number of bytes.
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    received: Arc<AtomicU64>,
    thread: JoinHandle<u64>,
}

impl Sink {
    pub(crate) fn start(netns: &NetnsRef, ip: IpAddr, connections: usize) -> Self {
        let listener = netns.run(|| TcpListener::bind((ip, 0))).expect("an address");
        let address = listener.local_addr().expect("an address");
        let received = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&received);
        let thread = thread::spawn(move || {
            let each: Vec<_> = (0..connections)
                .map(|_| listener.accept().expect("a connection").0)
                .map(|connection| {
                    let count = Arc::clone(&count);
                    thread::spawn(move || drain(connection, &count))
                })
                .collect();
            each.into_iter()
                .map(|thread| thread.join().expect("it reads"))
                .sum()
        });
        Self {
            address,
            received,
            thread,
        }
    }

    /// Waits until so many bytes have arrived in all.
    pub(crate) fn wait(&self, bytes: u64) {
        let arrived = || self.received.load(Ordering::Relaxed);
        let complete = wait_for(PATIENCE, Duration::from_millis(5), || {
            (arrived() >= bytes).then_some(())
        });
        assert!(complete.is_some(), "{} of {bytes} bytes arrived", arrived());
    }

    pub(crate) fn finish(self) -> u64 {
        self.thread.join().expect("it accepts")
    }
}

fn drain(mut connection: TcpStream, count: &AtomicU64) -> u64 {
    let (mut chunk, mut bytes) = (vec![0; 1 << 16], 0);
    loop {
        match connection.read(&mut chunk) {
            Ok(0) => return bytes,
            Ok(length) => {
                bytes += length as u64;
                count.fetch_add(length as u64, Ordering::Relaxed);
            }
            Err(error) => panic!("after {bytes} bytes: {error}"),
        }
    }
}

pub(crate) fn connect(netns: &NetnsRef, to: SocketAddr) -> TcpStream {
    let connection = netns.run(|| TcpStream::connect(to));
    let connection = connection.unwrap_or_else(|error| panic!("no connection to {to}: {error}"));
    connection.set_nodelay(true).expect("an option");
    connection
}

pub(crate) fn send(connection: &mut TcpStream, bytes: usize) {
    let chunk = vec![7; 1 << 16];
    let mut rest = bytes;
    while rest > 0 {
        let length = rest.min(chunk.len());
        connection.write_all(&chunk[..length]).expect("it can be sent");
        rest -= length;
    }
}

//! The calls of the container runtime's clients: which, about what, by whom, how long, with what end.
//!
//! They are read from what is sent over connections to the runtime's socket, whoever made those and whenever: gRPC is
//! protobuf in HTTP/2. A connection abbreviates what it has said before, so that of one that is older than the observer some
//! names stay open until they are spelt out anew; a call is then known by the shape of its messages, where only one has that
//! shape, or by an abbreviation that such a call had before, or it is counted as `unknown`. The daemon's own calls are left
//! out.

mod book;
mod connection;
pub mod containers;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod hpack;
mod http2;
mod message;
mod names;
mod operations;
mod places;
mod shape;
mod socket;
mod status;
mod table;
#[cfg(test)]
mod testing;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sabot_abi::{CriChunk, SocketFile};
use sabot_core::model::BootTime;

pub use self::book::{BOUNDS, OperationStats};
pub use self::operations::UNKNOWN;
pub use self::places::{Known, PodName, Sandboxes};

use self::connection::{Ended, News};
use self::message::Message;
use self::operations::{Subject, is_poll};
use self::places::Places;
use self::socket::SocketWatch;
use self::status::{DISCONNECTED, LOST};
pub use self::status::{OK, OUTCOMES};
use self::table::Table;
use super::clock;
use super::event::{CriEvent, Event, EventHub, EventKind, STREAM_CRI};
use super::ring::{OwnedTask, StreamLoss, consume_entries, read};
use crate::kernel::boot_time;
use crate::kernel::cri::{CriProgramError, CriPrograms, socket_file};

/// From this duration on a call that only asks is an event too.
const SLOW_POLL: Duration = Duration::from_secs(1);
/// How often the runtime's socket is looked at, besides when another one comes, and who of its clients still runs.
const LOOK: Duration = Duration::from_millis(200);

/// Where the runtime's socket is now; `None`: nowhere.
pub type Locate = Box<dyn Fn() -> Option<PathBuf> + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum CriError {
    #[error(transparent)]
    Programs(#[from] CriProgramError),
    #[error("the ring of what is sent can't be polled: {0}")]
    Ring(#[source] io::Error),
}

/// Everything counted since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CriSnapshot {
    /// By the operation's name.
    pub operations: BTreeMap<&'static str, OperationStats>,
    /// How often a connection could not be followed for a while.
    pub out_of_sync: u64,
}

/// The programs in the kernel, and the tasks that read what they copy; all end when this is dropped.
pub struct CriObserver {
    state: Arc<Mutex<State>>,
    loss: Arc<StreamLoss>,
    reader: OwnedTask,
    follower: OwnedTask,
}

/// Begins to observe; events go to `hub`. Must be called within a tokio runtime.
///
/// # Errors
///
/// When this kernel or this process's privileges don't allow it.
pub fn start(locate: Locate, known: Known, hub: EventHub) -> Result<CriObserver, CriError> {
    let (programs, ring) = CriPrograms::attach()?;
    let state = Arc::new(Mutex::new(State::new(programs, known)));
    lock(&state).follow(locate().as_deref());
    let loss = Arc::new(StreamLoss::new(STREAM_CRI, lost_chunks(Arc::clone(&state))));
    let (reading, publisher) = (Arc::clone(&state), hub.clone());
    let reader = consume_entries(ring, hub.clone(), Arc::clone(&loss), move |entry| {
        let Some((chunk, bytes)) = split(entry) else {
            return false;
        };
        let events = lock(&reading).hear(&chunk, bytes);
        events.into_iter().for_each(|event| publisher.publish(event));
        true
    })
    .map_err(CriError::Ring)?;
    let follower = tokio::spawn(follow(Arc::clone(&state), locate, hub));
    Ok(CriObserver {
        state,
        loss,
        reader,
        follower: OwnedTask::new(&follower),
    })
}

/// Sees to it that the runtime's socket of now is observed, for ever.
async fn follow(state: Arc<Mutex<State>>, locate: Locate, hub: EventHub) {
    let mut looks = clock::ticks(LOOK);
    let mut watch = SocketWatch::new();
    loop {
        let socket = locate();
        if let Some(socket) = &socket {
            watch.watch(socket);
        }
        // What has come before the watch began is seen now.
        let events = lock(&state).follow(socket.as_deref());
        events.into_iter().for_each(|event| hub.publish(event));
        tokio::select! {
            _ = looks.tick() => {}
            () = watch.changed() => {}
        }
    }
}

impl CriObserver {
    pub fn snapshot(&self) -> CriSnapshot {
        lock(&self.state).snapshot()
    }

    /// Pieces of what was sent that never were read; what is made of the rest may lack some calls.
    pub fn lost_chunks(&self) -> u64 {
        self.loss.total()
    }

    /// Whether it still reads.
    pub fn is_running(&self) -> bool {
        self.reader.is_running() && self.follower.is_running()
    }
}

struct State {
    programs: CriPrograms,
    observed: Option<SocketFile>,
    table: Table,
    places: Places,
    known: Known,
    counted: CriSnapshot,
    own_pid: u32,
}

impl State {
    fn new(programs: CriPrograms, known: Known) -> Self {
        Self {
            programs,
            observed: None,
            table: Table::new(),
            places: Places::default(),
            known,
            counted: CriSnapshot::default(),
            own_pid: std::process::id(),
        }
    }

    fn hear(&mut self, chunk: &CriChunk, bytes: &[u8]) -> Vec<Event> {
        let mut news = News::default();
        self.table.hear(chunk, bytes, &mut news);
        self.tell(news)
    }

    /// Sees to it that what is observed is the socket that the runtime has now, and ends what will hear no more.
    fn follow(&mut self, socket: Option<&Path>) -> Vec<Event> {
        let mut news = News::default();
        let now = boot_time().0;
        // A runtime that is away for a moment leaves its socket, or comes back with another one.
        let socket = socket.and_then(|path| socket_file(path).ok()).or(self.observed);
        if socket != self.observed {
            match self.programs.observe(socket) {
                Ok(()) => self.observed = socket,
                Err(error) => tracing::warn!(%error, "the runtime's calls are not observed"),
            }
            self.table.clear(now, &mut news);
        }
        let is_running = |pid: u32| Path::new("/proc").join(pid.to_string()).exists();
        self.table.settle(now, is_running, &mut news);
        self.tell(news)
    }

    fn tell(&mut self, news: News) -> Vec<Event> {
        self.counted.out_of_sync += news.out_of_sync;
        news.ended
            .into_iter()
            .filter_map(|ended| self.count(ended))
            .collect()
    }

    /// Counts a call, and makes an event of it where it deserves one.
    fn count(&mut self, ended: Ended) -> Option<Event> {
        let client = ended.client;
        if client.pid == self.own_pid {
            return None;
        }
        let is_seen = ![LOST, DISCONNECTED].contains(&ended.outcome);
        let duration = ended
            .start
            .map(|start| Duration::from_nanos(ended.end.saturating_sub(start)));
        let stats = self.counted.operations.entry(ended.operation).or_default();
        stats.count(ended.outcome, duration.filter(|_| is_seen));

        let request = Message::of_grpc(&ended.request);
        let answer = Message::of_grpc(&ended.answer).filter(|_| ended.outcome == OK);
        let mut subject = Subject::of(ended.operation, request, answer);
        self.places.complete(&mut subject, &self.known);
        if ended.outcome == OK {
            self.places.learn(ended.operation, &subject);
            self.known.learn(&subject);
        }
        if !deserves_event(ended.operation, ended.outcome, duration) {
            return None;
        }
        let container = self.known.container(&subject);
        let (pod_namespace, pod_name) = subject.pod.unwrap_or_default();
        Some(Event {
            time: clock::system_time(BootTime(ended.end)),
            container,
            kind: EventKind::Cri(CriEvent {
                operation: ended.operation,
                pod_namespace,
                pod_name,
                sandbox: subject.sandbox,
                container: subject.container,
                image: subject.image,
                process: client.process.to_string(),
                pid: client.pid,
                duration,
                outcome: ended.outcome,
                message: ended.message,
            }),
        })
    }

    fn snapshot(&self) -> CriSnapshot {
        let mut snapshot = self.counted.clone();
        for (operation, count) in self.table.in_flight(|client| client.pid != self.own_pid) {
            snapshot.operations.entry(operation).or_default().in_flight = count;
        }
        snapshot
    }
}

/// Calls that only ask, and such as may do so, are too many to be told one by one.
fn deserves_event(operation: &str, outcome: &str, duration: Option<Duration>) -> bool {
    if outcome != OK {
        return true;
    }
    match operation {
        // It lasts as long as its client wants.
        "GetContainerEvents" => false,
        _ if is_poll(operation) || operation == UNKNOWN => duration.is_some_and(|took| took >= SLOW_POLL),
        _ => true,
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The head of an entry and as many bytes behind it as it says.
fn split(entry: &[u8]) -> Option<(CriChunk, &[u8])> {
    let (head, rest) = entry.split_at_checked(size_of::<CriChunk>())?;
    let chunk: CriChunk = read(head)?;
    Some((chunk, rest.get(..chunk.length as usize)?))
}

/// The kernel's count; the last one known when it can't be read now, since the count never goes back.
fn lost_chunks(state: Arc<Mutex<State>>) -> impl Fn() -> u64 + Send + Sync {
    let last = AtomicU64::new(0);
    move || match lock(&state).programs.losses() {
        Ok(lost) => last.fetch_max(lost, Ordering::Relaxed).max(lost),
        Err(error) => {
            tracing::warn!(%error, "the count of lost pieces of calls can't be read");
            last.load(Ordering::Relaxed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_acts_fails_or_is_slow_is_told_one_by_one() {
        let (quick, slow) = (Some(Duration::from_millis(3)), Some(SLOW_POLL));
        for (operation, outcome, duration, is_event) in [
            ("RunPodSandbox", "OK", quick, true),
            ("ListPodSandbox", "OK", quick, false),
            ("ListPodSandbox", "OK", slow, true),
            ("ListPodSandbox", "Unavailable", quick, true),
            ("GetContainerEvents", "OK", slow, false),
            (UNKNOWN, "OK", quick, false),
            (UNKNOWN, "OK", None, false),
            (UNKNOWN, "NotFound", None, true),
        ] {
            assert_eq!(
                deserves_event(operation, outcome, duration),
                is_event,
                "{operation} {outcome} {duration:?}"
            );
        }
    }

    #[test]
    fn an_entry_has_as_many_bytes_as_it_says() {
        let mut entry = vec![0; size_of::<CriChunk>() + 8];
        let length = std::mem::offset_of!(CriChunk, length);
        entry[length] = 5;
        assert_eq!(
            split(&entry).map(|(chunk, bytes)| (chunk.length, bytes.len())),
            Some((5, 5))
        );
        entry[length] = 9;
        assert!(split(&entry).is_none());
        assert!(split(&entry[..20]).is_none());
    }
}

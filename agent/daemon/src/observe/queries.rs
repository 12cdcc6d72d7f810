//! What the node's pods ask DNS servers over UDP and TCP: how often, what they get for an answer, how long that takes, and what is
//! never answered.
//!
//! A query that is sent again while it is open (same server, port, id and question) is a retry of the same query; its
//! latency is from the first sending on.

pub(crate) mod question;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use sabot_abi::{
    DNS_RCODE_NOERROR, DNS_RCODE_NXDOMAIN, DNS_RCODES, Histogram, QUERY_LOSS_EVENT, QUERY_LOSS_OPEN,
    QUERY_LOSS_UNREAD, Query, QueryEvent, QueryKey,
};
use sabot_core::model::BootTime;
use tokio::task::spawn_blocking;

use self::question::read_question;
use super::clock;
use super::event::{DnsEvent, DnsOutcome, Event, EventHub, EventKind, STREAM_QUERIES};
use super::follow::{follow, keys, lasting};
use super::identity::{Identities, Identity};
use super::ring::{OwnedTask, StreamLoss, publish_from};
use crate::kernel::boot_time;
use crate::kernel::object::ObjectError;
use crate::kernel::queries::{QueryProgramConfig, QueryPrograms};

/// A query that is older counts as unanswered.
pub const UNANSWERED_AFTER: Duration = Duration::from_secs(5);
/// For so long after that an answer is known to be late.
const LATE_FOR: Duration = Duration::from_secs(10);
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// As they are registered for DNS.
const RCODES: [&str; DNS_RCODES] = [
    "NOERROR",
    "FORMERR",
    "SERVFAIL",
    "NXDOMAIN",
    "NOTIMP",
    "REFUSED",
    "YXDOMAIN",
    "YXRRSET",
    "NXRRSET",
    "NOTAUTH",
    "NOTZONE",
    "DSOTYPENI",
    "RCODE12",
    "RCODE13",
    "RCODE14",
    "RCODE15",
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueriesConfig {
    /// Queries that can be open at once, with those that are kept for their late answers.
    pub open: u32,
    /// The size of the ring of events in bytes: a power of two, at least a page.
    pub ring_bytes: u32,
    /// An answer that takes longer is an event.
    pub slow_threshold: Duration,
}

impl Default for QueriesConfig {
    fn default() -> Self {
        Self {
            open: 8192,
            ring_bytes: 256 * 1024,
            slow_threshold: Duration::from_secs(1),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum QueriesError {
    #[error(transparent)]
    Programs(#[from] ObjectError),
    #[error("the ring of DNS answers can't be polled: {0}")]
    Ring(#[source] io::Error),
}

/// One owner's queries. `queries = responses + unanswered + replaced + what is open`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryStats {
    pub queries: u64,
    /// Sendings of a query that was open.
    pub retries: u64,
    /// Answers in time, by response code; those that there were none of are left out.
    pub responses: Vec<(&'static str, u64)>,
    pub unanswered: u64,
    /// Answers to queries that had been counted as unanswered.
    pub late: u64,
    /// Answers to nothing that was open.
    pub unmatched: u64,
    /// Queries in whose place came another one, with the same server, port and id.
    pub replaced: u64,
    pub latency: Histogram,
}

/// Everything counted of the owners that live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuerySnapshot {
    pub owners: BTreeMap<Arc<Identity>, QueryStats>,
    /// Queries whose answers can't be recognised for want of room, and messages that could not be read.
    pub unrecorded: [(&'static str, u64); 2],
}

/// The programs in the kernel and the tasks around them; all end when this is dropped.
pub struct QueryObserver {
    programs: Arc<QueryPrograms>,
    identities: Identities,
    unanswered: Arc<Unanswered>,
    loss: Arc<StreamLoss>,
    task: OwnedTask,
    sweeper: OwnedTask,
    _follower: OwnedTask,
}

/// By owner.
#[derive(Default)]
struct Unanswered(Mutex<BTreeMap<u32, u64>>);

impl Unanswered {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins to observe; events go to `hub`. Must be called within a tokio runtime.
///
/// # Errors
///
/// When this kernel or this process's privileges don't allow it.
pub fn start(
    config: &QueriesConfig,
    identities: &Identities,
    hub: EventHub,
) -> Result<QueryObserver, QueriesError> {
    let slow = u64::try_from(config.slow_threshold.as_nanos()).unwrap_or(u64::MAX);
    let (programs, ring) = QueryPrograms::attach(&QueryProgramConfig {
        open: config.open,
        ring_bytes: config.ring_bytes,
        slow_threshold_ns: slow,
    })?;
    let programs = Arc::new(programs);
    programs.set_owners(&keys(&identities.current()))?;
    let setter = Arc::clone(&programs);
    let follower = follow(STREAM_QUERIES, identities.watch(), move |owners| {
        setter.set_owners(owners)
    });
    let counter = Arc::clone(&programs);
    let lost = lasting(STREAM_QUERIES, move || {
        counter.losses().map(|losses| losses[QUERY_LOSS_EVENT as usize])
    });
    let loss = Arc::new(StreamLoss::new(STREAM_QUERIES, lost));
    let unanswered = Arc::new(Unanswered::default());
    let sweeper = Sweeper {
        programs: Arc::clone(&programs),
        identities: identities.clone(),
        unanswered: Arc::clone(&unanswered),
        loss: Arc::clone(&loss),
        hub: hub.clone(),
    };
    let sweeping = tokio::spawn(sweeper.run());
    let known = identities.clone();
    let task = publish_from(ring, hub, Arc::clone(&loss), move |event| decode(&known, &event))
        .map_err(QueriesError::Ring)?;
    Ok(QueryObserver {
        programs,
        identities: identities.clone(),
        unanswered,
        loss,
        task,
        sweeper: OwnedTask::new(&sweeping),
        _follower: follower,
    })
}

impl QueryObserver {
    /// Reads the kernel's counters now.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a map.
    pub fn snapshot(&self) -> Result<QuerySnapshot, ObjectError> {
        let owners = self.identities.current();
        let losses = self.programs.losses()?;
        let mut snapshot = QuerySnapshot {
            unrecorded: [
                ("open", losses[QUERY_LOSS_OPEN as usize]),
                ("unread", losses[QUERY_LOSS_UNREAD as usize]),
            ],
            ..QuerySnapshot::default()
        };
        for (number, stats) in self.totals()? {
            if let Some(owner) = owners.get(number) {
                snapshot.owners.insert(Arc::clone(&owner.identity), stats);
            }
        }
        Ok(snapshot)
    }

    /// What was asked, by owner.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a map.
    pub fn totals(&self) -> Result<HashMap<u32, QueryStats>, ObjectError> {
        let counts = self.programs.counts()?;
        let unanswered = self.unanswered.lock();
        let stats = counts.into_iter().map(|(owner, counts)| {
            let responses = RCODES.into_iter().zip(counts.responses);
            let stats = QueryStats {
                queries: counts.queries,
                retries: counts.retries,
                responses: responses.filter(|&(_, count)| count != 0).collect(),
                unanswered: unanswered.get(&owner).copied().unwrap_or(0),
                late: counts.late,
                unmatched: counts.unmatched,
                replaced: counts.replaced,
                latency: counts.latency,
            };
            (owner, stats)
        });
        Ok(stats.collect())
    }

    /// Entries in the tables: bounded by the owners that live.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a map.
    pub fn entries(&self) -> Result<usize, ObjectError> {
        Ok(self.programs.entries()? + self.unanswered.lock().len())
    }

    /// What nobody could be found for; 0 where the kernel can't be asked now.
    pub fn unresolved(&self) -> u64 {
        self.programs.unresolved().unwrap_or_default()
    }

    /// Events that never reached the hub.
    pub fn lost_events(&self) -> u64 {
        self.loss.total()
    }

    /// Whether events are still being read, and unanswered queries looked for.
    pub fn is_running(&self) -> bool {
        self.task.is_running() && self.sweeper.is_running()
    }
}

/// Looks for queries that nobody has answered.
struct Sweeper {
    programs: Arc<QueryPrograms>,
    identities: Identities,
    unanswered: Arc<Unanswered>,
    loss: Arc<StreamLoss>,
    hub: EventHub,
}

impl Sweeper {
    async fn run(self) {
        let mut ticks = clock::ticks(SWEEP_INTERVAL);
        loop {
            ticks.tick().await;
            let programs = Arc::clone(&self.programs);
            let swept = spawn_blocking(move || {
                let ago = |time: Duration| BootTime(boot_time().0.saturating_sub(time.as_nanos() as u64));
                programs.sweep(ago(UNANSWERED_AFTER), ago(UNANSWERED_AFTER + LATE_FOR))
            });
            match swept.await {
                Ok(Ok(queries)) => self.take(&queries),
                Ok(Err(error)) => tracing::warn!(%error, "unanswered DNS queries can't be looked for"),
                Err(_) => return,
            }
        }
    }

    fn take(&self, queries: &[(QueryKey, Query)]) {
        let owners = self.identities.current();
        let mut unanswered = self.unanswered.lock();
        unanswered.retain(|&number, _| owners.get(number).is_some());
        for (key, query) in queries {
            if owners.get(key.owner).is_none() {
                continue;
            }
            *unanswered.entry(key.owner).or_default() += 1;
            let message = Message {
                key,
                question: &query.question,
                length: query.length,
            };
            let event = message.event(&self.identities, DnsOutcome::Unanswered, None);
            match event {
                Some(kind) => self.hub.publish(Event {
                    time: SystemTime::now(),
                    container: self.identities.container(query.cgroup),
                    kind: EventKind::Dns(DnsEvent {
                        latency: since(query.time, boot_time().0),
                        ..kind
                    }),
                }),
                None => self.loss.discard(),
            }
        }
    }
}

fn since(begin: u64, end: u64) -> Duration {
    Duration::from_nanos(end.saturating_sub(begin))
}

/// A query as the kernel remembers it.
struct Message<'a> {
    key: &'a QueryKey,
    question: &'a [u8],
    length: u32,
}

impl Message<'_> {
    /// Without its latency; `None` where the owner isn't known any more.
    fn event(
        &self,
        identities: &Identities,
        outcome: DnsOutcome,
        rcode: Option<&'static str>,
    ) -> Option<DnsEvent> {
        let owner = identities.get(self.key.owner)?;
        let length = (self.length as usize).min(self.question.len());
        let (name, kind) = read_question(&self.question[..length]).unwrap_or_default();
        Some(DnsEvent {
            owner,
            outcome,
            name,
            kind,
            server: server(self.key.server),
            rcode,
            latency: Duration::ZERO,
        })
    }
}

fn decode(identities: &Identities, event: &QueryEvent) -> Option<Event> {
    let rcode = *RCODES.get(event.rcode as usize)?;
    let outcome = match event.rcode {
        DNS_RCODE_NOERROR | DNS_RCODE_NXDOMAIN => DnsOutcome::Slow,
        _ => DnsOutcome::Failed,
    };
    let message = Message {
        key: &event.key,
        question: &event.question,
        length: event.length,
    };
    let kind = message.event(identities, outcome, Some(rcode))?;
    Some(Event {
        time: clock::system_time(BootTime(event.time)),
        container: identities.container(event.cgroup),
        kind: EventKind::Dns(DnsEvent {
            latency: Duration::from_nanos(event.latency_ns),
            ..kind
        }),
    })
}

fn server(octets: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(octets).to_canonical()
}

//! What clients ask of DNS servers, and what becomes of it.

use crate::{Histogram, assert_layout, pod};

/// Bytes of a message's header.
pub const DNS_HEADER: usize = 12;
/// Room for a question: the longest name, its type and its class.
pub const DNS_QUESTION_ROOM: usize = 264;
/// Response codes in a message's header.
pub const DNS_RCODES: usize = 16;
pub const DNS_RCODE_NOERROR: u32 = 0;
pub const DNS_RCODE_NXDOMAIN: u32 = 3;

/// Key of a query that is open.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueryKey {
    /// IPv4 addresses are IPv4-mapped.
    pub server: [u8; 16],
    pub owner: u32,
    /// The client's, host byte order.
    pub port: u16,
    /// As the message has it.
    pub id: u16,
}
assert_layout!(QueryKey, size = 24, align = 4);

/// Nobody has answered it yet.
pub const QUERY_OPEN: u32 = 0;
/// The daemon has counted it as unanswered; an answer is late.
pub const QUERY_UNANSWERED: u32 = 1;

/// A query without an answer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// Of the first time that it was sent: `CLOCK_BOOTTIME`, ns.
    pub time: u64,
    /// The id of the client's cgroup (v2); 0 where it isn't known.
    pub cgroup: u64,
    /// `QUERY_*`.
    pub state: u32,
    /// Of the question, as far as it was copied.
    pub length: u32,
    /// What stands behind the message's header; what lies behind `length` has no meaning.
    pub question: [u8; DNS_QUESTION_ROOM],
}
assert_layout!(Query, size = 24 + DNS_QUESTION_ROOM, align = 8);

/// Counts of one owner's queries. `queries = responses + unanswered + open`, where the daemon counts the unanswered ones.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueryCounts {
    /// Each once, however often it was sent.
    pub queries: u64,
    /// Sent once more while it was open.
    pub retries: u64,
    /// Answered in time, by response code.
    pub responses: [u64; DNS_RCODES],
    /// Answered after they had been counted as unanswered.
    pub late: u64,
    /// Answers to nothing that is open: second ones, and those to queries that were not seen.
    pub unmatched: u64,
    /// Another query took its place: same server, port and id.
    pub replaced: u64,
    /// From the first sending to the answer, of those that were answered in time.
    pub latency: Histogram,
}
assert_layout!(
    QueryCounts,
    size = 8 * (2 + DNS_RCODES + 3) + size_of::<Histogram>(),
    align = 8
);

/// An answer that was slow or said that something failed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryEvent {
    /// Of the answer: `CLOCK_BOOTTIME`, ns.
    pub time: u64,
    pub latency_ns: u64,
    /// As in [`Query`].
    pub cgroup: u64,
    pub key: QueryKey,
    pub rcode: u32,
    /// Of the question.
    pub length: u32,
    pub question: [u8; DNS_QUESTION_ROOM],
}
assert_layout!(QueryEvent, size = 56 + DNS_QUESTION_ROOM, align = 8);

/// Index into the per-CPU array of what the query programs could not record: events, for want of room in the ring.
pub const QUERY_LOSS_EVENT: u32 = 0;
/// Queries that were counted and whose answers won't be, for want of room in the table of open ones.
pub const QUERY_LOSS_OPEN: u32 = 1;
/// Datagrams, and segments of TCP, to or from the DNS port that could not be read.
pub const QUERY_LOSS_UNREAD: u32 = 2;
pub const QUERY_LOSS_COUNT: u32 = 3;

pod!(QueryKey, Query, QueryCounts, QueryEvent);

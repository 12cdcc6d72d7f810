//! Connections, and what has happened to each since it was last looked at.
//!
//! A socket's own lock is held wherever these run, so that one socket is never looked at twice at once.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, PerCpuArray};
use sabot_abi::{
    NO_OWNER, NODE_OWNER, TCP_RESET_RECEIVED, TCP_RESET_SENT, TCP_RTO, TcpFirsts, TcpSocket, TcpStats,
};

use crate::losses::Loss;
use crate::sock::{Buffer, Ends, Sock};
use crate::stats::{self, now};
use crate::{atomic, events, losses, owners, peers, recent};

/// By the socket's address; the daemon sets the size. An entry goes with its socket.
#[map]
static SOCKETS: HashMap<u64, TcpSocket> = HashMap::with_max_entries(65_536, 0);

/// What stands for the entry of a connection that finds no room, until the program ends. It begins anew with each sighting, so
/// that what happens once is counted, and what is the growth of a counter is not. An interrupt that sees another such connection
/// meanwhile takes it over, and one count may go to the other's owner.
#[map]
static SPARE: PerCpuArray<TcpSocket> = PerCpuArray::with_max_entries(1, 0);

/// A connection of which nothing is known.
static EMPTY: TcpSocket = TcpSocket {
    asked: 0,
    bytes_acked: 0,
    bytes_received: 0,
    local: [0; 16],
    remote: [0; 16],
    cgroup: 0,
    owner: NO_OWNER,
    peer: 0,
    retransmits: 0,
    rtos: 0,
    segments_sent: 0,
    segments_received: 0,
    srtt: 0,
    local_port: 0,
    remote_port: 0,
};

/// The congestion control's state after the retransmission timer ran out.
const CA_LOSS: u8 = 4;
const EPERM: i32 = 1;
const ENOBUFS: i32 = 105;

/// A connection that has just begun, with counters at zero.
///
/// # Errors
///
/// [`Loss::Socket`] when its entry goes at once.
#[inline(always)]
pub fn begin(sock: Sock, asked: u64) -> Result<&'static mut TcpSocket, Loss> {
    let entry = enter(sock, Loss::Socket).ok_or(Loss::Socket)?;
    entry.asked = asked;
    Ok(entry)
}

/// `None` for a socket that was not seen before.
#[inline(always)]
pub fn known(sock: Sock) -> Option<&'static mut TcpSocket> {
    // SAFETY: the entry is removed under the socket's lock, which is held here, or by the daemon before programs are attached.
    SOCKETS
        .get_ptr_mut(sock.address())
        .map(|entry| unsafe { &mut *entry })
}

/// A socket that was perhaps not seen before; what it counted until now was then before our time.
///
/// # Errors
///
/// [`Loss::Sighting`] when its entry goes at once.
#[inline(always)]
pub fn sighted(sock: Sock) -> Result<&'static mut TcpSocket, Loss> {
    match known(sock) {
        Some(entry) => Ok(entry),
        None => meet(sock, 0),
    }
}

#[inline(always)]
pub fn forget(sock: Sock) {
    // Listening sockets and such that never connected have no entry.
    let _ = SOCKETS.remove(sock.address());
}

/// A socket that is taken for the node's may be a pod's that wasn't known when it was seen first.
///
/// # Errors
///
/// [`Loss::Unresolved`] when nobody is known to own the socket.
#[inline(always)]
pub fn owner(entry: &mut TcpSocket, sock: Sock) -> Result<&'static mut TcpStats, Loss> {
    if entry.owner == NO_OWNER || entry.owner == NODE_OWNER {
        entry.owner = owners::of(sock).ok_or(Loss::Unresolved)?;
    }
    if let Some(stats) = stats::of(entry.owner) {
        return Ok(stats);
    }
    entry.owner = NO_OWNER;
    Err(Loss::Unresolved)
}

/// Adds what the socket's counters have grown by to its owner's: the part that changes with every segment.
#[inline(always)]
fn settle_traffic(entry: &mut TcpSocket, sock: Sock, stats: &mut TcpStats) {
    let acked = sock.bytes_acked();
    if acked != entry.bytes_acked {
        atomic::add(&mut stats.bytes_sent, acked.saturating_sub(entry.bytes_acked));
        entry.bytes_acked = acked;
        entry.srtt = sock.srtt();
        stats::record(&mut stats.rtts, u64::from(entry.srtt) * 1000);
    }
    let received = sock.bytes_received();
    if received != entry.bytes_received {
        atomic::add(
            &mut stats.bytes_received,
            received.saturating_sub(entry.bytes_received),
        );
        entry.bytes_received = received;
    }
    entry.segments_sent = sock.segments_sent();
    entry.segments_received = sock.segments_received();
}

/// Adds all that the socket's counters have grown by to its owner's.
#[inline(always)]
pub fn settle(entry: &mut TcpSocket, sock: Sock, stats: &mut TcpStats) {
    if entry.local_port == 0 {
        // It was not yet chosen when the owner asked for the connection.
        let ends = sock.ends();
        entry.local = ends.local;
        entry.local_port = ends.local_port;
    }
    settle_traffic(entry, sock, stats);
    let retransmits = sock.retransmits();
    let more = retransmits.wrapping_sub(entry.retransmits);
    if more != 0 {
        entry.retransmits = retransmits;
        atomic::add(&mut stats.retransmits, more.into());
        stats::first(entry.owner, now(), |firsts| &mut firsts.retransmit);
    }
    if let Some(rtos) = sock.rtos() {
        let more = rtos.wrapping_sub(entry.rtos as u16);
        if more != 0 {
            entry.rtos = rtos.into();
            count_rtos(entry, stats, more.into());
        }
    }
}

#[inline(always)]
pub fn count_rtos(entry: &TcpSocket, stats: &mut TcpStats, more: u64) {
    let time = now();
    atomic::add(&mut stats.rtos, more);
    stats::first(entry.owner, time, |firsts| &mut firsts.rto);
    events::emit(time, entry.owner, TCP_RTO, 0, &ends(entry));
}

#[inline(always)]
pub fn ends(entry: &TcpSocket) -> Ends {
    Ends {
        local: entry.local,
        remote: entry.remote,
        local_port: entry.local_port,
        remote_port: entry.remote_port,
        cgroup: entry.cgroup,
    }
}

/// Looks at a connection once in each tick: that is all that most segments of a fast one pay. What the rest of a tick brings
/// is added with the next segment, or at the connection's end.
#[inline(always)]
pub fn try_arrival(sock: Sock) -> Result<(), Loss> {
    if !recent::is_first(sock) {
        return Ok(());
    }
    let entry = sighted(sock)?;
    let stats = owner(entry, sock)?;
    settle_traffic(entry, sock, stats);
    Ok(())
}

/// `result` is what sending came to: 0, an errno, or, above zero, a device that had no room.
#[inline(always)]
pub fn try_retransmit(sock: Sock, buffer: Buffer, result: i32) -> Result<(), Loss> {
    let entry = match known(sock) {
        Some(entry) => entry,
        None => {
            // The kernel has counted these segments already, unless it gave up before it tried to send them.
            let counted = result >= 0 || result == -EPERM || result == -ENOBUFS;
            meet(sock, if counted { buffer.segments() } else { 0 })?
        }
    };
    let stats = owner(entry, sock)?;
    settle(entry, sock, stats);
    Ok(())
}

/// The socket is the listener's, or, with TCP Fast Open, already the connection's.
#[inline(always)]
pub fn try_synack(sock: Sock) -> Result<(), Loss> {
    if let Some(entry) = known(sock) {
        // The kernel counts this one at the connection as well.
        entry.retransmits = entry.retransmits.wrapping_add(1);
    }
    let owner = owners::of(sock).ok_or(Loss::Unresolved)?;
    let stats = stats::of(owner).ok_or(Loss::Unresolved)?;
    atomic::add(&mut stats.synack_retransmits, 1);
    stats::first(owner, now(), |firsts| &mut firsts.retransmit);
    Ok(())
}

#[inline(always)]
pub fn try_congestion(sock: Sock, state: u8) -> Result<(), Loss> {
    let entry = sighted(sock)?;
    let stats = owner(entry, sock)?;
    settle(entry, sock, stats);
    if state == CA_LOSS && sock.rtos().is_none() {
        count_rtos(entry, stats, 1);
    }
    Ok(())
}

#[inline(always)]
pub fn try_reset_sent(sock: Sock, buffer: Buffer) -> Result<(), Loss> {
    let (owner, ends) = if sock.exists() {
        (owners::of(sock), sock.ends())
    } else {
        (owners::of_namespace(buffer.namespace()), Ends::NONE)
    };
    count_reset(owner, TCP_RESET_SENT, &ends, |stats| &mut stats.resets_sent)
}

#[inline(always)]
pub fn try_reset_received(sock: Sock) -> Result<(), Loss> {
    let entry = sighted(sock)?;
    let stats = owner(entry, sock)?;
    settle(entry, sock, stats);
    count_reset(Some(entry.owner), TCP_RESET_RECEIVED, &ends(entry), |stats| {
        &mut stats.resets_received
    })
}

#[inline(always)]
fn count_reset(
    owner: Option<u32>,
    kind: u32,
    ends: &Ends,
    which: impl FnOnce(&mut TcpStats) -> &mut u64,
) -> Result<(), Loss> {
    let owner = owner.ok_or(Loss::Unresolved)?;
    let stats = stats::of(owner).ok_or(Loss::Unresolved)?;
    let time = now();
    atomic::add(which(stats), 1);
    stats::first(owner, time, |firsts: &mut TcpFirsts| &mut firsts.reset);
    events::emit(time, owner, kind, 0, ends);
    Ok(())
}

/// A socket that is older than the observer, or found no room before. `new` of its segments were sent again just now.
#[inline(never)]
fn meet(sock: Sock, new: u32) -> Result<&'static mut TcpSocket, Loss> {
    let entry = enter(sock, Loss::Sighting).ok_or(Loss::Sighting)?;
    entry.bytes_acked = sock.bytes_acked();
    entry.bytes_received = sock.bytes_received();
    entry.retransmits = sock.retransmits().wrapping_sub(new);
    entry.rtos = sock.rtos().unwrap_or(0).into();
    entry.segments_sent = sock.segments_sent();
    entry.segments_received = sock.segments_received();
    entry.srtt = sock.srtt();
    Ok(entry)
}

/// An entry for a socket that has none, with what is the same for all of its life, but for its owner, whom [`owner`] finds.
/// Where there is no room the loss is counted, and the entry isn't kept.
///
/// It is filled in where it stands: kernels before 6.13 have 512 bytes of stack for a program and all that it calls, and an
/// entry is a fifth of that.
#[inline(never)]
fn enter(sock: Sock, loss: Loss) -> Option<&'static mut TcpSocket> {
    let empty: &'static TcpSocket = &EMPTY;
    let entry = if SOCKETS.insert(sock.address(), empty, 0).is_ok() {
        known(sock)?
    } else {
        losses::count(loss);
        spare()?
    };
    let ends = sock.ends();
    entry.local = ends.local;
    entry.remote = ends.remote;
    entry.local_port = ends.local_port;
    entry.remote_port = ends.remote_port;
    entry.cgroup = ends.cgroup;
    entry.peer = peers::class(ends.remote);
    Some(entry)
}

#[inline(always)]
fn spare() -> Option<&'static mut TcpSocket> {
    let spare = SPARE.get_ptr_mut(0)?;
    // SAFETY: the entry is this CPU's own and is never removed; any bytes are valid.
    let spare = unsafe { &mut *spare };
    *spare = EMPTY;
    Some(spare)
}

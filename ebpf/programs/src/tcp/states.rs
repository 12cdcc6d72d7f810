//! From the first SYN to the end of a connection.

use sabot_abi::{
    CONNECTION_ACCEPTED, CONNECTION_CLOSED, CONNECTION_FAILED, CONNECTION_OPENED, PEER_CLASSES,
    TCP_CONNECT_FAILED, TCP_LOST, TcpSocket, TcpStats, connect_errno_place,
};

use crate::losses::Loss;
use crate::sock::{Sock, TCP_CLOSE, TCP_ESTABLISHED, TCP_LISTEN, TCP_SYN_RECV, TCP_SYN_SENT};
use crate::stats::{self, now};
use crate::{atomic, events, sockets};

const ETIMEDOUT: u32 = 110;

#[inline(always)]
pub fn try_change(sock: Sock, old: u32, new: u32) -> Result<(), Loss> {
    if old == new || old == TCP_LISTEN || new == TCP_LISTEN || !sock.is_tcp() {
        return Ok(());
    }
    match (old, new) {
        (_, TCP_SYN_SENT) => opened(sock),
        (TCP_SYN_SENT | TCP_SYN_RECV, TCP_ESTABLISHED) => established(sock, old),
        (_, TCP_CLOSE) => {
            let result = ended(sock, old);
            sockets::forget(sock);
            result
        }
        _ => Ok(()),
    }
}

#[inline(always)]
fn opened(sock: Sock) -> Result<(), Loss> {
    let entry = sockets::begin(sock, now())?;
    let stats = sockets::owner(entry, sock)?;
    count(stats, entry, CONNECTION_OPENED);
    Ok(())
}

#[inline(always)]
fn established(sock: Sock, old: u32) -> Result<(), Loss> {
    let entry = match sockets::known(sock) {
        // A peer that asked at the same moment gets it established by way of SYN_RECV.
        Some(entry) if old == TCP_SYN_SENT || entry.asked != 0 => entry,
        _ if old == TCP_SYN_SENT => sockets::sighted(sock)?,
        _ => return accepted(sock),
    };
    let stats = sockets::owner(entry, sock)?;
    if entry.asked != 0 {
        // The kernel counts the acknowledged SYN as a byte.
        entry.bytes_acked = 1;
        stats::record(&mut stats.handshakes, now().saturating_sub(entry.asked));
    }
    sockets::settle(entry, sock, stats);
    Ok(())
}

/// What the kernel has counted of an accepted connection so far are its SYN-ACKs, which are counted for themselves.
#[inline(always)]
fn accepted(sock: Sock) -> Result<(), Loss> {
    let entry = sockets::begin(sock, 0)?;
    entry.retransmits = sock.retransmits();
    let stats = sockets::owner(entry, sock)?;
    count(stats, entry, CONNECTION_ACCEPTED);
    // From the SYN-ACK to its acknowledgement; unknown when it had to be sent again.
    let handshake = sock.srtt();
    if handshake != 0 {
        stats::record(&mut stats.handshakes, u64::from(handshake) * 1000);
    }
    Ok(())
}

#[inline(always)]
fn ended(sock: Sock, old: u32) -> Result<(), Loss> {
    let entry = sockets::sighted(sock)?;
    let stats = sockets::owner(entry, sock)?;
    sockets::settle(entry, sock, stats);
    let errno = sock.error();
    if old == TCP_SYN_SENT || old == TCP_SYN_RECV && entry.asked != 0 {
        failed(entry, stats, errno);
        if errno == ETIMEDOUT {
            sockets::count_rtos(entry, stats, 1);
        }
    } else if old != TCP_SYN_RECV {
        count(stats, entry, CONNECTION_CLOSED);
        if errno != 0 {
            lost(entry, stats, errno);
        }
        // The time that made the kernel give up. A keepalive or a window that stays closed ends a connection by the same
        // error, without that timer.
        if errno == ETIMEDOUT && sock.unanswered() != 0 && sock.send_window() != 0 {
            sockets::count_rtos(entry, stats, 1);
        }
    }
    Ok(())
}

#[inline(always)]
fn failed(entry: &TcpSocket, stats: &mut TcpStats, errno: u32) {
    let time = now();
    count(stats, entry, CONNECTION_FAILED);
    if let Some(errors) = stats.connect_errors.get_mut(connect_errno_place(errno)) {
        atomic::add(errors, 1);
    }
    stats::first(entry.owner, time, |firsts| &mut firsts.connect_failure);
    events::emit(
        time,
        entry.owner,
        TCP_CONNECT_FAILED,
        errno,
        &sockets::ends(entry),
    );
}

#[inline(always)]
fn lost(entry: &TcpSocket, stats: &mut TcpStats, errno: u32) {
    let time = now();
    atomic::add(&mut stats.lost, 1);
    stats::first(entry.owner, time, |firsts| &mut firsts.loss);
    events::emit(time, entry.owner, TCP_LOST, errno, &sockets::ends(entry));
}

#[inline(always)]
fn count(stats: &mut TcpStats, entry: &TcpSocket, outcome: usize) {
    let peer = entry.peer as usize;
    if peer < PEER_CLASSES {
        atomic::add(&mut stats.connections[peer][outcome], 1);
    }
}

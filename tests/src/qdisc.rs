//! The qdiscs of a network namespace, asked for over rtnetlink: many namespaces are looked at in a fraction of a second.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use nix::net::if_::if_indextoname;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

const MESSAGE_HEADER: usize = 16;
/// Of `struct tcmsg`.
const TC_HEADER: usize = 20;
const TC_IFINDEX: usize = 4;
const ATTRIBUTE_HEADER: usize = 4;
/// More than one datagram of a dump.
const BUFFER: usize = 64 << 10;

/// The device and the kind of each qdisc in the calling thread's namespace; devices that go meanwhile are left out.
///
/// # Errors
///
/// The kernel doesn't answer.
pub(crate) fn qdiscs() -> Result<Vec<(String, String)>> {
    let answer = dump().context("the kernel doesn't list its qdiscs")?;
    let mut names = BTreeMap::new();
    let mut found = Vec::new();
    for (index, kind) in answer {
        let name = names
            .entry(index)
            .or_insert_with(|| if_indextoname(index).ok()?.into_string().ok());
        found.extend(name.clone().map(|name| (name, kind)));
    }
    Ok(found)
}

/// Device indices with the kinds of their qdiscs.
fn dump() -> io::Result<Vec<(u32, String)>> {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    let mut request = Vec::new();
    request.extend(((MESSAGE_HEADER + TC_HEADER) as u32).to_ne_bytes());
    request.extend(libc::RTM_GETQDISC.to_ne_bytes());
    request.extend(((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
    request.resize(MESSAGE_HEADER + TC_HEADER, 0);
    send(netlink.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut found = Vec::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..length];
        while let Some((kind, body, next)) = message(rest) {
            match i32::from(kind) {
                libc::NLMSG_DONE => return Ok(found),
                libc::NLMSG_ERROR => return Err(io::Error::other("the dump is refused")),
                _ => found.extend(qdisc(body)),
            }
            rest = next;
        }
    }
}

/// The type and the body of the first message, and what follows it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(MESSAGE_HEADER..length)?;
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, body, next))
}

/// The device's index and the qdisc's kind.
fn qdisc(body: &[u8]) -> Option<(u32, String)> {
    let index = body.get(TC_IFINDEX..TC_IFINDEX + 4)?.try_into().ok()?;
    let mut attributes = body.get(TC_HEADER..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?);
        let value = attributes.get(ATTRIBUTE_HEADER..length)?;
        if kind == libc::TCA_KIND {
            let name = value.split(|&byte| byte == 0).next()?;
            let name = String::from_utf8_lossy(name).into_owned();
            return Some((u32::from_ne_bytes(index), name));
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

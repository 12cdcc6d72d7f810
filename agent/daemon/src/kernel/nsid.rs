//! Serial numbers for network namespaces.
//!
//! The kernel gives the inode number of a namespace that is gone to the next one, and a descriptor that would prevent that
//! would keep the namespace alive. What it offers instead, on every kernel, are the ids that one namespace has for others
//! (`RTM_NEWNSID`): they keep nothing alive, and go with the namespace that they mean. The daemon gives them in a namespace
//! of its own, in which nothing else does, and each only once.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use netlink_packet_core::{DecodeError, Parseable as _};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};

use super::netns::{self, NetnsError};
use super::rtnl::{Rtnl, RtnlError};

#[derive(Debug, thiserror::Error)]
pub enum NsidError {
    #[error(transparent)]
    Namespace(#[from] NetnsError),
    #[error(transparent)]
    Exchange(#[from] RtnlError),
    #[error("all serial numbers for network namespaces are given")]
    Exhausted,
}

/// An inode of nsfs, and when it was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inode {
    pub(super) dev: u64,
    pub(super) ino: u64,
    pub(super) changed: SystemTime,
}

/// An inode is remembered from this age on, which is longer than a step of the clock that dates it. A later one of the same
/// number has a later date then.
const SETTLED: Duration = Duration::from_millis(100);

static SERIALS: Mutex<Serials> = Mutex::new(Serials {
    rtnl: None,
    next: 0,
    known: None,
});

/// The namespace's serial number, which no other one gets as long as this process lives.
pub(super) fn serial(netns: BorrowedFd<'_>, inode: Inode) -> Result<u32, NsidError> {
    let mut serials = SERIALS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(serial) = serials.known(inode) {
        return Ok(serial);
    }
    let serial = serials.ask(netns)?;
    serials.remember(inode, serial);
    Ok(serial)
}

/// The same by an inode that was asked about before. `None` tells nothing.
pub(super) fn known(inode: Inode) -> Option<u32> {
    SERIALS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .known(inode)
}

struct Serials {
    /// In the namespace that has the ids, and lives as long as this socket.
    rtnl: Option<Rtnl>,
    next: i32,
    /// By device and number. As many as there were namespaces at one time, since the kernel uses numbers again.
    known: Option<HashMap<(u64, u64), (SystemTime, u32)>>,
}

impl Serials {
    fn known(&self, inode: Inode) -> Option<u32> {
        let (changed, serial) = self.known.as_ref()?.get(&(inode.dev, inode.ino))?;
        (*changed == inode.changed).then_some(*serial)
    }

    /// An inode that nothing holds is made anew for each look, and is never old enough.
    fn remember(&mut self, inode: Inode, serial: u32) {
        let age = SystemTime::now().duration_since(inode.changed);
        if age.is_ok_and(|age| age >= SETTLED) {
            let known = self.known.get_or_insert_default();
            known.insert((inode.dev, inode.ino), (inode.changed, serial));
        }
    }

    fn ask(&mut self, netns: BorrowedFd<'_>) -> Result<u32, NsidError> {
        let rtnl = match &mut self.rtnl {
            Some(rtnl) => rtnl,
            none => none.insert(open()?),
        };
        if let Some(id) = id_of(rtnl, netns)? {
            return Ok(id);
        }
        let serial = self.next;
        self.next = serial.checked_add(1).ok_or(NsidError::Exhausted)?;
        let request = message(netns, Some(serial));
        rtnl.change("a namespace's id", &RouteNetlinkMessage::NewNsId(request), 0)?;
        Ok(serial.unsigned_abs())
    }
}

fn open() -> Result<Rtnl, NsidError> {
    let own = netns::make_private()?;
    Ok(netns::run_in(own.as_fd(), Rtnl::open)??)
}

fn id_of(rtnl: &mut Rtnl, netns: BorrowedFd<'_>) -> Result<Option<u32>, RtnlError> {
    let request = RouteNetlinkMessage::GetNsId(message(netns, None));
    let answer = rtnl.exchange("a namespace's id", &request, 0, parse)?;
    Ok(answer.items.first().copied())
}

fn message(netns: BorrowedFd<'_>, id: Option<i32>) -> NsidMessage {
    let mut message = NsidMessage::default();
    message
        .attributes
        .push(NsidAttribute::Fd(netns.as_raw_fd().unsigned_abs()));
    message.attributes.extend(id.map(NsidAttribute::Id));
    message
}

/// `None` for a namespace without an id, of which the kernel says -1.
fn parse(payload: &[u8]) -> Result<Option<u32>, DecodeError> {
    let message = NsidMessage::parse(payload)?;
    let mut ids = message
        .attributes
        .into_iter()
        .filter_map(|attribute| match attribute {
            NsidAttribute::Id(id) => u32::try_from(id).ok(),
            _ => None,
        });
    Ok(ids.next())
}

//! Changing devices, qdiscs and filters over rtnetlink, in the netns of the thread that opened the socket.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::process;

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption,
};
use nix::libc;

use super::rtnl::{Rtnl, RtnlError};

/// What our filters are recognised by, wherever clsact is used: this priority, and a handle that begins with a fixed
/// pattern and ends with the pid of the daemon that owns the filter.
pub(super) const FILTER_PRIORITY: u16 = 0x5ab0;
const HANDLE_PATTERN: u32 = 0x2ad << PID_BITS;
/// A pid is below 2^22 (`PID_MAX_LIMIT`).
const PID_BITS: u32 = 22;
const PID_MASK: u32 = (1 << PID_BITS) - 1;

/// The pid of the daemon that made the filter; `None` for somebody else's filter.
pub(super) fn filter_owner(priority: u16, handle: u32) -> Option<u32> {
    (priority == FILTER_PRIORITY && handle & !PID_MASK == HANDLE_PATTERN).then_some(handle & PID_MASK)
}

/// The handle of a filter that the daemon with this pid made.
fn handle_of(pid: u32) -> u32 {
    HANDLE_PATTERN | (pid & PID_MASK)
}

const ETH_P_ALL: u16 = 0x0003;

/// One of a device's two clsact hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Ingress,
    Egress,
}

impl Side {
    fn parent(self) -> TcHandle {
        let minor = match self {
            Self::Ingress => TcHandle::MIN_INGRESS,
            Self::Egress => TcHandle::MIN_EGRESS,
        };
        TcHandle {
            major: u16::MAX,
            minor,
        }
    }
}

/// A pair of veth ends, one in another netns.
pub(super) struct VethPair<'a> {
    /// Here.
    pub(super) far: &'a str,
    /// In the other netns.
    pub(super) near: &'a str,
    pub(super) near_netns: BorrowedFd<'a>,
    pub(super) mtu: u32,
}

impl Rtnl {
    /// Creates both ends at once, each where it stays.
    pub(super) fn add_veth(&mut self, pair: &VethPair<'_>) -> Result<(), RtnlError> {
        let end = |name: &str| {
            let mut message = LinkMessage::default();
            message.attributes = vec![
                LinkAttribute::IfName(name.to_owned()),
                LinkAttribute::Mtu(pair.mtu),
            ];
            message
        };
        let mut near = end(pair.near);
        near.attributes
            .push(LinkAttribute::NetNsFd(pair.near_netns.as_raw_fd()));
        let mut message = end(pair.far);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(near))),
        ]));
        self.change(
            "a veth pair",
            &RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    /// Sets attributes of a device.
    fn set_link(&mut self, ifindex: u32, attributes: Vec<LinkAttribute>) -> Result<(), RtnlError> {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        message.attributes = attributes;
        self.change("a link", &RouteNetlinkMessage::SetLink(message), 0)
    }

    pub(super) fn move_to(&mut self, ifindex: u32, netns: BorrowedFd<'_>) -> Result<(), RtnlError> {
        self.set_link(ifindex, vec![LinkAttribute::NetNsFd(netns.as_raw_fd())])
    }

    pub(super) fn set_queue(&mut self, ifindex: u32, packets: u32, mtu: u32) -> Result<(), RtnlError> {
        self.set_link(
            ifindex,
            vec![LinkAttribute::TxQueueLen(packets), LinkAttribute::Mtu(mtu)],
        )
    }

    /// Up, and without an IPv6 address of its own. A kernel without IPv6 refuses the second; then there is none anyway.
    pub(super) fn bring_up(&mut self, ifindex: u32) -> Result<(), RtnlError> {
        let mode = vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)];
        let without = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(mode)]);
        if let Err(error) = self.set_link(ifindex, vec![without]) {
            tracing::debug!(ifindex, %error, "no IPv6 address generation to turn off");
        }
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.change("a link", &RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Deletes a device; one that is gone is no error.
    pub(super) fn delete_link(&mut self, ifindex: u32) -> Result<(), RtnlError> {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        ignoring(
            &[libc::ENODEV],
            self.change("a link", &RouteNetlinkMessage::DelLink(message), 0),
        )
    }

    /// Makes sure that the device has a clsact qdisc.
    pub(super) fn add_clsact(&mut self, ifindex: u32) -> Result<(), RtnlError> {
        let request = RouteNetlinkMessage::NewQueueDiscipline(clsact_message(ifindex));
        ignoring(
            &[libc::EEXIST],
            self.change("a clsact qdisc", &request, NLM_F_CREATE | NLM_F_EXCL),
        )
    }

    /// Removes the device's clsact qdisc, with every filter on it.
    pub(super) fn delete_clsact(&mut self, ifindex: u32) -> Result<(), RtnlError> {
        let request = RouteNetlinkMessage::DelQueueDiscipline(clsact_message(ifindex));
        ignoring(&GONE, self.change("a clsact qdisc", &request, 0))
    }

    /// Makes `sch_fq` the device's root qdisc, which loads its module where that may be loaded. It drops nothing for its own
    /// limits: what it holds is bounded before.
    pub(super) fn add_departure_queue(&mut self, ifindex: u32) -> Result<(), RtnlError> {
        const LIMIT: u16 = 1;
        const FLOW_LIMIT: u16 = 2;
        const RATE_ENABLE: u16 = 5;
        /// More packets than there may be bytes for.
        const MOST: u32 = 1 << 24;
        let option = |kind, value: u32| TcOption::Other(DefaultNla::new(kind, value.to_ne_bytes().to_vec()));
        let mut message = tc_message(ifindex, TcHandle::UNSPEC, TcHandle::ROOT);
        message.attributes = vec![
            TcAttribute::Kind("fq".into()),
            TcAttribute::Options(vec![
                option(LIMIT, MOST),
                option(FLOW_LIMIT, MOST),
                option(RATE_ENABLE, 0),
            ]),
        ];
        self.change(
            "a qdisc fq",
            &RouteNetlinkMessage::NewQueueDiscipline(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    /// Attaches a program at one of our filter's places, replacing what an earlier daemon left there.
    pub(super) fn add_filter(
        &mut self,
        ifindex: u32,
        side: Side,
        program: BorrowedFd<'_>,
        name: &str,
    ) -> Result<(), RtnlError> {
        let mut message = filter_message(ifindex, side, process::id());
        message.attributes.push(TcAttribute::Options(vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_raw_fd() as u32)),
            TcOption::Bpf(TcFilterBpfOption::ProgName(name.to_owned())),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
        ]));
        self.change(
            "a filter",
            &RouteNetlinkMessage::NewTrafficFilter(message),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
    }

    /// Deletes the filter that the daemon with this pid made.
    pub(super) fn delete_filter(&mut self, ifindex: u32, side: Side, pid: u32) -> Result<(), RtnlError> {
        let message = filter_message(ifindex, side, pid);
        ignoring(
            &GONE,
            self.change("a filter", &RouteNetlinkMessage::DelTrafficFilter(message), 0),
        )
    }

    /// Handles of the filters on one side of a device with the priority of each.
    pub(super) fn filters(&mut self, ifindex: u32, side: Side) -> Result<Vec<(u16, u32)>, RtnlError> {
        let request =
            RouteNetlinkMessage::GetTrafficFilter(tc_message(ifindex, TcHandle::UNSPEC, side.parent()));
        let parse = |payload: &[u8]| {
            let header = TcHeader::parse(payload)?;
            // The kernel begins each priority with an entry of handle 0.
            let handle = u32::from(header.handle);
            Ok((handle != 0).then_some(((header.info >> 16) as u16, handle)))
        };
        match self.dump("filters", &request, parse) {
            // A device without the qdisc.
            Err(e) if GONE.iter().any(|errno| is_errno(&e, *errno)) => Ok(Vec::new()),
            other => other,
        }
    }
}

/// The device, its qdisc or the filter isn't there any more.
const GONE: [i32; 3] = [libc::ENODEV, libc::ENOENT, libc::EINVAL];

fn tc_message(ifindex: u32, handle: TcHandle, parent: TcHandle) -> TcMessage {
    let mut message = TcMessage::with_index(ifindex as i32);
    message.header.handle = handle;
    message.header.parent = parent;
    message
}

fn clsact_message(ifindex: u32) -> TcMessage {
    let handle = TcHandle {
        major: u16::MAX,
        minor: 0,
    };
    let mut message = tc_message(ifindex, handle, TcHandle::CLSACT);
    message.attributes.push(TcAttribute::Kind("clsact".into()));
    message
}

fn filter_message(ifindex: u32, side: Side, pid: u32) -> TcMessage {
    let mut message = tc_message(ifindex, TcHandle::from(handle_of(pid)), side.parent());
    message.header.info = u32::from(FILTER_PRIORITY) << 16 | u32::from(ETH_P_ALL.to_be());
    message
        .attributes
        .push(TcAttribute::Kind(TcFilterBpf::KIND.into()));
    message
}

fn is_errno(error: &RtnlError, errno: i32) -> bool {
    matches!(error, RtnlError::Exchange { source, .. } if source.raw_os_error() == Some(errno))
}

fn ignoring(errnos: &[i32], result: Result<(), RtnlError>) -> Result<(), RtnlError> {
    match result {
        Err(e) if errnos.iter().any(|errno| is_errno(&e, *errno)) => Ok(()),
        other => other,
    }
}

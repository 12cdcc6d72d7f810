//! A datagram in a packet, as far as it is needed here.

use aya_ebpf::programs::SkBuffContext;
use sabot_abi::FlowKey;

use crate::cgroup_skb::{self, Start, packet};
use crate::owners;

const UDP: u8 = 17;
const UDP_HEADER: u32 = 8;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;

/// Which way a packet goes, as its socket sees it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Sent,
    Received,
}

pub struct Datagrams {
    pub flow: FlowKey,
    /// As many as the device cuts the packet into.
    pub count: u64,
    /// Of payload, in all of them.
    pub bytes: u64,
}

/// Where a packet comes from and goes to, and where its transport header begins.
struct Route {
    source: [u8; 16],
    destination: [u8; 16],
    transport: u32,
}

impl Datagrams {
    /// `None` for what is no UDP, and for what belongs to nobody who is known, which is counted. Behind IPv6 extension headers
    /// no UDP is looked for.
    #[inline(always)]
    pub fn of(ctx: &SkBuffContext, way: Way) -> Option<Self> {
        let route = Route::of(&packet(ctx))?;
        let [a, b, c, d] = ctx.load::<[u8; 4]>(route.transport as usize).ok()?;
        let (source, destination) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let Some(owner) = cgroup_skb::socket(ctx).and_then(cgroup_skb::owner) else {
            owners::count_unresolved();
            return None;
        };
        let flow = match way {
            Way::Sent => FlowKey {
                local: route.source,
                remote: route.destination,
                owner,
                local_port: source,
                remote_port: destination,
            },
            Way::Received => FlowKey {
                local: route.destination,
                remote: route.source,
                owner,
                local_port: destination,
                remote_port: source,
            },
        };
        // SAFETY: the context is valid while the program runs.
        let segments = unsafe { (*ctx.skb.skb).gso_segs };
        Some(Self {
            flow,
            // 0 for a packet that nobody cuts.
            count: segments.max(1).into(),
            bytes: ctx.len().saturating_sub(route.transport + UDP_HEADER).into(),
        })
    }
}

impl Route {
    #[inline(always)]
    fn of(start: &Start) -> Option<Self> {
        let header = start.bytes::<IPV4_HEADER>(0)?;
        match header[0] >> 4 {
            4 if header[9] == UDP => Some(Self {
                source: mapped(start.bytes(12)?),
                destination: mapped(start.bytes(16)?),
                transport: u32::from(header[0] & 0xf) * 4,
            }),
            6 if header[6] == UDP => Some(Self {
                source: start.bytes(8)?,
                destination: start.bytes(24)?,
                transport: IPV6_HEADER as u32,
            }),
            _ => None,
        }
    }
}

#[inline(always)]
fn mapped([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

//! What a dropped packet was: whose, in which direction, and by whom it was dropped.

use aya_ebpf::Global;
use sabot_abi::{
    DIRECTION_EGRESS, DIRECTION_INGRESS, DROP_NOTE, DROP_NOTE_BOUND, DROP_NOTE_EGRESS, DROP_NOTE_INCIDENT,
    DROP_NOTE_INGRESS, DROP_NOTE_KINDS, DROP_REASON_FAULT, DROP_REASON_FAULT_BOUND, DropKey,
    LINE_DEVICE_LETTER, OWN_DEVICE_PREFIX, Tag, Tally,
};

use crate::counts::{self, Loss};
use crate::devices::{is_network_sock, net_of_device};
use crate::memory::{offset, read, read_pointer};
use crate::packet::{self, Packet, SKB};
use crate::{cgroups, events, owners};

/// What the classifiers' notes begin with, but for the bits of their kinds.
#[unsafe(no_mangle)]
static DROP_MARK: Global<u32> = Global::new(0);
/// Freeing a packet for these reasons isn't dropping it.
#[unsafe(no_mangle)]
static NOT_DROPPED: Global<u32> = Global::new(u32::MAX);
#[unsafe(no_mangle)]
static CONSUMED: Global<u32> = Global::new(u32::MAX);
/// Packets that are dropped for these reasons have just arrived at a device, which isn't noted in them yet.
#[unsafe(no_mangle)]
static BACKLOG_FULL: Global<u32> = Global::new(u32::MAX);
#[unsafe(no_mangle)]
static XDP: Global<u32> = Global::new(u32::MAX);

/// The lowest bit of a packet's route says that it isn't counted as used.
const DST_FLAGS: u64 = 1;

/// What the tracepoint says.
pub struct Drop {
    pub skb: u64,
    pub reason: u32,
    /// The receiving socket, or 0.
    pub receiver: u64,
}

/// The network namespace in which a packet is, and the socket that sent it or would receive it (0 for none).
struct Place {
    net: u64,
    sock: u64,
    device: Device,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Device {
    Foreign,
    Own,
    /// Ours, on the way to the delay line.
    Line,
}

/// # Errors
///
/// Some of it could not be recorded.
#[inline(always)]
pub fn record(drop: &Drop) -> Result<(), Loss> {
    if drop.reason == NOT_DROPPED.load() || drop.reason == CONSUMED.load() {
        return Ok(());
    }
    let note = Note::of(drop.skb);
    if note.is_ours && note.kind == DROP_NOTE_INCIDENT {
        return Ok(());
    }
    let Some(place) = place(drop) else {
        if packet::is_ip(drop.skb) {
            owners::count_unresolved();
        }
        return Ok(());
    };
    let Some(owner) = owners::of(place.net, place.sock) else {
        owners::count_unresolved();
        return Ok(());
    };
    let mut key = DropKey {
        owner,
        reason: drop.reason,
        direction: direction(drop),
        injected: (place.device != Device::Foreign).into(),
    };
    if note.is_ours {
        key.reason = if note.is_lost {
            DROP_REASON_FAULT_BOUND
        } else {
            DROP_REASON_FAULT
        };
        key.injected = 1;
        key.direction = if note.kind == DROP_NOTE_EGRESS {
            DIRECTION_EGRESS
        } else {
            DIRECTION_INGRESS
        };
        return counts::add(&key, &note.wire);
    }
    if place.device != Device::Foreign {
        key.direction = Tag::from_tci(read(drop.skb, offset!(SKB.vlan_tci)).unwrap_or(0)).direction;
    }
    let packet = Packet::of(drop.skb, place.device == Device::Line);
    let counted = counts::add(&key, &packet.wire);
    if key.injected == 0 {
        events::emit(&key, &packet, cgroups::of(place.sock))?;
    }
    counted
}

/// What a classifier of ours has left in the packet.
struct Note {
    is_ours: bool,
    /// Without [`DROP_NOTE_BOUND`], which is told apart.
    kind: u32,
    is_lost: bool,
    wire: Tally,
}

impl Note {
    #[inline(always)]
    fn of(skb: u64) -> Self {
        let at = offset!(SKB.classifier_words) + (DROP_NOTE * size_of::<u32>()) as u32;
        let [mark, packets, bytes] = read::<[u32; 3]>(skb, at).unwrap_or([0; 3]);
        let kind = mark & DROP_NOTE_KINDS & !DROP_NOTE_BOUND;
        Self {
            is_ours: mark & !DROP_NOTE_KINDS == DROP_MARK.load()
                && matches!(kind, DROP_NOTE_EGRESS | DROP_NOTE_INGRESS | DROP_NOTE_INCIDENT),
            kind,
            is_lost: mark & DROP_NOTE_BOUND != 0,
            wire: Tally {
                packets: packets as u64,
                bytes: bytes as u64,
            },
        }
    }
}

/// In this order: the socket that would receive the packet; the device that it is at; the socket that sent it; its route.
/// The device comes before the sender, since a packet keeps its sender on the way from one namespace to the next. TCP
/// takes the device out of what it receives, and UDP, which keeps nothing of all this in a socket's queue, loses what it
/// finds there to be damaged when somebody reads it. `None` where nothing is left, and for messages between processes.
#[inline(always)]
fn place(drop: &Drop) -> Option<Place> {
    let sender = read_pointer(drop.skb, offset!(SKB.sk)).unwrap_or(0);
    let sock = if drop.receiver != 0 { drop.receiver } else { sender };
    let at = |net| Place {
        net,
        sock,
        device: Device::Foreign,
    };
    if drop.receiver != 0 {
        if !is_network_sock(drop.receiver) {
            return None;
        }
        return owners::net_of_sock(drop.receiver).map(at);
    }
    if let Some(device) = read_pointer(drop.skb, offset!(SKB.dev))
        && let Some(net) = net_of_device(device)
    {
        return Some(Place {
            net,
            sock,
            device: whose(device),
        });
    }
    if sender != 0 {
        if !is_network_sock(sender) {
            return None;
        }
        return owners::net_of_sock(sender).map(at);
    }
    let route = read::<u64>(drop.skb, offset!(SKB.dst))? & !DST_FLAGS;
    let device = read_pointer(route, offset!(SKB.dst_dev))?;
    net_of_device(device).map(at)
}

#[inline(always)]
fn whose(device: u64) -> Device {
    const LETTER: usize = OWN_DEVICE_PREFIX.len();
    match read::<[u8; LETTER + 1]>(device, offset!(SKB.device_name)) {
        Some(name) if name[..LETTER] == OWN_DEVICE_PREFIX => match name[LETTER] {
            LINE_DEVICE_LETTER => Device::Line,
            _ => Device::Own,
        },
        _ => Device::Foreign,
    }
}

/// What arrived at a device of the owner's notes that device, or would be received by one of its sockets; all else the
/// owner sends.
#[inline(always)]
fn direction(drop: &Drop) -> u32 {
    let arrived = drop.receiver != 0
        || drop.reason == BACKLOG_FULL.load()
        || drop.reason == XDP.load()
        || read::<u32>(drop.skb, offset!(SKB.skb_iif)).unwrap_or(0) != 0;
    if arrived {
        DIRECTION_INGRESS
    } else {
        DIRECTION_EGRESS
    }
}

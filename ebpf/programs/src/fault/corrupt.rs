//! Changing some bits of one byte of the payload: so that the application sees it, or so that the receiver's stack does.

use aya_ebpf::bindings::{BPF_CSUM_LEVEL_RESET, BPF_F_MARK_MANGLED_0, BPF_F_RECOMPUTE_CSUM};
use aya_ebpf::helpers::bpf_csum_level;
use aya_ebpf::programs::TcContext;
use sabot_abi::{ACTION_CORRUPT_WIRE, Rule, random};

use crate::packet::{ICMP, ICMPV6, Packet, TCP, UDP};
use crate::raw;

/// What became of a packet whose turn it was.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    Done,
    /// Nothing in it can be changed: no payload among the rule's bytes, a fragment, a checksum that we don't know.
    Impossible,
    /// Nobody would notice on the wire: the datagram has no checksum.
    Unnoticed,
    Failed,
}

/// Where the checksum stands and how it is replaced; `None` when we know none.
#[inline(always)]
fn checksum(packet: &Packet) -> Option<(usize, u64)> {
    let at = packet.transport as usize;
    match packet.protocol {
        TCP => Some((at + 16, 0)),
        // A UDP checksum of 0 means none; it stays so.
        UDP => Some((at + 6, BPF_F_MARK_MANGLED_0 as u64)),
        ICMP | ICMPV6 => Some((at + 2, 0)),
        _ => None,
    }
}

/// Changes one byte of the payload, at a place and in bits that follow from the packet's draw.
#[inline(always)]
pub fn corrupt(ctx: &TcContext, rule: &Rule, packet: &Packet, draw: u64) -> Damage {
    let from = packet.payload.saturating_add(rule.corrupt_from);
    let to = packet.payload.saturating_add(rule.corrupt_to).min(packet.end);
    let Some((checksum_at, flags)) = checksum(packet) else {
        return Damage::Impossible;
    };
    if packet.fragment || from >= to {
        return Damage::Impossible;
    }
    let noise = random(draw, 0);
    let position = from + (((noise & 0xffff_ffff) * (to - from) as u64) >> 32) as u32;
    let flip = mask(rule.corrupt_bits, (noise >> 32) as u32);
    let result = if rule.action == ACTION_CORRUPT_WIRE {
        damage_wire(ctx, packet, checksum_at, position, flip)
    } else {
        damage_payload(ctx, packet, (checksum_at, flags), position, flip)
    };
    result.unwrap_or(Damage::Failed)
}

/// Leaves the checksum as it was, and takes away what the kernel knows about it, so that whoever gets the packet sums anew.
/// A change of one byte changes the sum by less than 65535, so that the checksum can't be right by chance.
#[inline(always)]
fn damage_wire(
    ctx: &TcContext,
    packet: &Packet,
    checksum_at: usize,
    position: u32,
    flip: u8,
) -> Result<Damage, i64> {
    if packet.protocol == UDP && ctx.load::<u16>(checksum_at)? == 0 {
        return Ok(Damage::Unnoticed);
    }
    let changed = ctx.load::<u8>(position as usize)? ^ flip;
    // A sum over the whole packet that the device gave along is to follow the bytes.
    ctx.store(position as usize, &changed, BPF_F_RECOMPUTE_CSUM as u64)?;
    // SAFETY: the context is valid while the program runs.
    unsafe { bpf_csum_level(raw(ctx), BPF_CSUM_LEVEL_RESET as u64) };
    Ok(Damage::Done)
}

/// Makes the checksum valid again.
#[inline(always)]
fn damage_payload(
    ctx: &TcContext,
    packet: &Packet,
    (checksum_at, flags): (usize, u64),
    position: u32,
    flip: u8,
) -> Result<Damage, i64> {
    // The checksum sums 16-bit words from the transport header on; a last odd byte is padded with 0.
    let odd = position.wrapping_sub(packet.transport) & 1;
    let word_at = (position - odd) as usize;
    let mut before = [0u8; 2];
    before[0] = ctx.load::<u8>(word_at)?;
    if (word_at + 1) < packet.end as usize {
        before[1] = ctx.load::<u8>(word_at + 1)?;
    }
    let mut after = before;
    if odd == 0 {
        after[0] ^= flip
    } else {
        after[1] ^= flip
    }
    let changed = if odd == 0 { after[0] } else { after[1] };
    ctx.store(position as usize, &changed, 0)?;
    let (from, to) = (
        u16::from_ne_bytes(before) as u64,
        u16::from_ne_bytes(after) as u64,
    );
    ctx.l4_csum_replace(checksum_at, from, to, 2 | flags)?;
    Ok(Damage::Done)
}

/// Every byte, by the number of its bits, and those of one number in their order.
static MASKS: [u8; 256] = masks().0;
/// Where the bytes of each number of bits begin, and where the last of them end.
static MASKS_FROM: [u16; 16] = masks().1;

/// One of the bytes with so many bits, each as probable as the others.
#[inline(always)]
fn mask(bits: u32, noise: u32) -> u8 {
    let bits = (bits & 15) as usize;
    let (from, to) = (MASKS_FROM[bits] as u64, MASKS_FROM[(bits + 1) & 15] as u64);
    let index = from + ((noise as u64 * to.saturating_sub(from)) >> 32);
    MASKS[(index & 255) as usize]
}

const fn masks() -> ([u8; 256], [u16; 16]) {
    let mut sorted = [0; 256];
    let mut from = [0; 16];
    let mut count = 0;
    let mut bits = 0;
    while bits <= 8 {
        from[bits] = count as u16;
        let mut byte = 0;
        while byte < 256 {
            if (byte as u32).count_ones() as usize == bits {
                sorted[count] = byte as u8;
                count += 1;
            }
            byte += 1;
        }
        bits += 1;
    }
    from[bits] = count as u16;
    (sorted, from)
}

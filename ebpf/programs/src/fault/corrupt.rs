//! Changing the payload so that the application sees it: the checksum stays valid.

use aya_ebpf::bindings::BPF_F_MARK_MANGLED_0;
use aya_ebpf::helpers::bpf_get_prandom_u32;
use aya_ebpf::programs::TcContext;

use crate::packet::{ICMP, ICMPV6, Packet, TCP, UDP};

/// Where the checksum stands and how it is replaced; `None` when the payload can't be changed with a valid checksum.
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

/// The packet has a payload that can be changed: whole, of a protocol whose checksum we can mend.
#[inline(always)]
pub fn is_corruptible(packet: &Packet) -> bool {
    !packet.fragment && packet.payload < packet.end && checksum(packet).is_some()
}

/// Changes one byte of the payload, at a uniformly chosen place, to a different value.
#[inline(always)]
pub fn corrupt(ctx: &TcContext, packet: &Packet) -> Result<(), i64> {
    let (checksum_at, flags) = checksum(packet).ok_or(-1)?;
    // SAFETY: the helper takes nothing and returns a number.
    let (place, noise) = unsafe { (bpf_get_prandom_u32(), bpf_get_prandom_u32()) };
    let length = packet.end.wrapping_sub(packet.payload) as u64;
    let position = packet.payload + ((place as u64 * length) >> 32) as u32;
    // 1 to 255: the byte always changes.
    let flip = (1 + ((noise as u64 * 255) >> 32)) as u8;

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
    ctx.l4_csum_replace(checksum_at, from, to, 2 | flags)
}

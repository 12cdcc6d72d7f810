//! The bytes of a packet's headers, copied out of it in one piece: one call of a helper costs more than all the reading.

use aya_ebpf::helpers::bpf_skb_load_bytes;
use aya_ebpf::programs::TcContext;

use crate::packet::ParseError;
use crate::raw;

/// Bytes that are copied: two VLAN tags, the longest IPv4 header, and what is read of a transport header.
const PART: u32 = 96;
const PART_MASK: u32 = 127;
/// What a frame has in one piece as a rule, the rest being elsewhere: the longest that is read without going on behind it, two
/// VLAN tags and an IPv6 header. Reading across pieces takes longer.
const LEAST_PIECE: u32 = 14 + 2 * 4 + 40;
/// Indices are masked with it, which the verifier understands better than comparisons.
const INDEX_MASK: usize = 127;
/// What is read at once.
const MOST: usize = 16;
const WORDS: usize = (INDEX_MASK + 1 + MOST) / 4;

/// The network header begins with this word, behind a MAC header or none.
pub const NETWORK: usize = 4;
const WITH_MAC_HEADER: u32 = 4 * NETWORK as u32 - 14;
const WITHOUT_MAC_HEADER: u32 = 4 * NETWORK as u32;

/// A part of a frame: its beginning, which is all there is to read as a rule, or what stands further behind.
#[repr(C)]
pub struct Headers {
    words: [u32; WORDS],
    /// Where in the frame the part begins and ends.
    start: u32,
    end: u32,
    /// Where in the words the part begins.
    shift: u32,
}

impl Headers {
    /// Copies the beginning of the frame.
    ///
    /// A subprogram of its own, so that what it works with doesn't take room on the caller's stack.
    #[inline(never)]
    pub fn begin(&mut self, ctx: &TcContext, has_mac_header: bool) -> Result<(), ParseError> {
        let shift = if has_mac_header {
            WITH_MAC_HEADER
        } else {
            WITHOUT_MAC_HEADER
        };
        self.copy(ctx, 0, shift)
    }

    /// Words at the beginning of the frame, as their bytes stand there. `at` is where in the frame the first one stands.
    #[inline(always)]
    pub fn words<const N: usize>(&self, first: usize, at: u32) -> Result<[u32; N], ParseError> {
        if at + 4 * N as u32 > self.end {
            return Err(ParseError::Malformed);
        }
        let mut words = [0; N];
        for (index, word) in words.iter_mut().enumerate() {
            *word = *self.words.get(first + index).ok_or(ParseError::Malformed)?;
        }
        Ok(words)
    }

    /// Bytes from anywhere, [`MOST`] at once.
    #[inline(always)]
    pub fn bytes<const N: usize>(&mut self, ctx: &TcContext, at: u32) -> Result<[u8; N], ParseError> {
        const { assert!(N <= MOST) };
        if at < self.start || at + N as u32 > self.end {
            self.move_to(ctx, at)?;
            if at + N as u32 > self.end {
                return Err(ParseError::Malformed);
            }
        }
        let index = at.wrapping_sub(self.start).wrapping_add(self.shift) as usize & INDEX_MASK;
        // SAFETY: behind the greatest index there is room for as many bytes, and any bytes are valid.
        Ok(unsafe {
            self.words
                .as_ptr()
                .cast::<u8>()
                .add(index)
                .cast::<[u8; N]>()
                .read()
        })
    }

    /// Copies what stands further behind.
    #[inline(never)]
    fn move_to(&mut self, ctx: &TcContext, at: u32) -> Result<(), ParseError> {
        self.copy(ctx, at, 0)
    }

    #[inline(always)]
    fn copy(&mut self, ctx: &TcContext, from: u32, shift: u32) -> Result<(), ParseError> {
        let frame = ctx.len();
        if from >= frame {
            return Err(ParseError::Malformed);
        }
        let mut length = (frame - from).min(PART);
        let piece = first_piece(ctx);
        if from == 0 && piece >= LEAST_PIECE && piece < length {
            length = piece;
        }
        // The verifier wants to see that it isn't 0.
        let length = ((length - 1) & PART_MASK) + 1;
        // SAFETY: shift and length together are no more than the words' size, and the context is valid while the program
        // runs.
        let result = unsafe {
            let to = self.words.as_mut_ptr().cast::<u8>().add(shift as usize);
            bpf_skb_load_bytes(raw(ctx).cast(), from, to.cast(), length)
        };
        if result != 0 {
            return Err(ParseError::Malformed);
        }
        self.start = from;
        self.end = from + length;
        self.shift = shift;
        Ok(())
    }
}

/// How much of the frame's beginning lies in one piece.
#[inline(always)]
fn first_piece(ctx: &TcContext) -> u32 {
    (ctx.data_end() - ctx.data()) as u32
}

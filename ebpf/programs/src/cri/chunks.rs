//! Copies of what went through sockets.

use core::mem::MaybeUninit;
use core::ptr;

use aya_ebpf::helpers::bpf_probe_read_user;
use aya_ebpf::helpers::generated::{bpf_get_current_comm, bpf_probe_read_user as copy_from_user};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{PerCpuArray, RingBuf};
use sabot_abi::{COMM_LENGTH, CRI_LARGE_CHUNK, CRI_MAX_CHUNKS, CRI_SMALL_CHUNK, CriChunk};

use crate::losses::{self, Lost};
use crate::{senders, waking};

#[map]
static CHUNKS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// What went through a socket in one call.
pub struct Transfer {
    /// `CLOCK_BOOTTIME`, ns.
    pub time: u64,
    pub connection: u64,
    /// `CRI_*`.
    pub kind: u32,
    /// Bytes.
    pub total: u32,
}

/// Where the data of a call is in its process's memory.
#[derive(Clone, Copy)]
pub enum Data {
    /// It isn't known where.
    Unknown,
    Buffer(u64),
    /// An array of `struct iovec`, and its length.
    Vector(u64, u64),
}

/// What is still to be copied.
#[repr(C)]
#[derive(Clone, Copy)]
struct Cursor {
    /// Of the segment that is read now.
    buffer: u64,
    left: u64,
    /// The next segments.
    vector: u64,
    segments: u64,
    /// Of the whole call.
    total: u64,
    offset: u64,
}

/// It is kept in a map, and read and written as if others did so too: of what is in its registers the verifier follows every
/// value that each round of the loop may leave there, which are more than it has patience for. Programs on tracepoints
/// aren't preempted, so that one for each CPU is enough.
#[map]
static CURSOR: PerCpuArray<Cursor> = PerCpuArray::with_max_entries(1, 0);

impl Cursor {
    #[inline(always)]
    fn new(data: Data, total: u32) -> Self {
        let (buffer, left, vector, segments) = match data {
            Data::Unknown => (0, 0, 0, 0),
            Data::Buffer(buffer) => (buffer, u64::from(total), 0, 0),
            Data::Vector(vector, segments) => (0, 0, vector, segments),
        };
        Self {
            buffer,
            left,
            vector,
            segments,
            total: u64::from(total),
            offset: 0,
        }
    }

    /// Goes on to the next segment; `None` after the last one.
    #[inline(always)]
    fn next_segment(&mut self) -> Option<()> {
        if self.segments == 0 {
            return None;
        }
        // SAFETY: the helper checks the address.
        let [base, length] = unsafe { bpf_probe_read_user(self.vector as *const [u64; 2]) }.ok()?;
        self.vector += size_of::<[u64; 2]>() as u64;
        self.segments -= 1;
        self.buffer = base;
        self.left = length;
        Some(())
    }

    #[inline(always)]
    fn advance(&mut self, copied: u32) {
        self.buffer += u64::from(copied);
        self.left -= u64::from(copied);
        self.offset += u64::from(copied);
    }
}

#[repr(C)]
struct Chunk<const SIZE: usize> {
    head: CriChunk,
    bytes: [u8; SIZE],
}

/// The head alone says how much went through where nothing of it can be copied.
///
/// # Errors
///
/// When the ring is full.
#[inline(always)]
pub fn record(transfer: &Transfer, data: Data) -> Result<(), Lost> {
    let mut head = head(transfer);
    let place = CURSOR.get_ptr_mut(0).ok_or(Lost)?;
    // SAFETY: the pointer is to this CPU's value, which nothing else uses meanwhile; here and below.
    unsafe { place.write_volatile(Cursor::new(data, transfer.total)) };
    for _ in 0..CRI_MAX_CHUNKS {
        // SAFETY: as above.
        let mut cursor = unsafe { place.read_volatile() };
        if cursor.offset >= cursor.total {
            break;
        }
        if cursor.left == 0 {
            if cursor.next_segment().is_none() {
                break;
            }
        } else {
            head.offset = cursor.offset as u32;
            let length = cursor.left.min(cursor.total - cursor.offset);
            let copied = if length <= CRI_SMALL_CHUNK as u64 {
                copy::<CRI_SMALL_CHUNK>(&mut head, cursor.buffer, length as u32)
            } else {
                let length = length.min(CRI_LARGE_CHUNK as u64);
                copy::<CRI_LARGE_CHUNK>(&mut head, cursor.buffer, length as u32)
            }?;
            cursor.advance(copied);
        }
        // SAFETY: as above.
        unsafe { place.write_volatile(cursor) };
    }
    // SAFETY: as above.
    let copied = unsafe { place.read_volatile() }.offset;
    if copied == 0 { emit_head(&head) } else { Ok(()) }
}

#[inline(always)]
fn head(transfer: &Transfer) -> CriChunk {
    let mut comm = MaybeUninit::<[u8; COMM_LENGTH]>::zeroed();
    // SAFETY: the helper fills in at most as many bytes as it is told; all of them are initialised before.
    let comm = unsafe {
        bpf_get_current_comm(comm.as_mut_ptr().cast(), COMM_LENGTH as u32);
        comm.assume_init()
    };
    CriChunk {
        time: transfer.time,
        connection: transfer.connection,
        losses: 0,
        kind: transfer.kind,
        pid: senders::current_pid(),
        total: transfer.total,
        offset: 0,
        length: 0,
        reserved: 0,
        comm,
    }
}

#[inline(always)]
fn emit_head(head: &CriChunk) -> Result<(), Lost> {
    let mut entry = CHUNKS.reserve::<CriChunk>(0).ok_or(Lost)?;
    entry.write(CriChunk {
        losses: losses::so_far(),
        ..*head
    });
    entry.submit(waking::flags(&CHUNKS));
    Ok(())
}

/// Copies `length` bytes, at most `SIZE`, from the current process's memory; returns how many.
#[inline(always)]
fn copy<const SIZE: usize>(head: &mut CriChunk, from: u64, length: u32) -> Result<u32, Lost> {
    let mut entry = CHUNKS.reserve::<Chunk<SIZE>>(0).ok_or(Lost)?;
    head.length = length;
    head.losses = losses::so_far();
    let chunk = entry.as_mut_ptr();
    // SAFETY: the entry has room for a chunk; the helper writes at most `SIZE` bytes of it, and checks the address that it
    // reads from. What it doesn't write is whatever was there before, and isn't read.
    let result = unsafe {
        ptr::addr_of_mut!((*chunk).head).write(*head);
        let bytes = ptr::addr_of_mut!((*chunk).bytes);
        copy_from_user(bytes.cast(), length.min(SIZE as u32), from as *const _)
    };
    if result < 0 {
        entry.discard(0);
        return Err(Lost);
    }
    entry.submit(waking::flags(&CHUNKS));
    Ok(length)
}

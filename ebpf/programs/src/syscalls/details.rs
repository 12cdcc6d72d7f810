//! What an event says of its call beside how it ended: arguments, and what they point to.
//!
//! All of it is read at the call's end, so that calls without an event pay nothing. Memory is as it is then: the kernel has
//! read it before, and the program may have changed it since. In return it is in memory, which it need not be before.

use core::ptr;

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_user, bpf_probe_read_user_str};
use sabot_abi::{
    SYSCALL_ARGUMENTS, SYSCALL_DETAIL_CLONE, SYSCALL_DETAILS, SYSCALL_TEXT_LENGTH, SyscallDetail,
    SyscallEvent,
};

use crate::files;

/// What is read, by the syscall's number.
#[unsafe(no_mangle)]
static DETAILS: [SyscallDetail; SYSCALL_DETAILS] = [SyscallDetail {
    file: 0,
    texts: [0; 2],
    memory: 0,
}; SYSCALL_DETAILS];

/// Places in [`ARGUMENT_OFFSETS`]: those beyond the arguments are never asked for.
const PLACES: usize = 8;
/// Where the registers hold the arguments, in bytes; the daemon knows the architecture's.
#[unsafe(no_mangle)]
static ARGUMENT_OFFSETS: [u32; PLACES] = [0; PLACES];

/// The longest address of a socket, rounded up to a mask.
const ADDRESS_MASK: u32 = 127;
const _: () = assert!(ADDRESS_MASK as usize <= SYSCALL_TEXT_LENGTH);

/// `registers` is the address of the thread's `pt_regs`.
#[inline(always)]
pub fn read(event: &mut SyscallEvent, registers: u64, syscall: u32) {
    for index in 0..SYSCALL_ARGUMENTS {
        event.arguments[index] = argument(registers, index as u8);
    }
    let detail = detail(syscall);
    if detail.texts[0] != 0 {
        event.text_lengths[0] = string(&mut event.texts[0], argument(registers, detail.texts[0] - 1));
    }
    if detail.texts[1] != 0 {
        event.text_lengths[1] = string(&mut event.texts[1], argument(registers, detail.texts[1] - 1));
    }
    if detail.memory != 0 {
        let place = (detail.memory & !SYSCALL_DETAIL_CLONE) - 1;
        let length = if detail.memory & SYSCALL_DETAIL_CLONE == 0 {
            argument(registers, place + 1)
        } else {
            size_of::<u64>() as u64
        };
        event.text_lengths[0] = memory(&mut event.texts[0], argument(registers, place), length);
    }
    if detail.file != 0 {
        files::read(event, argument(registers, detail.file - 1));
    }
}

#[inline(always)]
fn detail(syscall: u32) -> SyscallDetail {
    const { assert!(SYSCALL_DETAILS.is_power_of_two()) };
    let place = syscall as usize & (SYSCALL_DETAILS - 1);
    // SAFETY: the mask keeps the place within the table. The read is volatile since the loader replaces the value that the
    // compiler sees.
    unsafe { ptr::read_volatile((&raw const DETAILS).cast::<SyscallDetail>().add(place)) }
}

/// 0 where it can't be read, which doesn't happen.
#[inline(always)]
fn argument(registers: u64, index: u8) -> u64 {
    let place = index as usize & (PLACES - 1);
    // SAFETY: the mask keeps the place within the table; volatile as above.
    let offset = unsafe { ptr::read_volatile((&raw const ARGUMENT_OFFSETS).cast::<u32>().add(place)) };
    kernel(registers + u64::from(offset)).unwrap_or(0)
}

/// A value in the kernel's memory; `None` where there is none.
#[inline(always)]
pub fn kernel<T: Copy + Default>(address: u64) -> Option<T> {
    let mut value = T::default();
    // SAFETY: the helper writes as many bytes as the value has, or fails; it takes any address.
    let result = unsafe {
        bpf_probe_read_kernel(
            (&raw mut value).cast(),
            size_of::<T>() as u32,
            address as *const _,
        )
    };
    (result == 0).then_some(value)
}

/// The length with its NUL, which is there even where the string is cut; 0 where it can't be read.
#[inline(always)]
fn string(text: &mut [u8; SYSCALL_TEXT_LENGTH], address: u64) -> u32 {
    // SAFETY: the helper writes no more bytes than the text has; it takes any address.
    let length = unsafe {
        bpf_probe_read_user_str(
            text.as_mut_ptr().cast(),
            SYSCALL_TEXT_LENGTH as u32,
            address as *const _,
        )
    };
    length.max(0) as u32
}

#[inline(always)]
fn memory(text: &mut [u8; SYSCALL_TEXT_LENGTH], address: u64, length: u64) -> u32 {
    // The mask is for the verifier; a longer address is none.
    let masked = length as u32 & ADDRESS_MASK;
    if u64::from(masked) != length {
        return 0;
    }
    // SAFETY: the helper writes no more bytes than the mask allows; it takes any address.
    let result = unsafe { bpf_probe_read_user(text.as_mut_ptr().cast(), masked, address as *const _) };
    if result == 0 { masked } else { 0 }
}

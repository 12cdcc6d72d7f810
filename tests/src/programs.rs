//! eBPF programs that are a few instructions long, written down as such: what stands beside ours in tests and benches.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_prog_type};

use crate::bpf;

/// One instruction as a little-endian kernel reads it.
pub const fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> u64 {
    code as u64
        | (to as u64) << 8
        | (from as u64) << 12
        | (offset as u16 as u64) << 16
        | (value as u32 as u64) << 32
}

/// Loads a program of this kind, to be attached at such a place.
///
/// # Errors
///
/// The kernel doesn't take it.
pub fn load(kind: bpf_prog_type, place: bpf_attach_type, code: &[u64]) -> io::Result<OwnedFd> {
    let license = c"Dual MIT/GPL";
    // SAFETY: an all-zero attribute is valid; the fields set below point at data that outlives the call.
    let mut attr = unsafe {
        let mut attr: bpf_attr = mem::zeroed();
        let load = &mut attr.__bindgen_anon_3;
        load.prog_type = kind as u32;
        load.expected_attach_type = place as u32;
        load.insns = code.as_ptr() as u64;
        load.insn_cnt = code.len() as u32;
        load.license = license.as_ptr() as u64;
        attr
    };
    // SAFETY: the kernel reads the instructions and the licence, which are there until it has answered.
    unsafe { bpf::open(bpf_cmd::BPF_PROG_LOAD, &mut attr) }
}

/// Attaches a program to what the number stands for: a cgroup's descriptor, or the index of a device of the calling thread's
/// network namespace. The link ends with its descriptor.
///
/// # Errors
///
/// The kernel refuses it.
pub fn attach(program: impl AsFd, place: bpf_attach_type, to: u32) -> io::Result<OwnedFd> {
    // SAFETY: an all-zero attribute is valid; only integers are set.
    let mut attr = unsafe {
        let mut attr: bpf_attr = mem::zeroed();
        let create = &mut attr.link_create;
        create.__bindgen_anon_1.prog_fd = program.as_fd().as_raw_fd() as u32;
        create.__bindgen_anon_2.target_fd = to;
        create.attach_type = place as u32;
        attr
    };
    // SAFETY: the attribute points at nothing.
    unsafe { bpf::open(bpf_cmd::BPF_LINK_CREATE, &mut attr) }
}

//! Raw calls that no crate offers: programs from instructions, their trial runs, tcx links, the TUN ioctls.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_map_type, bpf_prog_type};
use nix::libc;

/// Attach before every program that is there already.
const BPF_F_BEFORE: u32 = 1 << 3;

/// One eBPF instruction, in the byte order of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct Instruction(u64);

impl Instruction {
    #[cfg(target_endian = "little")]
    pub(super) const fn new(code: u8, dst: u8, src: u8, offset: i16, imm: i32) -> Self {
        Self(
            code as u64
                | ((dst & 0xf) as u64) << 8
                | ((src & 0xf) as u64) << 12
                | (offset as u16 as u64) << 16
                | (imm as u32 as u64) << 32,
        )
    }
}

/// Loads a classifier from instructions. `name` shows in `bpftool prog`, 15 bytes at most.
pub(super) fn load_classifier(name: &CStr, instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"Dual MIT/GPL";
    // SAFETY: an all-zero attribute is valid; the fields set below point at data that outlives the call.
    let attr = unsafe {
        let mut attr: bpf_attr = mem::zeroed();
        let load = &mut attr.__bindgen_anon_3;
        load.prog_type = bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS as u32;
        load.insns = instructions.as_ptr() as u64;
        load.insn_cnt = instructions.len() as u32;
        load.license = license.as_ptr() as u64;
        for (to, from) in load.prog_name.iter_mut().take(15).zip(name.to_bytes()) {
            *to = *from as libc::c_char;
        }
        attr
    };
    bpf_fd(bpf_cmd::BPF_PROG_LOAD, &attr)
}

/// Attaches a program to a device of the calling thread's netns, before all others. The link ends with its descriptor.
pub(super) fn tcx_link(program: BorrowedFd<'_>, ifindex: u32, egress: bool) -> io::Result<OwnedFd> {
    // SAFETY: an all-zero attribute is valid; only integers are set.
    let attr = unsafe {
        let mut attr: bpf_attr = mem::zeroed();
        let create = &mut attr.link_create;
        create.__bindgen_anon_1.prog_fd = program.as_raw_fd() as u32;
        create.__bindgen_anon_2.target_ifindex = ifindex;
        create.attach_type = if egress {
            bpf_attach_type::BPF_TCX_EGRESS as u32
        } else {
            bpf_attach_type::BPF_TCX_INGRESS as u32
        };
        create.flags = BPF_F_BEFORE;
        attr
    };
    bpf_fd(bpf_cmd::BPF_LINK_CREATE, &attr)
}

/// What a program finds in its `struct __sk_buff` at a trial run: of its fields, those that the kernel lets the caller
/// set. All others must be 0.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct TrialContext {
    _unset_len_and_type: [u32; 2],
    mark: u32,
    _unset_queue_to_priority: [u32; 6],
    ingress_ifindex: u32,
    _unset_ifindex_to_wire_len: [u32; 31],
    _unset_gso_segs: u32,
    _unset_sk: u64,
    gso_size: u32,
    _unset_tstamp_type: u32,
}
const _: () = assert!(mem::offset_of!(TrialContext, mark) == 8);
const _: () = assert!(mem::offset_of!(TrialContext, ingress_ifindex) == 36);
const _: () = assert!(mem::offset_of!(TrialContext, gso_size) == 176);
const _: () = assert!(size_of::<TrialContext>() == 184);

impl TrialContext {
    pub(super) fn new(mark: u32, ingress_ifindex: u32, gso_size: u32) -> Self {
        Self {
            mark,
            ingress_ifindex,
            gso_size,
            ..Self::default()
        }
    }
}

/// How a trial run went.
#[derive(Clone, Copy, Debug)]
pub(super) struct TrialRun {
    pub(super) verdict: i32,
    /// Of one run, the mean of all.
    pub(super) took: Duration,
}

/// Runs a classifier so many times on a frame that goes nowhere, and puts the frame as it left it into `after`.
///
/// # Errors
/// `EINVAL` for a frame without a whole MAC or IP header or nearly as long as a page, `ENOSPC` for one that has outgrown
/// `after`.
pub(super) fn try_out(
    program: BorrowedFd<'_>,
    frame: &[u8],
    context: &TrialContext,
    after: &mut Vec<u8>,
    repeat: u32,
) -> io::Result<TrialRun> {
    // SAFETY: an all-zero attribute is valid; the fields set below point at data that outlives the call, with its length.
    let mut attr = unsafe {
        let mut attr: bpf_attr = mem::zeroed();
        let test = &mut attr.test;
        test.prog_fd = program.as_raw_fd() as u32;
        test.data_in = frame.as_ptr() as u64;
        test.data_size_in = frame.len() as u32;
        test.data_out = after.as_mut_ptr() as u64;
        test.data_size_out = after.len() as u32;
        test.ctx_in = std::ptr::from_ref(context) as u64;
        test.ctx_size_in = size_of::<TrialContext>() as u32;
        test.repeat = repeat;
        attr
    };
    // SAFETY: the attribute is initialised and its size is its own; the kernel writes at most `data_size_out` bytes to
    // `data_out`, and into the attribute itself.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            bpf_cmd::BPF_PROG_TEST_RUN as libc::c_long,
            &raw mut attr,
            size_of::<bpf_attr>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has filled these in.
    let test = unsafe { attr.test };
    after.truncate(test.data_size_out as usize);
    Ok(TrialRun {
        verdict: test.retval as i32,
        took: Duration::from_nanos(test.duration.into()),
    })
}

/// Makes a ring buffer of this size (a power of two, at least a page), Linux 5.8.
pub(super) fn ring_buffer(bytes: u32) -> io::Result<OwnedFd> {
    // SAFETY: an all-zero attribute is valid; only integers are set.
    let attr = unsafe {
        let mut attr: bpf_attr = mem::zeroed();
        let create = &mut attr.__bindgen_anon_1;
        create.map_type = bpf_map_type::BPF_MAP_TYPE_RINGBUF as u32;
        create.max_entries = bytes;
        attr
    };
    bpf_fd(bpf_cmd::BPF_MAP_CREATE, &attr)
}

fn bpf_fd(command: bpf_cmd, attr: &bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: the attribute is initialised and its size is its own; the kernel only reads it for these commands.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            attr,
            size_of::<bpf_attr>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(result as RawFd) })
}

/// Offloads of a TAP: checksums, TSO for both families (with ECN) and USO, so that super-packets pass whole.
const TUN_F_CSUM: u32 = 0x01;
const TUN_F_TSO4: u32 = 0x02;
const TUN_F_TSO6: u32 = 0x04;
const TUN_F_TSO_ECN: u32 = 0x08;
const TUN_F_USO4: u32 = 0x20;
const TUN_F_USO6: u32 = 0x40;

/// Makes the descriptor of `/dev/net/tun` a TAP of this name (15 bytes at most) in the netns in which it was opened.
///
/// The TAP isn't persistent: it goes with its descriptor.
pub(super) fn make_tap(tun: &File, name: &str, vnet_header: i32) -> io::Result<()> {
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request
        .ifr_name
        .iter_mut()
        .take(libc::IFNAMSIZ - 1)
        .zip(name.bytes())
    {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes an ifreq.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    // SAFETY: TUNSETVNETHDRSZ reads an int.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const vnet_header) })?;
    let segmentation = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
    // USO came with 6.2; without it the kernel segments UDP before the TAP.
    set_offload(tun, segmentation | TUN_F_USO4 | TUN_F_USO6).or_else(|_| set_offload(tun, segmentation))
}

fn set_offload(tun: &File, offload: u32) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(offload)) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

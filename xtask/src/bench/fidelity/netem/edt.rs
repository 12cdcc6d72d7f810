//! Constant delay by departure times: a program on the way out says when each packet may leave, and `sch_fq` holds it until
//! then, as Cilium's bandwidth manager does.
//!
//! The program is eleven instructions long, and written down as such.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result};
use aya_obj::generated::{bpf_attach_type, bpf_prog_type};
use nix::net::if_::if_nametoindex;
use sabot_testkit::LabPod;
use sabot_testkit::programs::{self, instruction};

use super::LIMIT;
use crate::bench::rules;

/// How reports name it.
pub(super) const NAME: &str = "EDT + fq";
const PLACE: bpf_attach_type = bpf_attach_type::BPF_TCX_EGRESS;
/// Of `tstamp` in `struct __sk_buff`, in bytes.
const TSTAMP: i16 = 152;
/// The number of `bpf_ktime_get_ns`, which tells the time that fq goes by.
const KTIME_GET_NS: i32 = 5;
/// Other programs of the device go on with the packet.
const TCX_NEXT: i32 = -1;

/// The program and `sch_fq` on a pod's way out; dropping it removes both.
pub(super) struct Edt<'a> {
    pod: &'a LabPod,
    _link: OwnedFd,
}

impl<'a> Edt<'a> {
    /// # Errors
    ///
    /// Holds what `tc` said, or why the kernel doesn't take the program.
    pub(super) fn on(pod: &'a LabPod, delay: Duration) -> Result<Self> {
        rules::run(
            pod,
            &format!("tc qdisc add dev eth0 root fq limit {LIMIT} flow_limit {LIMIT}"),
        )?;
        let attached = load(&program(delay))
            .context("the program of departure times can't be loaded")
            .and_then(|program| attach(pod, &program));
        match attached {
            Ok(_link) => Ok(Self { pod, _link }),
            Err(error) => {
                remove_fq(pod);
                Err(error)
            }
        }
    }
}

impl Drop for Edt<'_> {
    fn drop(&mut self) {
        remove_fq(self.pod);
    }
}

fn remove_fq(pod: &LabPod) {
    if let Err(error) = rules::run(pod, "tc qdisc del dev eth0 root") {
        eprintln!("fq stays: {error:#}");
    }
}

/// `tstamp = max(tstamp, now) + delay`: what TCP itself paces is delayed from then on.
fn program(delay: Duration) -> [u64; 11] {
    let delay = delay.as_nanos() as u64;
    [
        // r6 = context; r0 = now
        instruction(0xbf, 6, 1, 0, 0),
        instruction(0x85, 0, 0, 0, KTIME_GET_NS),
        // r1 = tstamp, or now where that is later
        instruction(0x79, 1, 6, TSTAMP, 0),
        instruction(0x3d, 1, 0, 1, 0),
        instruction(0xbf, 1, 0, 0, 0),
        // r2 = delay, in two halves
        instruction(0x18, 2, 0, 0, delay as i32),
        instruction(0, 0, 0, 0, (delay >> 32) as i32),
        // tstamp = r1 + r2
        instruction(0x0f, 1, 2, 0, 0),
        instruction(0x7b, 6, 1, TSTAMP, 0),
        // return TCX_NEXT
        instruction(0xb7, 0, 0, 0, TCX_NEXT),
        instruction(0x95, 0, 0, 0, 0),
    ]
}

fn load(code: &[u64]) -> io::Result<OwnedFd> {
    programs::load(bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS, PLACE, code)
}

/// Attaches it to the pod's way out.
fn attach(pod: &LabPod, program: &OwnedFd) -> Result<OwnedFd> {
    pod.netns().run(|| {
        let device = if_nametoindex("eth0").context("the pod has no eth0")?;
        programs::attach(program, PLACE, device).context("the program of departure times can't be attached")
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::c_long;
    use std::mem;
    use std::os::fd::AsRawFd;

    use aya_obj::generated::{bpf_attr, bpf_cmd};
    use nix::time::{ClockId, clock_gettime};

    use super::*;

    /// What the program makes of a packet's departure time.
    fn departure(program: &OwnedFd, tstamp: u64) -> u64 {
        const SK_BUFF: usize = 192;
        let at = TSTAMP as usize..TSTAMP as usize + 8;
        let frame = [0_u8; 64];
        let (mut before, mut after) = ([0_u8; SK_BUFF], [0_u8; SK_BUFF]);
        before[at.clone()].copy_from_slice(&tstamp.to_ne_bytes());
        // SAFETY: an all-zero attribute is valid; the fields set below point at data that outlives the call, with its
        // length.
        let result = unsafe {
            let mut attr: bpf_attr = mem::zeroed();
            let test = &mut attr.test;
            test.prog_fd = program.as_raw_fd() as u32;
            test.data_in = frame.as_ptr() as u64;
            test.data_size_in = frame.len() as u32;
            test.ctx_in = before.as_ptr() as u64;
            test.ctx_size_in = SK_BUFF as u32;
            test.ctx_out = after.as_mut_ptr() as u64;
            test.ctx_size_out = SK_BUFF as u32;
            let command = bpf_cmd::BPF_PROG_TEST_RUN as c_long;
            libc::syscall(libc::SYS_bpf, command, &raw mut attr, size_of::<bpf_attr>())
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        u64::from_ne_bytes(after[at].try_into().expect("8 bytes"))
    }

    #[test]
    fn packets_depart_so_much_later_than_they_would() {
        // More than fits 32 bits.
        let delay = Duration::from_secs(9);
        let program = load(&program(delay)).expect("the kernel takes it");
        let now = || {
            Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).expect("there is one")).as_nanos() as u64
        };
        let delay = delay.as_nanos() as u64;
        let from = now();
        for past in [0, from / 2] {
            let departure = departure(&program, past);
            assert!((from + delay..=now() + delay).contains(&departure), "{departure}");
        }
        let future = from * 2 + delay;
        assert_eq!(departure(&program, future), future + delay);
    }
}

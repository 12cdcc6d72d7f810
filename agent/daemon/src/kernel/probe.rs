//! What this machine can do, tried out in a private network namespace.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::departures;
use super::devices::{Side, VethPair};
use super::entry;
use super::features::{Feature, Features};
use super::hook::{self, HookKind};
use super::line;
use super::netns;
use super::rtnl::Rtnl;
use super::sys;

/// At least a page on every architecture.
const PAGE: u32 = 64 << 10;

/// The index of `lo`, which is the first device of every namespace.
const LOOPBACK: u32 = 1;

/// Tries everything; nothing is left behind, since the namespace goes at the end.
pub fn probe() -> Features {
    let list = match entry::load_pass() {
        Ok(program) => with_bpf(program.as_fd()),
        Err(error) => vec![bpf(Err(format!(
            "the kernel refused a program of two instructions: {error}"
        )))],
    };
    Features {
        kernel_release: kernel_release(),
        list,
    }
}

/// The way to attach programs: tcx where there is one.
pub fn best_hook(features: &Features) -> Option<HookKind> {
    if features.has("tcx") {
        Some(HookKind::Tcx)
    } else if features.has("clsact") {
        Some(HookKind::Clsact)
    } else {
        None
    }
}

fn with_bpf(program: BorrowedFd<'_>) -> Vec<Feature> {
    let mut list = vec![bpf(Ok(()))];
    let workshop: OwnedFd = match netns::make_private() {
        Ok(file) => file.into(),
        Err(error) => {
            list[0] = feature(
                "bpf",
                Err(error.to_string()),
                "loaded",
                "no fault can be injected",
            );
            return list;
        }
    };
    let here = workshop.as_fd();
    list.push(feature(
        "boot_clock",
        entry::load_boot_clock().map(drop).map_err(|e| e.to_string()),
        "deadlines go on in suspend",
        "no fault can be injected, since the kernel could not check its deadline",
    ));
    list.push(feature(
        "ringbuf",
        sys::ring_buffer(PAGE).map(drop).map_err(|e| e.to_string()),
        "events can be read",
        "no fault can be injected and nothing is observed",
    ));
    list.push(atomics());
    list.push(feature(
        "tcx",
        inside(here, || sys::tcx_link(program, LOOPBACK, false).map(drop).map_err(|e| e.to_string())),
        "links attach and vanish with the daemon",
        "programs are attached by clsact filters, which stay, inert, when the daemon is killed, until the next one starts",
    ));
    list.push(feature(
        "clsact",
        inside(here, || {
            hook::attach_clsact(program, LOOPBACK, Side::Ingress).map_err(|e| e.to_string())
        }),
        "filters attach",
        "no delay and no decision per wire packet; without tcx no fault at all",
    ));
    list.push(feature(
        "tun",
        inside(here, try_tun),
        "TAPs can be made",
        "delay is refused",
    ));
    list.push(feature(
        "veth",
        inside(here, || try_veth(here)),
        "the segmenter can be made",
        "drop and corrupt are refused, since they could not be exact per wire packet",
    ));
    let departures = departures::try_out().map_err(|error| error.to_string());
    list.push(Feature::new(
        "departures",
        departures,
        "constant delays go through the delay line, as all others do",
    ));
    list
}

fn bpf(result: Result<(), String>) -> Feature {
    feature(
        "bpf",
        result,
        "programs load",
        "no fault can be injected and nothing is observed",
    )
}

fn atomics() -> Feature {
    let found = entry::load_fetch().map(drop).map_err(|error| {
        format!("programs can't change memory and read it in one step, as from Linux 5.12 on ({error})")
    });
    feature(
        "atomics",
        found,
        "programs change memory and read it in one step",
        "CPUs that decide on packets of the same fault at the same time wait for each other; faults do the same",
    )
}

fn try_tun() -> Result<(), String> {
    let tun = line::open_tun().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!(
            "{} is absent: the tun module is missing, or the device is not in this container",
            line::TUN
        ),
        io::ErrorKind::PermissionDenied => {
            format!("{} is denied by the daemon's device cgroup ({error})", line::TUN)
        }
        _ => format!("cannot open {}: {error}", line::TUN),
    })?;
    sys::make_tap(&tun, "sabot-probe", line::VNET_HEADER as i32)
        .map_err(|error| format!("cannot make a TAP with {}: {error}", line::TUN))
}

fn try_veth(workshop: BorrowedFd<'_>) -> Result<(), String> {
    let pair = VethPair {
        far: "sabot-far",
        near: "sabot-near",
        near_netns: workshop,
        mtu: 1500,
    };
    Rtnl::open()
        .and_then(|mut rtnl| rtnl.add_veth(&pair))
        .map_err(|error| error.to_string())
}

fn inside(workshop: BorrowedFd<'_>, work: impl FnOnce() -> Result<(), String> + Send) -> Result<(), String> {
    netns::run_in(workshop, work).map_err(|error| error.to_string())?
}

fn feature(name: &'static str, result: Result<(), String>, found: &str, consequence: &str) -> Feature {
    Feature::new(name, result.map(|()| found.to_owned()), consequence)
}

fn kernel_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_attach() {
        let features = probe();
        assert!(features.has("bpf"), "{features:?}");
        assert!(best_hook(&features).is_some(), "{features:?}");
        for feature in &features.list {
            assert_eq!(feature.available, feature.consequence.is_empty(), "{feature:?}");
        }
    }
}

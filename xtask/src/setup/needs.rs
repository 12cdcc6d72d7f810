//! What each purpose needs of the machine, and the Debian package that has it.

use std::path::Path;
use std::process::Command;

use clap::ValueEnum;

use crate::process;

/// What a machine is set up for; each purpose includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Purpose {
    /// The compiler and the linker for eBPF.
    Build,
    /// And what `cargo xtask demo` runs: namespaces, and a containerd for `--pods containerd`.
    Demo,
    /// And what the linter, the witnesses and the foreign clients of `cargo xtask test` need.
    Test,
}

/// One thing that must be there.
pub(crate) struct Need {
    pub(crate) purpose: Purpose,
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
    probe: Probe,
}

/// How a need is recognised as met, whoever installed it.
enum Probe {
    Program(&'static str),
    /// Any of these files.
    File(&'static [&'static str]),
    /// Debian's Python, whose modules come from Debian's packages.
    PythonModule(&'static str),
}

impl Need {
    pub(crate) fn is_met(&self) -> bool {
        match self.probe {
            Probe::Program(name) => process::find_program(name).is_some(),
            Probe::File(paths) => paths.iter().any(|path| Path::new(path).exists()),
            Probe::PythonModule(module) => {
                process::succeeds(Command::new("/usr/bin/python3").args(["-c", &format!("import {module}")]))
            }
        }
    }
}

const fn program(purpose: Purpose, name: &'static str, package: &'static str) -> Need {
    Need {
        purpose,
        name,
        package,
        probe: Probe::Program(name),
    }
}

/// Everything but the compiler and the linker, which `toolchain` sees to.
pub(crate) const NEEDS: &[Need] = &[
    program(Purpose::Demo, "ip", "iproute2"),
    program(Purpose::Demo, "nft", "nftables"),
    program(Purpose::Demo, "ping", "iputils-ping"),
    program(Purpose::Demo, "bpftool", "bpftool"),
    program(Purpose::Demo, "ps", "procps"),
    program(Purpose::Demo, "containerd", "containerd"),
    program(Purpose::Demo, "runc", "runc"),
    program(Purpose::Demo, "iptables", "iptables"),
    program(Purpose::Demo, "busybox", "busybox-static"),
    Need {
        purpose: Purpose::Demo,
        name: "CNI plugins",
        package: "containernetworking-plugins",
        probe: Probe::File(&["/usr/lib/cni/bridge", "/opt/cni/bin/bridge"]),
    },
    program(Purpose::Test, "ipset", "ipset"),
    program(Purpose::Test, "tcpdump", "tcpdump"),
    program(Purpose::Test, "iperf3", "iperf3"),
    program(Purpose::Test, "promtool", "prometheus"),
    program(Purpose::Test, "prometheus", "prometheus"),
    program(Purpose::Test, "dnsmasq", "dnsmasq-base"),
    program(Purpose::Test, "dig", "bind9-dnsutils"),
    program(Purpose::Test, "strace", "strace"),
    program(Purpose::Test, "bpftrace", "bpftrace"),
    // libFuzzer is built from its source.
    program(Purpose::Test, "c++", "g++"),
    Need {
        purpose: Purpose::Test,
        name: "Python's grpc",
        package: "python3-grpcio",
        probe: Probe::PythonModule("grpc"),
    },
    Need {
        purpose: Purpose::Test,
        name: "Python's protobuf",
        package: "python3-protobuf",
        probe: Probe::PythonModule("google.protobuf"),
    },
];

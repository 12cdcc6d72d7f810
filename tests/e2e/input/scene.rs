//! A daemon with one fault in force, and a pod that nothing must happen to.

use std::fs;
use std::io;
use std::process::Output;

use nix::libc;
use nix::net::if_::if_nametoindex;
use sabot_testkit::{Daemon, DaemonOptions, Lab, NetnsRef};

pub(crate) const USAGE: i32 = 2;
pub(crate) const REFUSED: i32 = 4;

const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;

pub(crate) struct Scene {
    // Before the lab: the daemon ends while the namespaces are still there.
    pub(crate) daemon: Daemon,
    pub(crate) lab: Lab,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self::with(&[])
    }

    /// With more flags for the daemon.
    pub(crate) fn with(flags: &[&str]) -> Self {
        let lab = Lab::new(2).expect("a lab can be made (root is needed)");
        let options = DaemonOptions::built().expect("they are built");
        let daemon = Daemon::start(options.flags(flags)).expect("it starts");
        let scene = Self { daemon, lab };
        // What is in force must stay as it is, so that it must meet no packet: nobody uses this port.
        let target = scene.lab.pod(1).target();
        let arguments = [
            "partition",
            "--target",
            &target,
            "--port",
            "TCP:9",
            "--for",
            "10m",
            "--name",
            "standing",
        ];
        scene.daemon.sabot_ok(&arguments).expect("it is applied");
        scene
    }

    /// The pod that refused requests name.
    pub(crate) fn target(&self) -> String {
        self.lab.pod(0).target()
    }

    pub(crate) fn netns(&self) -> &NetnsRef {
        self.lab.pod(0).netns()
    }

    /// What the daemon knows, as JSON.
    pub(crate) fn known(&self) -> String {
        self.daemon.sabot_ok(&["get", "-o", "json"]).expect("it lists")
    }

    /// Runs `sabot`, which must fail with this code and say all of these, and change nothing.
    pub(crate) fn assert_refused(&self, arguments: &[&str], exit: i32, says: &[&str]) {
        self.assert_no_effect(&format!("{arguments:?}"), || {
            let output = self.daemon.sabot(arguments).expect("it runs");
            assert_says(&output, exit, says, &format!("{arguments:?}"));
        });
    }

    /// Does something that must leave no trace: neither in what the daemon knows nor in the pod's namespace.
    pub(crate) fn assert_no_effect(&self, what: &str, attempt: impl FnOnce()) {
        let before = self.known();
        attempt();
        assert_eq!(self.known(), before, "{what} changed what is known");
        assert_eq!(attached(self.netns()), 0, "{what} left a program on eth0");
    }
}

pub(crate) fn assert_says(output: &Output, exit: i32, says: &[&str], what: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(exit), "{what}: {said}");
    for part in says {
        assert!(said.contains(part), "{what}: `{part}` is not in: {said}");
    }
    assert!(
        output.stdout.is_empty(),
        "{what} printed something as if it had succeeded"
    );
}

/// How many programs are attached to the `eth0` of a namespace by tcx, where every daemon here attaches.
pub(crate) fn attached(netns: &NetnsRef) -> usize {
    netns.run(|| {
        let ifindex = if_nametoindex("eth0").expect("the pod has one");
        let of = |kind| programs(ifindex, kind).expect("the kernel has tcx") as usize;
        of(BPF_TCX_INGRESS) + of(BPF_TCX_EGRESS)
    })
}

/// How many programs of a kind are attached to a device.
fn programs(ifindex: u32, kind: u32) -> io::Result<u32> {
    #[repr(C)]
    struct Query {
        ifindex: u32,
        kind: u32,
        flags: [u32; 2],
        ids: u64,
        count: u32,
        reserved: u32,
        rest: [u64; 4],
    }
    let mut query = Query {
        ifindex,
        kind,
        flags: [0; 2],
        ids: 0,
        count: 0,
        reserved: 0,
        rest: [0; 4],
    };
    // SAFETY: the attribute outlives the call and its size is its own; without room for ids the kernel writes only into it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut query, size_of::<Query>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(query.count)
}

/// A manifest whose spec has these lines.
pub(crate) fn manifest(spec: &str) -> String {
    format!("apiVersion: sabot.dev/v1alpha1\nkind: NetworkFault\nmetadata: {{name: bad}}\nspec:\n{spec}")
}

/// The daemon's resident file descriptors, to see that nothing is left open.
pub(crate) fn descriptors(daemon: &Daemon) -> usize {
    fs::read_dir(format!("/proc/{}/fd", daemon.pid()))
        .expect("it runs")
        .count()
}

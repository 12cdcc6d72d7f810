//! Socket-level load balancing, as Cilium does it: a program at a cgroup's `connect` puts a backend in the place of the
//! Service, so that no packet ever carries the Service's address.

use std::fs;
use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use aya_obj::generated::{bpf_attach_type, bpf_prog_type};
use sabot_testkit::programs::{self, instruction};

const PLACE: bpf_attach_type = bpf_attach_type::BPF_CGROUP_INET4_CONNECT;
// Of `struct bpf_sock_addr`.
const USER_IP4: i16 = 4;
const USER_PORT: i16 = 24;
const GET_PRANDOM_U32: i32 = 7;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A cgroup whose processes reach Services. Dropping it takes it away, once they have ended.
pub(crate) struct Balancer {
    folder: PathBuf,
    /// `None` until there are Services.
    link: Option<OwnedFd>,
}

impl Balancer {
    pub(crate) fn new() -> io::Result<Self> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = root()?.join(format!("sabot-services-{}-{number}", process::id()));
        fs::create_dir(&folder)?;
        Ok(Self { folder, link: None })
    }

    /// What a process writes its pid to.
    pub(crate) fn procs(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    /// Replaces all Services by these, each with its backends.
    pub(crate) fn replace(&mut self, services: &[(SocketAddrV4, Vec<SocketAddrV4>)]) -> io::Result<()> {
        let kind = bpf_prog_type::BPF_PROG_TYPE_CGROUP_SOCK_ADDR;
        let program = programs::load(kind, PLACE, &program(services))?;
        let folder = fs::File::open(&self.folder)?;
        // A cgroup has one program of a kind.
        self.link = None;
        self.link = Some(programs::attach(program, PLACE, folder.as_raw_fd() as u32)?);
        Ok(())
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.link = None;
        if let Err(error) = fs::remove_dir(&self.folder) {
            eprintln!("{} can't be removed: {error}", self.folder.display());
        }
    }
}

/// Where cgroups of version 2 are.
fn root() -> io::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let found = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let path = words.next()?;
        (words.next()? == "cgroup2").then(|| PathBuf::from(path))
    });
    found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no cgroup2 is mounted"))
}

/// Each connection to a Service goes to one of its backends by chance; all others go where they were meant to.
fn program(services: &[(SocketAddrV4, Vec<SocketAddrV4>)]) -> Vec<u64> {
    const R0: u8 = 0;
    const R1: u8 = 1;
    const CONTEXT: u8 = 6;
    const ADDRESS: u8 = 7;
    const PORT: u8 = 8;
    let load = |to, offset| instruction(0x61, to, CONTEXT, offset, 0);
    let store = |from, offset| instruction(0x63, CONTEXT, from, offset, 0);
    let set = |to, value| instruction(0xb4, to, 0, 0, value);
    let unless = |register, value, skip: usize| instruction(0x56, register, 0, skip as i16, value);
    let allow = [set(R0, 1), instruction(0x95, 0, 0, 0, 0)];

    let mut code = vec![
        instruction(0xbf, CONTEXT, R1, 0, 0),
        load(ADDRESS, USER_IP4),
        load(PORT, USER_PORT),
    ];
    for (front, backends) in services.iter().filter(|(_, backends)| !backends.is_empty()) {
        let mut choice = vec![
            instruction(0x85, 0, 0, 0, GET_PRANDOM_U32),
            instruction(0x97, R0, 0, 0, backends.len() as i32),
        ];
        for (number, backend) in backends.iter().enumerate() {
            let (address, port) = ends(*backend);
            let mut connect = vec![
                set(R1, address),
                store(R1, USER_IP4),
                set(R1, port),
                store(R1, USER_PORT),
            ];
            connect.extend(allow);
            choice.push(unless(R0, number as i32, connect.len()));
            choice.extend(connect);
        }
        let (address, port) = ends(*front);
        code.push(unless(ADDRESS, address, choice.len() + 1));
        code.push(unless(PORT, port, choice.len()));
        code.extend(choice);
    }
    code.extend(allow);
    code
}

/// Address and port in the network's order.
fn ends(end: SocketAddrV4) -> (i32, i32) {
    let address = i32::from_ne_bytes(end.ip().octets());
    (address, i32::from(end.port().to_be()))
}

//! Reading the kernel's structures, whose layout the daemon looks up before the object is loaded.

use core::ptr;

use aya_ebpf::helpers::bpf_probe_read_kernel;
use sabot_abi::{NO_OFFSET, TcpOffsets};

#[unsafe(no_mangle)]
static OFFSETS: TcpOffsets = TcpOffsets {
    family: 0,
    state: 0,
    net: 0,
    v4_remote: 0,
    v4_local: 0,
    v6_remote: 0,
    v6_local: 0,
    remote_port: 0,
    local_port: 0,
    protocol: 0,
    error: 0,
    cgroup: NO_OFFSET,
    cookie: 0,
    cgroup_node: 0,
    node_id: 0,
    unanswered: 0,
    bytes_acked: 0,
    bytes_received: 0,
    retransmits: 0,
    rtos: NO_OFFSET,
    segments_sent: 0,
    segments_received: 0,
    srtt: 0,
    send_window: 0,
    segments: 0,
    device: 0,
    device_net: 0,
    cgroup_parent: NO_OFFSET,
};

/// The loader replaces the value that the compiler sees, hence the volatile read.
macro_rules! offset {
    ($field:ident) => {
        // SAFETY: it is a static's field.
        unsafe { ptr::read_volatile(&raw const OFFSETS.$field) }
    };
}

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;

pub const TCP_ESTABLISHED: u32 = 1;
pub const TCP_SYN_SENT: u32 = 2;
pub const TCP_SYN_RECV: u32 = 3;
/// A closed connection's stand-in, which is shorter than a socket.
const TCP_TIME_WAIT: u32 = 6;
pub const TCP_CLOSE: u32 = 7;
pub const TCP_LISTEN: u32 = 10;
/// A connection request, which is shorter than a socket, too.
const TCP_NEW_SYN_RECV: u32 = 12;

/// The address of a `struct sock` or of one of its stand-ins, or 0.
#[derive(Clone, Copy)]
pub struct Sock(u64);

/// The address of a `struct cgroup`, or 0.
#[derive(Clone, Copy)]
pub struct Group(u64);

/// The address of a `struct sk_buff`, or 0.
#[derive(Clone, Copy)]
pub struct Buffer(u64);

/// The ends of a connection, as the socket has them; IPv4 addresses are IPv4-mapped.
#[derive(Clone, Copy)]
pub struct Ends {
    pub local: [u8; 16],
    pub remote: [u8; 16],
    /// Host byte order.
    pub local_port: u16,
    pub remote_port: u16,
    /// The id of the socket's cgroup; 0 where it isn't known.
    pub cgroup: u64,
}

impl Ends {
    pub const NONE: Self = Self {
        local: [0; 16],
        remote: [0; 16],
        local_port: 0,
        remote_port: 0,
        cgroup: 0,
    };
}

impl Sock {
    #[inline(always)]
    pub fn new(address: u64) -> Self {
        Self(address)
    }

    #[inline(always)]
    pub fn exists(self) -> bool {
        self.0 != 0
    }

    #[inline(always)]
    pub fn address(self) -> u64 {
        self.0
    }

    #[inline(always)]
    pub fn is_tcp(self) -> bool {
        read::<u16>(self.0, offset!(protocol)) == IPPROTO_TCP
    }

    #[inline(always)]
    fn state(self) -> u32 {
        read::<u8>(self.0, offset!(state)).into()
    }

    /// The pending error, a positive errno, or 0.
    #[inline(always)]
    pub fn error(self) -> u32 {
        read(self.0, offset!(error))
    }

    /// The cookie of its network namespace.
    #[inline(always)]
    pub fn namespace(self) -> u64 {
        namespace(self.0, offset!(net))
    }

    /// The id of its cgroup (v2), 0 where there is none.
    #[inline(always)]
    pub fn cgroup(self) -> u64 {
        match self.group() {
            group if group.exists() => group.id(),
            _ => 0,
        }
    }

    /// Its cgroup (v2), perhaps none.
    #[inline(always)]
    pub fn group(self) -> Group {
        if offset!(cgroup) == NO_OFFSET || matches!(self.state(), TCP_TIME_WAIT | TCP_NEW_SYN_RECV) {
            return Group(0);
        }
        Group(read(self.0, offset!(cgroup)))
    }

    #[inline(always)]
    pub fn ends(self) -> Ends {
        let (local, remote) = match read::<u16>(self.0, offset!(family)) {
            AF_INET => (
                mapped(read(self.0, offset!(v4_local))),
                mapped(read(self.0, offset!(v4_remote))),
            ),
            AF_INET6 => (read(self.0, offset!(v6_local)), read(self.0, offset!(v6_remote))),
            _ => ([0; 16], [0; 16]),
        };
        Ends {
            local,
            remote,
            local_port: self.local_port(),
            remote_port: u16::from_be(read(self.0, offset!(remote_port))),
            cgroup: self.cgroup(),
        }
    }

    #[inline(always)]
    pub fn local_port(self) -> u16 {
        read(self.0, offset!(local_port))
    }

    /// How often the retransmission timer ran out since the peer last acknowledged something new.
    #[inline(always)]
    pub fn unanswered(self) -> u8 {
        read(self.0, offset!(unanswered))
    }

    #[inline(always)]
    pub fn bytes_acked(self) -> u64 {
        read(self.0, offset!(bytes_acked))
    }

    #[inline(always)]
    pub fn bytes_received(self) -> u64 {
        read(self.0, offset!(bytes_received))
    }

    /// Segments.
    #[inline(always)]
    pub fn retransmits(self) -> u32 {
        read(self.0, offset!(retransmits))
    }

    /// How often the retransmission timer ran out and made segments go out again: a counter of 16 bits. `None` where the
    /// kernel doesn't count it.
    #[inline(always)]
    pub fn rtos(self) -> Option<u16> {
        if offset!(rtos) == NO_OFFSET {
            return None;
        }
        Some(read(self.0, offset!(rtos)))
    }

    #[inline(always)]
    pub fn segments_sent(self) -> u32 {
        read(self.0, offset!(segments_sent))
    }

    #[inline(always)]
    pub fn segments_received(self) -> u32 {
        read(self.0, offset!(segments_received))
    }

    /// The smoothed round-trip time, us; 0 before there is one.
    #[inline(always)]
    pub fn srtt(self) -> u32 {
        // The kernel keeps eight times the value.
        read::<u32>(self.0, offset!(srtt)) >> 3
    }

    /// What the peer is ready to take.
    #[inline(always)]
    pub fn send_window(self) -> u32 {
        read(self.0, offset!(send_window))
    }
}

impl Group {
    #[inline(always)]
    pub fn exists(self) -> bool {
        self.0 != 0
    }

    #[inline(always)]
    pub fn id(self) -> u64 {
        read(read(self.0, offset!(cgroup_node)), offset!(node_id))
    }

    /// The one that it is in; none for the root.
    #[inline(always)]
    pub fn parent(self) -> Self {
        match offset!(cgroup_parent) {
            NO_OFFSET => Self(0),
            parent => Self(read(self.0, parent)),
        }
    }
}

impl Buffer {
    #[inline(always)]
    pub fn new(address: u64) -> Self {
        Self(address)
    }

    /// How many segments it is to be sent as.
    #[inline(always)]
    pub fn segments(self) -> u32 {
        read::<u16>(self.0, offset!(segments)).into()
    }

    /// The cookie of the network namespace of the device that it came through; 0 without a device.
    #[inline(always)]
    pub fn namespace(self) -> u64 {
        match read(self.0, offset!(device)) {
            0 => 0,
            device => namespace(device, offset!(device_net)),
        }
    }
}

#[inline(always)]
fn namespace(structure: u64, offset: u32) -> u64 {
    read(read(structure, offset), offset!(cookie))
}

#[inline(always)]
fn mapped(address: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = address;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// What is at an offset in a structure of the kernel's; zero when it can't be read, which a structure in use always can.
#[inline(always)]
fn read<T: Default>(structure: u64, offset: u32) -> T {
    // SAFETY: the helper checks the address, and every bit pattern is a value of the integers that are read.
    unsafe { bpf_probe_read_kernel((structure + u64::from(offset)) as *const T) }.unwrap_or_default()
}

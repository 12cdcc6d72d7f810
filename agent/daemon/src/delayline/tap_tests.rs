//! The engine on a real TAP, in a network namespace of the test's own. Needs root and /dev/net/tun.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use sabot_core::plan::{Slot, TargetId};

use super::poller::boot_time;
use super::test_frames::{FrameSpec, Transport};
use super::test_rig::{HOUR, PATIENCE, Rig, wait_until};
use crate::engine::handle::Tally;

const DEVICE: &str = "sabot-test";
/// A packet socket's vnet header has no choice of size.
const PACKET_VNET: usize = 10;

fn checked(result: libc::c_int, what: &str) -> libc::c_int {
    assert!(result >= 0, "{what}: {}", io::Error::last_os_error());
    result
}

fn device_request() -> libc::ifreq {
    // SAFETY: all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(DEVICE.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

/// A TAP as the kernel room makes it, in the calling thread's new network namespace.
fn make_tap() -> OwnedFd {
    unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root for a network namespace of its own");
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").expect("IPv6 can be turned off");
    let tun = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    let tap: OwnedFd = tun.expect("this test needs /dev/net/tun").into();
    let mut request = device_request();
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as i16;
    let offloads = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    let fd = tap.as_raw_fd();
    // SAFETY: the request and the size outlive the calls, which have the types that these requests take.
    unsafe {
        checked(libc::ioctl(fd, libc::TUNSETIFF, &request), "TUNSETIFF");
        checked(libc::ioctl(fd, libc::TUNSETVNETHDRSZ, &12), "TUNSETVNETHDRSZ");
        checked(
            libc::ioctl(fd, libc::TUNSETOFFLOAD, libc::c_ulong::from(offloads)),
            "TUNSETOFFLOAD",
        );
    }
    run_ip(&["link", "set", DEVICE, "up"]);
    tap
}

fn run_ip(arguments: &[&str]) {
    let status = Command::new("ip")
        .args(arguments)
        .status()
        .expect("this test needs iproute2");
    assert!(status.success(), "ip {arguments:?}");
}

/// Sends into the TAP and sees what comes out of it, each frame with a vnet header of ten bytes.
struct PacketSocket(OwnedFd);

impl PacketSocket {
    fn new() -> Self {
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        let option = |fd, name| {
            let one: libc::c_int = 1;
            let size = size_of_val(&one) as libc::socklen_t;
            // SAFETY: the value is an int that outlives the call, of the size that is given.
            let result =
                unsafe { libc::setsockopt(fd, libc::SOL_PACKET, name, (&raw const one).cast(), size) };
            checked(result, "setsockopt");
        };
        // SAFETY: socket returns a descriptor of ours; the address is a sockaddr_ll of the size that is given.
        unsafe {
            let raw = libc::socket(
                libc::AF_PACKET,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                i32::from(protocol),
            );
            let socket = OwnedFd::from_raw_fd(checked(raw, "packet socket"));
            option(raw, libc::PACKET_VNET_HDR);
            option(raw, libc::PACKET_IGNORE_OUTGOING);
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = protocol;
            address.sll_ifindex = nix::net::if_::if_nametoindex(DEVICE).expect("the TAP is there") as i32;
            let size = size_of_val(&address) as libc::socklen_t;
            checked(libc::bind(raw, (&raw const address).cast(), size), "bind");
            Self(socket)
        }
    }

    fn send(&self, bytes: &[u8]) {
        assert_eq!(nix::unistd::write(&self.0, bytes), Ok(bytes.len()));
    }

    fn receive(&self) -> Vec<u8> {
        let mut bytes = vec![0; 1 << 17];
        let mut fds = [nix::poll::PollFd::new(
            std::os::fd::AsFd::as_fd(&self.0),
            nix::poll::PollFlags::POLLIN,
        )];
        let timeout = nix::poll::PollTimeout::try_from(PATIENCE).expect("a short time");
        assert_eq!(
            nix::poll::poll(&mut fds, timeout),
            Ok(1),
            "a frame comes out of the TAP"
        );
        let length = nix::unistd::read(&self.0, &mut bytes).expect("the frame can be read");
        bytes.truncate(length);
        bytes
    }
}

/// A namespace belongs to a thread: each test gets one of its own, which takes the namespace with it.
fn in_own_namespace(test: fn()) {
    if let Err(panic) = std::thread::spawn(test).join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn a_super_packet_stays_whole_on_a_real_tap() {
    in_own_namespace(|| {
        let rig = Rig::new();
        let tap = make_tap();
        rig.take(1, tap);
        rig.delay(1, HOUR);
        let socket = PacketSocket::new();
        for (index, ipv6) in [(1, false), (2, true)] {
            let headers = 14 + 32 + if ipv6 { 40 } else { 20 };
            let spec = FrameSpec {
                transport: Transport::Tcp,
                ipv6,
                payload: 50_000,
                gso_size: 1000,
                id: index,
                ..FrameSpec::default()
            };
            let sent = spec.build(PACKET_VNET);
            let before = boot_time();
            socket.send(&sent);
            rig.wait_held(1, 1, 50);
            assert_eq!(
                rig.tallies(1, 1).held,
                Tally {
                    packets: 50,
                    bytes: 50_000 + 50 * headers
                }
            );
            rig.line.clear_slot(Slot(1));
            let received = socket.receive();
            // The kernel takes the tag off before it shows the frame.
            let (vnet, frame) = received.split_at(PACKET_VNET);
            let frame_sent = [&sent[PACKET_VNET..PACKET_VNET + 12], &sent[PACKET_VNET + 16..]].concat();
            assert_eq!(vnet[1] & 0x7f, sent[1], "the type of GSO");
            assert_eq!(vnet[4..6], sent[4..6], "the GSO size");
            assert!(frame == frame_sent, "the frame comes out as it went in");
            assert!(rig.line.histogram(Slot(1)).sum <= Duration::from_nanos(boot_time() - before));
            rig.line.forget(Slot(1), TargetId(1));
            rig.delay(1, HOUR);
        }
        assert_eq!(rig.line.untagged(), Tally::default());
        rig.line.close(TargetId(1));
        assert!(
            nix::net::if_::if_nametoindex(DEVICE).is_err(),
            "the device goes with its descriptor"
        );
    });
}

#[test]
fn a_line_ends_when_its_tap_is_deleted() {
    in_own_namespace(|| {
        let rig = Rig::new();
        rig.take(1, make_tap());
        rig.delay(1, HOUR);
        let socket = PacketSocket::new();
        socket.send(&FrameSpec::default().build(PACKET_VNET));
        rig.wait_held(1, 1, 1);
        run_ip(&["link", "del", DEVICE]);
        wait_until("the line is closed", || !rig.line.is_open(TargetId(1)));
        let tallies = rig.tallies(1, 1);
        assert_eq!((tallies.held.packets, tallies.lost_write.packets), (0, 1));
        assert!(rig.line.is_alive());
    });
}

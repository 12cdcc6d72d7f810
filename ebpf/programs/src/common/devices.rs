//! From a device, a socket or a route to its network namespace, where it isn't sure that it is one.

use crate::memory::{offset, read, read_pointer};
use crate::owners::NET;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const AF_PACKET: u16 = 17;

/// The namespace of what may be a device: packets that wait in a socket's queue keep other things in the same place. A
/// namespace names its loopback device, which names the namespace.
#[inline(always)]
pub fn net_of_device(device: u64) -> Option<u64> {
    let net = read_pointer(device, offset!(NET.device_net))?;
    let loopback = read_pointer(net, offset!(NET.net_loopback))?;
    (read_pointer(loopback, offset!(NET.device_net))? == net).then_some(net)
}

/// Whether a socket sends and receives packets; others pass messages inside the machine.
#[inline(always)]
pub fn is_network_sock(sock: u64) -> bool {
    matches!(
        read::<u16>(sock, offset!(NET.sock_family)),
        Some(AF_INET | AF_INET6 | AF_PACKET)
    )
}

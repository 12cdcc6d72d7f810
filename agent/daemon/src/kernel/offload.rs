//! Turning a device's segmentation and checksum offloads off, by the ethtool ioctl, in the netns of the calling thread.

use std::io;
use std::mem;
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

const ETH_SS_FEATURES: u32 = 4;
const ETH_GSTRING_LEN: usize = 32;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_SFEATURES: u32 = 0x3b;
/// More feature names than any kernel has.
const MOST_FEATURES: usize = 256;
const WORDS: usize = MOST_FEATURES / 32;

/// `struct ethtool_gstrings` with room for the names.
#[repr(C)]
struct Names {
    command: u32,
    string_set: u32,
    length: u32,
    data: [[u8; ETH_GSTRING_LEN]; MOST_FEATURES],
}

/// `struct ethtool_sfeatures` with room for the blocks.
#[repr(C)]
struct SetFeatures {
    command: u32,
    size: u32,
    blocks: [Block; WORDS],
}

/// `struct ethtool_set_features_block`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Block {
    valid: u32,
    requested: u32,
}

/// After this the kernel segments every super-packet, and sums every packet whose checksum was left to the device, before
/// it hands them to the device.
pub(super) fn stop_offloads(device: &str) -> io::Result<()> {
    let mut names = Names {
        command: ETHTOOL_GSTRINGS,
        string_set: ETH_SS_FEATURES,
        length: 0,
        data: [[0; ETH_GSTRING_LEN]; MOST_FEATURES],
    };
    ethtool(device, &mut names)?;
    let count = (names.length as usize).min(MOST_FEATURES);
    let mut set = SetFeatures {
        command: ETHTOOL_SFEATURES,
        size: count.div_ceil(32) as u32,
        blocks: [Block::default(); WORDS],
    };
    for (bit, name) in names.data[..count].iter().enumerate() {
        if is_offload(name) {
            set.blocks[bit / 32].valid |= 1 << (bit % 32);
        }
    }
    ethtool(device, &mut set)
}

/// `tx-tcp-segmentation`, `tx-udp-segmentation`, `tx-gso-partial`, `tx-gso-list`, `tx-generic-segmentation` and their like,
/// and `tx-checksum-ip-generic`, `tx-checksum-sctp` and theirs.
fn is_offload(name: &[u8; ETH_GSTRING_LEN]) -> bool {
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    let name = &name[..end];
    name.ends_with(b"segmentation") && name.starts_with(b"tx-")
        || name.starts_with(b"tx-gso")
        || name.starts_with(b"tx-checksum-")
}

fn ethtool<T>(device: &str, request: &mut T) -> io::Result<()> {
    let socket = socket(
        AddressFamily::Unix,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: an all-zero ifreq is valid.
    let mut ifreq: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in ifreq
        .ifr_name
        .iter_mut()
        .take(libc::IFNAMSIZ - 1)
        .zip(device.bytes())
    {
        *to = from as libc::c_char;
    }
    ifreq.ifr_ifru.ifru_data = (&raw mut *request).cast();
    // SAFETY: SIOCETHTOOL reads and writes the request that the ifreq points at, within the sizes that the request's own
    // fields say and that its type has room for.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut ifreq) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn padded(name: &str) -> [u8; ETH_GSTRING_LEN] {
        let mut bytes = [0; ETH_GSTRING_LEN];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        bytes
    }

    #[test]
    fn offloads_are_known_by_name() {
        for name in [
            "tx-tcp-segmentation",
            "tx-tcp6-segmentation",
            "tx-udp-segmentation",
            "tx-gso-partial",
            "tx-gso-list",
            "tx-checksum-ip-generic",
            "tx-checksum-ipv4",
            "tx-checksum-sctp",
        ] {
            assert!(is_offload(&padded(name)), "{name}");
        }
        for name in ["rx-checksum", "rx-gro", "tx-vlan-hw-insert", "tx-scatter-gather"] {
            assert!(!is_offload(&padded(name)), "{name}");
        }
    }
}

//! Frames for tests, as a TAP with a vnet header would hand them out.

use sabot_abi::{DIRECTION_EGRESS, Role, Stamp, TAG_ETHERTYPE, Tag};

use super::frame::OURS_LENGTH;

/// Bytes of the Ethernet header with what is ours in it.
pub(super) const HEADER: usize = 14 + OURS_LENGTH;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    fn protocol(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// Describes a frame. A TCP header is 32 bytes long, as with timestamps.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameSpec {
    pub(super) tag: Tag,
    pub(super) stamp: Stamp,
    pub(super) transport: Transport,
    pub(super) ipv6: bool,
    /// The last byte of the source address.
    pub(super) host: u8,
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    /// Bytes behind the transport header.
    pub(super) payload: usize,
    /// 0: not a super-packet.
    pub(super) gso_size: u16,
    /// Stands in the first eight bytes of the payload, as far as they exist.
    pub(super) id: u64,
}

impl Default for FrameSpec {
    fn default() -> Self {
        Self {
            tag: Tag {
                slot: 1,
                direction: DIRECTION_EGRESS,
                role: Role::Plain,
            },
            stamp: Stamp::NONE,
            transport: Transport::Udp,
            ipv6: false,
            host: 1,
            source_port: 1000,
            destination_port: 2000,
            payload: 64,
            gso_size: 0,
            id: 0,
        }
    }
}

/// One of a slot's, on egress.
pub(super) fn frame(slot: u32, id: u64) -> FrameSpec {
    let tag = Tag {
        slot,
        ..FrameSpec::default().tag
    };
    FrameSpec {
        tag,
        id,
        ..FrameSpec::default()
    }
}

impl FrameSpec {
    pub(super) fn build(&self, vnet_header: usize) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        frame.extend(TAG_ETHERTYPE.to_be_bytes());
        frame.extend(self.tag.tci().to_be_bytes());
        frame.extend(TAG_ETHERTYPE.to_be_bytes());
        frame.extend(self.stamp.tci().to_be_bytes());
        let transport = self.transport_header();
        let length = (transport.len() + self.payload) as u16;
        if self.ipv6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([self.transport.protocol(), 64]);
            frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, self.host]);
            frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        } else {
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend((20 + length).to_be_bytes());
            frame.extend([0, 0, 0, 0, 64, self.transport.protocol(), 0, 0]);
            frame.extend([10, 0, 0, self.host, 10, 0, 1, 2]);
        }
        let transport_start = frame.len();
        frame.extend(transport);
        let payload_start = frame.len();
        frame.extend((0..self.payload).map(|i| (i as u64 * 7 + self.id) as u8));
        for (byte, id) in frame[payload_start..].iter_mut().zip(self.id.to_be_bytes()) {
            *byte = id;
        }
        let mut bytes = self.vnet_header(vnet_header, transport_start);
        bytes.extend(frame);
        bytes
    }

    /// Reads the id back from what [`FrameSpec::build`] made, if the payload has room for one.
    pub(super) fn id_of(bytes: &[u8], vnet_header: usize) -> Option<u64> {
        let network = vnet_header + HEADER;
        let ipv6 = bytes.get(network - 2)? == &0x86;
        let (transport, protocol) = if ipv6 {
            (network + 40, bytes[network + 6])
        } else {
            (network + 20, bytes[network + 9])
        };
        let payload = transport + if protocol == 6 { 32 } else { 8 };
        let id = bytes.get(payload..payload + 8)?;
        id.try_into().ok().map(u64::from_be_bytes)
    }

    fn transport_header(&self) -> Vec<u8> {
        let mut header = Vec::new();
        header.extend(self.source_port.to_be_bytes());
        header.extend(self.destination_port.to_be_bytes());
        match self.transport {
            Transport::Udp => {
                header.extend(((8 + self.payload) as u16).to_be_bytes());
                header.extend([0, 0]);
            }
            Transport::Tcp => {
                header.resize(32, 0);
                header[12] = 8 << 4;
                header[13] = 0x10;
                // Timestamps between two no-operations.
                header[20..24].copy_from_slice(&[1, 1, 8, 10]);
            }
        }
        header
    }

    fn vnet_header(&self, length: usize, transport_start: usize) -> Vec<u8> {
        let mut header = vec![0; length];
        if self.gso_size > 0 {
            let (gso_type, checksum_offset) = match (self.transport, self.ipv6) {
                (Transport::Tcp, false) => (1, 16u16),
                (Transport::Tcp, true) => (4, 16),
                (Transport::Udp, _) => (5, 6),
            };
            header[0] = 1;
            header[1] = gso_type;
            header[2..4].copy_from_slice(&(transport_start as u16 + 64).to_ne_bytes());
            header[4..6].copy_from_slice(&self.gso_size.to_ne_bytes());
            header[6..8].copy_from_slice(&(transport_start as u16).to_ne_bytes());
            header[8..10].copy_from_slice(&checksum_offset.to_ne_bytes());
        }
        header
    }
}

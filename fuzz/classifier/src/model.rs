//! What a packet is, said plainly: over slices, one header after the other.

use sabot_abi::Tally;

/// What there is to know of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// IPv4 addresses are IPv4-mapped.
    pub source: [u8; 16],
    pub destination: [u8; 16],
    pub protocol: u32,
    /// Source and destination; `None` where there are none.
    pub ports: Option<(u16, u16)>,
    pub tcp_flags: u8,
    /// Type and code.
    pub icmp: Option<u16>,
    pub dscp: u8,
    pub is_fragment: bool,
    /// From the start of the frame.
    pub payload: u32,
    pub end: u32,
    /// Bytes of the IP packet, of each wire packet but the last one and of that.
    pub lengths: (u32, u32),
    pub wire: Tally,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// No fault names it.
    NotIp,
    Malformed,
}

/// Where the packet stands in its frame, and what has been read of it.
struct Reading<'a> {
    frame: &'a [u8],
    network: usize,
    transport: usize,
    is_later_fragment: bool,
    seen: Seen,
}

/// Reads a frame. `without_link` is the EtherType of a frame that begins with its IP header.
///
/// # Errors
///
/// No fault names it, or it breaks its format.
pub fn read(frame: &[u8], without_link: Option<u16>, gso_size: usize) -> Result<Seen, Unread> {
    if frame.is_empty() {
        return Err(Unread::Malformed);
    }
    let (ethertype, network) = match without_link {
        Some(ethertype) => (ethertype, 0),
        None => link(frame)?,
    };
    let mut reading = match ethertype {
        0x0800 => ipv4(frame, network)?,
        0x86dd => ipv6(frame, network)?,
        _ => return Err(Unread::NotIp),
    };
    if !reading.is_later_fragment {
        reading.read_transport()?;
    }
    reading.weigh(gso_size);
    Ok(reading.seen)
}

/// The EtherType behind at most two VLAN tags, and where its packet begins.
fn link(frame: &[u8]) -> Result<(u16, usize), Unread> {
    for at in [12, 16, 20] {
        match be16(frame, at).ok_or(Unread::Malformed)? {
            0x8100 | 0x88a8 => {}
            ethertype => return Ok((ethertype, at + 2)),
        }
    }
    Err(Unread::NotIp)
}

fn ipv4(frame: &[u8], network: usize) -> Result<Reading<'_>, Unread> {
    let header = frame.get(network..network + 20).ok_or(Unread::Malformed)?;
    let length = usize::from(header[0] & 15) * 4;
    if header[0] >> 4 != 4 || length < 20 {
        return Err(Unread::Malformed);
    }
    let mapped = |from: usize| {
        let mut address = [0; 16];
        address[10..12].fill(0xff);
        address[12..].copy_from_slice(&header[from..from + 4]);
        address
    };
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    let mut reading = Reading::begin(frame, network, total);
    reading.transport = network + length;
    // The offset counts, and that more will come; that it may not be cut doesn't.
    reading.is_later_fragment = fragment & 0x1fff != 0;
    reading.seen.is_fragment = reading.is_later_fragment || fragment & 0x2000 != 0;
    reading.seen.source = mapped(12);
    reading.seen.destination = mapped(16);
    reading.seen.protocol = u32::from(header[9]);
    reading.seen.dscp = header[1] >> 2;
    Ok(reading)
}

fn ipv6(frame: &[u8], network: usize) -> Result<Reading<'_>, Unread> {
    let header = frame.get(network..network + 40).ok_or(Unread::Malformed)?;
    if header[0] >> 4 != 6 {
        return Err(Unread::Malformed);
    }
    let address = |from: usize| <[u8; 16]>::try_from(&header[from..from + 16]).expect("16 bytes");
    let total = match u16::from_be_bytes([header[4], header[5]]) {
        0 => 0,
        length => 40 + usize::from(length),
    };
    let mut reading = Reading::begin(frame, network, total);
    reading.transport = network + 40;
    reading.seen.source = address(8);
    reading.seen.destination = address(24);
    reading.seen.protocol = u32::from(header[6]);
    let class = u16::from_be_bytes([header[0], header[1]]) >> 4;
    reading.seen.dscp = (class as u8) >> 2;
    reading.skip_extensions()?;
    Ok(reading)
}

impl<'a> Reading<'a> {
    /// A total of 0 is that of a packet that is too long for its field.
    fn begin(frame: &'a [u8], network: usize, total: usize) -> Self {
        let rest = frame.len() - network;
        let total = if total == 0 { rest } else { total.min(rest) };
        let end = (network + total) as u32;
        Self {
            frame,
            network,
            transport: network,
            is_later_fragment: false,
            seen: Seen {
                source: [0; 16],
                destination: [0; 16],
                protocol: 0,
                ports: None,
                tcp_flags: 0,
                icmp: None,
                dscp: 0,
                is_fragment: false,
                payload: end,
                end,
                lengths: (total as u32, total as u32),
                wire: Tally {
                    packets: 1,
                    bytes: frame.len() as u64,
                },
            },
        }
    }

    /// Fewer than eight of them.
    fn skip_extensions(&mut self) -> Result<(), Unread> {
        let mut skipped = 0;
        while matches!(self.seen.protocol, 0 | 43 | 44 | 51 | 60) {
            let header = self.frame.get(self.transport..self.transport + 4);
            let &[next, length, high, low] = header.ok_or(Unread::Malformed)? else {
                return Err(Unread::Malformed);
            };
            let length = usize::from(length);
            self.transport += match self.seen.protocol {
                44 => 8,
                51 => 4 * (length + 2),
                _ => 8 * (length + 1),
            };
            if self.seen.protocol == 44 {
                let field = u16::from_be_bytes([high, low]);
                self.is_later_fragment = field >> 3 != 0;
                self.seen.is_fragment = self.is_later_fragment || field & 1 != 0;
            }
            self.seen.protocol = u32::from(next);
            skipped += 1;
            if self.is_later_fragment {
                return Ok(());
            }
            if skipped == 8 {
                return Err(Unread::Malformed);
            }
        }
        Ok(())
    }

    /// So many bytes of the transport header, where they are there.
    fn transport<const N: usize>(&self) -> Option<[u8; N]> {
        let bytes = self.frame.get(self.transport..self.transport + N)?;
        bytes.try_into().ok()
    }

    fn read_transport(&mut self) -> Result<(), Unread> {
        let ports = |[a, b, c, d]: [u8; 4]| (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let header = match self.seen.protocol {
            6 => self.transport::<14>().map(|header| {
                self.seen.ports = self.transport().map(ports);
                self.seen.tcp_flags = header[13];
                usize::from(header[12] >> 4) * 4
            }),
            17 => {
                self.end_with_datagram();
                self.seen.ports = self.transport().map(ports);
                self.seen.ports.map(|_| 8)
            }
            132 => {
                self.seen.ports = self.transport().map(ports);
                self.seen.ports.map(|_| 12)
            }
            1 | 58 => {
                let kind = self.transport::<2>();
                if self.seen.protocol == 58 && kind.is_some_and(|[kind, _]| (133..=137).contains(&kind)) {
                    return Err(Unread::NotIp);
                }
                self.seen.icmp = kind.map(u16::from_be_bytes);
                kind.map(|_| 8)
            }
            _ => None,
        };
        let is_whole = |&length: &usize| self.seen.protocol != 6 || length >= 20;
        let payload = header.filter(is_whole).map(|length| self.transport + length);
        if let Some(payload) = payload.filter(|&at| at <= self.seen.end as usize) {
            self.seen.payload = payload as u32;
        }
        Ok(())
    }

    /// A datagram's own length, where it is one, may be less than its packet's.
    fn end_with_datagram(&mut self) {
        let length = be16(self.frame, self.transport + 4).map(usize::from);
        let end = length
            .filter(|&length| length >= 8)
            .map(|length| (self.transport + length) as u32);
        if let Some(end) = end.filter(|&end| end < self.seen.end) {
            self.seen.end = end;
            self.seen.payload = end;
        }
    }

    /// A super-packet's wire packets are what a NIC makes of it: the headers with each piece of the payload.
    fn weigh(&mut self, segment: usize) {
        let headers = self.seen.payload as usize;
        let payload = &self.frame[headers..];
        if segment == 0 || payload.len() <= segment {
            return;
        }
        let pieces: Vec<usize> = payload.chunks(segment).map(<[u8]>::len).collect();
        let length = |piece: usize| (headers + piece - self.network) as u32;
        self.seen.lengths = (length(pieces[0]), length(pieces[pieces.len() - 1]));
        self.seen.wire = Tally {
            packets: pieces.len() as u64,
            bytes: pieces.iter().map(|piece| (headers + piece) as u64).sum(),
        };
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([pair[0], pair[1]]))
}

//! A DNS message in a datagram, as far as it is needed here.

use sabot_abi::{DNS_HEADER, DNS_PORT, SkbOffsets};

use crate::counts::Loss;
use crate::memory::{offset, read, read_pointer};

#[unsafe(no_mangle)]
static SKB: SkbOffsets = SkbOffsets {
    head: 0,
    data: 0,
    end: 0,
    len: 0,
    data_len: 0,
    dev: 0,
    sk: 0,
    dst: 0,
    classifier_words: 0,
    skb_iif: 0,
    vlan_tci: 0,
    protocol: 0,
    mac_header: 0,
    network_header: 0,
    transport_header: 0,
    gso_size: 0,
    gso_segs: 0,
    dst_dev: 0,
    device_name: 0,
    reserved: 0,
};

const UDP: u8 = 17;
const UDP_HEADER: u32 = 8;
const RESPONSE: u8 = 0x80;
const OPCODE: u8 = 0x78;

/// Which end of a datagram the server is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Server {
    Source,
    Destination,
}

/// A datagram to or from the DNS port.
pub struct Datagram {
    head: u64,
    network: u32,
    transport: u32,
    server: Server,
    /// Host byte order.
    pub client_port: u16,
    /// UDP header and payload, as the header says.
    length: u32,
    /// From the packet's head on, where what can be read at once ends.
    end: u32,
}

/// Of a message's header.
pub struct Message {
    pub id: u16,
    pub rcode: u32,
    /// Where in memory the question begins, and how much there is to read from there on.
    pub question: u64,
    pub question_room: u32,
}

impl Datagram {
    /// `None` for everything that doesn't go to or come from the DNS port, which is all that most datagrams pay for.
    #[inline(always)]
    pub fn of(skb: u64, server: Server) -> Option<Self> {
        let head = read_pointer(skb, offset!(SKB.head))?;
        let transport = read::<u16>(skb, offset!(SKB.transport_header))? as u32;
        let [source, destination, length] = read::<[u16; 3]>(head, transport)?.map(u16::from_be);
        let (server_port, client_port) = match server {
            Server::Source => (source, destination),
            Server::Destination => (destination, source),
        };
        if server_port != DNS_PORT {
            return None;
        }
        let network = read::<u16>(skb, offset!(SKB.network_header))? as u32;
        let len = read::<u32>(skb, offset!(SKB.len))?;
        let paged = read::<u32>(skb, offset!(SKB.data_len))?;
        let data = read::<u64>(skb, offset!(SKB.data))?.wrapping_sub(head) as u32;
        Some(Self {
            head,
            network,
            transport,
            server,
            client_port,
            length: length as u32,
            end: data.wrapping_add(len).wrapping_sub(paged),
        })
    }

    /// The server's address, IPv4 as IPv4-mapped; `None` where it isn't UDP. Behind IPv6 extension headers none is looked for.
    #[inline(always)]
    pub fn server(&self) -> Option<[u8; 16]> {
        let start = read::<[u8; 10]>(self.head, self.network)?;
        let is_source = self.server == Server::Source;
        match start[0] >> 4 {
            4 if start[9] == UDP => {
                let at = self.network + if is_source { 12 } else { 16 };
                let [a, b, c, d] = read::<[u8; 4]>(self.head, at)?;
                Some([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
            }
            6 if start[6] == UDP => {
                let at = self.network + if is_source { 8 } else { 24 };
                read(self.head, at)
            }
            _ => None,
        }
    }

    /// The message in it, if it is a query or an answer to one, as the server's end has it. Other kinds of messages are
    /// none.
    ///
    /// # Errors
    ///
    /// [`Loss::Unread`] when the header isn't where it can be read, or isn't one.
    #[inline(always)]
    pub fn message(&self) -> Result<Option<Message>, Loss> {
        let start = self.transport + UDP_HEADER;
        let question = start + DNS_HEADER as u32;
        let end = self.end.min(self.transport.wrapping_add(self.length));
        if end < question {
            return Err(Loss::Unread);
        }
        let [id, flags] = read::<[u16; 2]>(self.head, start).ok_or(Loss::Unread)?;
        let [high, low] = flags.to_ne_bytes();
        let is_response = high & RESPONSE != 0;
        if high & OPCODE != 0 || is_response != (self.server == Server::Source) {
            return Ok(None);
        }
        Ok(Some(Message {
            id: u16::from_be(id),
            rcode: (low & 0x0f) as u32,
            question: self.head + question as u64,
            question_room: end - question,
        }))
    }
}

#[inline(always)]
pub fn sock_of(skb: u64) -> Option<u64> {
    read_pointer(skb, offset!(SKB.sk))
}

//! A DNS message in a datagram, as far as it is needed here.

use aya_ebpf::helpers::bpf_skb_load_bytes;
use aya_ebpf::programs::SkBuffContext;
use sabot_abi::{DNS_HEADER, DNS_PORT, DNS_QUESTION_ROOM};

use crate::counts::Loss;
use crate::memory::read;
use crate::owners;

const UDP: u8 = 17;
const UDP_HEADER: u32 = 8;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
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
    /// IPv4 addresses are IPv4-mapped.
    pub server: [u8; 16],
    /// Host byte order.
    pub client_port: u16,
    /// From the IP header on.
    transport: u32,
    /// UDP header and payload, as the header says.
    length: u32,
}

/// Of a message's header.
pub struct Message {
    pub id: u16,
    pub rcode: u32,
    /// From the IP header on, where the question begins, and how much there is from there on.
    question: u32,
    room: u32,
}

impl Datagram {
    /// `None` for everything that doesn't go to or come from the DNS port, which is all that every packet pays for. Behind
    /// IPv4 options and IPv6 extension headers no DNS is looked for.
    #[inline(always)]
    pub fn of(ctx: &SkBuffContext, server: Server) -> Option<Self> {
        let start = packet(ctx);
        let is_source = server == Server::Source;
        let header = start.bytes::<IPV4_HEADER>(0)?;
        let (address, transport) = match header[0] {
            0x45 => {
                if header[9] != UDP {
                    return None;
                }
                let at = if is_source { 12 } else { 16 };
                let [a, b, c, d] = start.bytes::<4>(at)?;
                (
                    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d],
                    IPV4_HEADER,
                )
            }
            first if first >> 4 == 6 => {
                if header[6] != UDP {
                    return None;
                }
                let at = if is_source { 8 } else { 24 };
                (start.bytes::<16>(at)?, IPV6_HEADER)
            }
            _ => return None,
        };
        let [a, b, c, d, e, f] = start.bytes::<6>(transport)?;
        let (source, destination) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let (server_port, client_port) = if is_source {
            (source, destination)
        } else {
            (destination, source)
        };
        (server_port == DNS_PORT).then_some(Self {
            server: address,
            client_port,
            transport: transport as u32,
            length: u16::from_be_bytes([e, f]) as u32,
        })
    }

    /// The message in it, if it is a query or an answer to one, as the server's end has it. Other kinds of messages are
    /// none.
    ///
    /// # Errors
    ///
    /// [`Loss::Unread`] when there is no room for a header.
    #[inline(always)]
    pub fn message(&self, ctx: &SkBuffContext, server: Server) -> Result<Option<Message>, Loss> {
        let start = self.transport + UDP_HEADER;
        let question = start + DNS_HEADER as u32;
        let end = ctx.len().min(self.transport + self.length);
        if end < question {
            return Err(Loss::Unread);
        }
        let [first, second, high, low] = ctx.load::<[u8; 4]>(start as usize).map_err(|_| Loss::Unread)?;
        let is_response = high & RESPONSE != 0;
        if high & OPCODE != 0 || is_response != (server == Server::Source) {
            return Ok(None);
        }
        Ok(Some(Message {
            id: u16::from_be_bytes([first, second]),
            rcode: (low & 0x0f) as u32,
            question,
            room: end - question,
        }))
    }
}

impl Message {
    /// Copies the question; returns how much there is of it. What stands behind it in the message is copied too.
    #[inline(always)]
    pub fn copy_question(&self, ctx: &SkBuffContext, to: &mut [u8; DNS_QUESTION_ROOM]) -> u32 {
        const MASK: u32 = 511;
        if self.room == 0 {
            return 0;
        }
        // The verifier wants to see that it isn't 0, and where it ends.
        let length = ((self.room.min(DNS_QUESTION_ROOM as u32) - 1) & MASK) + 1;
        if length > DNS_QUESTION_ROOM as u32 {
            return 0;
        }
        // SAFETY: the length is within the room, and the context is valid while the program runs.
        let result =
            unsafe { bpf_skb_load_bytes(ctx.skb.skb.cast(), self.question, to.as_mut_ptr().cast(), length) };
        if result == 0 { length } else { 0 }
    }
}

/// Whose socket it is that sends or takes the packet.
#[inline(always)]
pub fn owner(ctx: &SkBuffContext) -> Option<u32> {
    // SAFETY: the context is valid while the program runs.
    let sock = unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk };
    // The verifier lets nobody calculate with the pointer, but read the place where it stands.
    let sock = read::<u64>(&raw const sock as u64, 0).filter(|&sock| sock != 0)?;
    owners::of(owners::net_of_sock(sock)?, sock)
}

/// The part of the packet that can be read at once.
struct Start {
    data: usize,
    end: usize,
}

#[inline(always)]
fn packet(ctx: &SkBuffContext) -> Start {
    // SAFETY: the context is valid while the program runs.
    unsafe {
        Start {
            data: (*ctx.skb.skb).data as usize,
            end: (*ctx.skb.skb).data_end as usize,
        }
    }
}

impl Start {
    #[inline(always)]
    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        if self.data + at + N > self.end {
            return None;
        }
        // SAFETY: the bytes are within the packet, and any bytes are valid.
        Some(unsafe { *((self.data + at) as *const [u8; N]) })
    }
}

//! A DNS message in a packet, as far as it is needed here: a datagram's, or over TCP the one that a segment begins with, if the
//! segment has the whole of it.

use aya_ebpf::helpers::bpf_skb_load_bytes;
use aya_ebpf::programs::SkBuffContext;
use sabot_abi::{DNS_HEADER, DNS_PORT, DNS_QUESTION_ROOM, Query, QueryKey};

use crate::cgroup_skb::{self, packet};
use crate::counts::{Loss, lose};
use crate::{cgroups, owners};

const TCP: u8 = 6;
const UDP: u8 = 17;
const UDP_HEADER: u32 = 8;
/// Where a TCP header says how many words it has.
const TCP_WORDS: usize = 12;
/// Over TCP a message's length stands before it.
const PREFIX: u32 = 2;
const WORDS: usize = DNS_QUESTION_ROOM / size_of::<u64>();
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const RESPONSE: u8 = 0x80;
const OPCODE: u8 = 0x78;

/// Which end of a packet the server is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Server {
    Source,
    Destination,
}

/// A packet to or from the DNS port.
struct Packet {
    /// IPv4 addresses are IPv4-mapped.
    server: [u8; 16],
    /// Host byte order.
    client_port: u16,
    /// Where its payload begins and ends, from the IP header on.
    payload: u32,
    end: u32,
    is_stream: bool,
}

/// A message that is counted, and whose it is.
pub struct Seen {
    pub key: QueryKey,
    pub client: Client,
    pub message: Message,
}

impl Seen {
    /// `None` for what is no DNS, and for what belongs to nobody who is known, which is counted.
    ///
    /// # Errors
    ///
    /// As [`Packet::message`].
    #[inline(always)]
    pub fn of(ctx: &SkBuffContext, server: Server) -> Result<Option<Self>, Loss> {
        let Some(packet) = Packet::of(ctx, server) else {
            return Ok(None);
        };
        let Some((id, message)) = packet.message(ctx, server)? else {
            return Ok(None);
        };
        let Some(client) = Client::of(ctx) else {
            owners::count_unresolved();
            return Ok(None);
        };
        let key = QueryKey {
            server: packet.server,
            owner: client.owner,
            port: packet.client_port,
            id,
        };
        Ok(Some(Self { key, client, message }))
    }
}

/// Of a message's header.
pub struct Message {
    pub rcode: u32,
    /// From the IP header on, where the question begins, and how much there is from there on.
    question: u32,
    room: u32,
}

impl Packet {
    /// `None` for everything that doesn't go to or come from the DNS port, which is all that every packet pays for. Behind
    /// IPv4 options and IPv6 extension headers no DNS is looked for.
    #[inline(always)]
    fn of(ctx: &SkBuffContext, server: Server) -> Option<Self> {
        let start = packet(ctx);
        let is_source = server == Server::Source;
        let header = start.bytes::<IPV4_HEADER>(0)?;
        let (address, protocol, transport) = match header[0] {
            0x45 => {
                if !is_transport(header[9]) {
                    return None;
                }
                let at = if is_source { 12 } else { 16 };
                let [a, b, c, d] = start.bytes::<4>(at)?;
                (
                    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d],
                    header[9],
                    IPV4_HEADER,
                )
            }
            first if first >> 4 == 6 => {
                if !is_transport(header[6]) {
                    return None;
                }
                let at = if is_source { 8 } else { 24 };
                (start.bytes::<16>(at)?, header[6], IPV6_HEADER)
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
        if server_port != DNS_PORT {
            return None;
        }
        let is_stream = protocol == TCP;
        let (payload, end) = if is_stream {
            let [words] = start.bytes::<1>(transport + TCP_WORDS)?;
            (transport as u32 + (words >> 4) as u32 * 4, ctx.len())
        } else {
            let length = u16::from_be_bytes([e, f]) as u32;
            (
                transport as u32 + UDP_HEADER,
                ctx.len().min(transport as u32 + length),
            )
        };
        Some(Self {
            server: address,
            client_port,
            payload,
            end,
            is_stream,
        })
    }

    /// The message in it with its id, if it is a query or an answer to one, as the server's end has it. Other kinds of
    /// messages are none.
    ///
    /// # Errors
    ///
    /// [`Loss::Unread`] when there is no room for a header, and over TCP when a segment doesn't begin with a message or
    /// doesn't hold the whole of it.
    #[inline(always)]
    fn message(&self, ctx: &SkBuffContext, server: Server) -> Result<Option<(u16, Message)>, Loss> {
        let (start, end) = if self.is_stream {
            match self.first_of_stream(ctx)? {
                Some(place) => place,
                None => return Ok(None),
            }
        } else {
            (self.payload, self.end)
        };
        let question = start + DNS_HEADER as u32;
        if end < question {
            return Err(Loss::Unread);
        }
        let [first, second, high, low] = ctx.load::<[u8; 4]>(start as usize).map_err(|_| Loss::Unread)?;
        let is_response = high & RESPONSE != 0;
        if high & OPCODE != 0 || is_response != (server == Server::Source) {
            return Ok(None);
        }
        let message = Message {
            rcode: (low & 0x0f) as u32,
            question,
            room: end - question,
        };
        Ok(Some((u16::from_be_bytes([first, second]), message)))
    }

    /// Where the message that a segment begins with begins and ends; `None` for a segment without payload.
    #[inline(always)]
    fn first_of_stream(&self, ctx: &SkBuffContext) -> Result<Option<(u32, u32)>, Loss> {
        if self.end <= self.payload {
            return Ok(None);
        }
        let prefix = ctx
            .load::<[u8; PREFIX as usize]>(self.payload as usize)
            .map_err(|_| Loss::Unread)?;
        let start = self.payload + PREFIX;
        let end = start + u16::from_be_bytes(prefix) as u32;
        // One that is too short for a header is counted here, so that what follows it isn't another one.
        if end > self.end || end < start + DNS_HEADER as u32 {
            return Err(Loss::Unread);
        }
        if end < self.end {
            // What follows the message in its segment.
            lose(Loss::Unread);
        }
        Ok(Some((start, end)))
    }
}

#[inline(always)]
fn is_transport(protocol: u8) -> bool {
    protocol == UDP || protocol == TCP
}

impl Message {
    /// How much there is of the question, as far as there is room for it.
    #[inline(always)]
    fn length(&self) -> u32 {
        self.room.min(DNS_QUESTION_ROOM as u32)
    }

    /// Copies the question; returns how much there is of it. What stands behind it in the message is copied too, and zeros
    /// fill the rest of the room.
    #[inline(always)]
    pub fn copy_question(&self, ctx: &SkBuffContext, to: &mut [u8; DNS_QUESTION_ROOM]) -> u32 {
        const MASK: u32 = 511;
        *to = [0; DNS_QUESTION_ROOM];
        if self.room == 0 {
            return 0;
        }
        // The verifier wants to see that it isn't 0, and where it ends.
        let length = ((self.length() - 1) & MASK) + 1;
        if length > DNS_QUESTION_ROOM as u32 {
            return 0;
        }
        // SAFETY: the length is within the room, and the context is valid while the program runs.
        let result =
            unsafe { bpf_skb_load_bytes(ctx.skb.skb.cast(), self.question, to.as_mut_ptr().cast(), length) };
        if result == 0 { length } else { 0 }
    }

    /// Whether a query that was copied asks the same.
    #[inline(always)]
    pub fn asks(&self, ctx: &SkBuffContext, query: &Query) -> bool {
        const WORD: u32 = size_of::<u64>() as u32;
        if query.length != self.length() {
            return false;
        }
        // SAFETY: these are plain bytes, as long as that many words, and stand at a word's boundary.
        let known = unsafe { &*query.question.as_ptr().cast::<[u64; WORDS]>() };
        for index in 0..WORDS as u32 {
            let at = index * WORD;
            if at >= query.length {
                break;
            }
            // Of the last word a part; from 1 to 8, as the verifier wants to see.
            let length = (((query.length - at).min(WORD) - 1) & (WORD - 1)) + 1;
            let mut word = 0u64;
            // SAFETY: the length is at most a word's, and the context is valid while the program runs.
            let result = unsafe {
                bpf_skb_load_bytes(
                    ctx.skb.skb.cast(),
                    self.question + at,
                    (&raw mut word).cast(),
                    length,
                )
            };
            if result != 0 || word != known[index as usize] {
                return false;
            }
        }
        true
    }
}

/// Whose socket it is that sends or takes the packet.
pub struct Client {
    pub owner: u32,
    sock: u64,
}

impl Client {
    /// `None` where nobody is known.
    #[inline(always)]
    pub fn of(ctx: &SkBuffContext) -> Option<Self> {
        let sock = cgroup_skb::socket(ctx)?;
        let owner = cgroup_skb::owner(sock)?;
        Some(Self { owner, sock })
    }

    /// The id of the socket's cgroup; 0 where it isn't known.
    #[inline(always)]
    pub fn cgroup(&self) -> u64 {
        cgroups::of(self.sock)
    }
}

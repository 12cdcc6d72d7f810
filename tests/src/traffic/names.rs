//! DNS: a server whose answers a test changes at will, and plain lookups.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use domain::base::iana::{Class, Rcode, Rtype};
use domain::base::message_builder::AnswerBuilder;
use domain::base::{Message, MessageBuilder, Name, Record, Ttl};
use domain::rdata::{A, Aaaa, Cname};

use super::{Stop, TICK};
use crate::netns::NetnsRef;

const PORT: u16 = 53;
/// Aliases that the server follows for the client.
const MAX_ALIASES: usize = 8;
const MAX_MESSAGE: usize = 1232;

type Zone = BTreeMap<String, Entry>;

/// What the server says of a name.
#[derive(Clone, Debug)]
enum Entry {
    Alias(String, u32),
    Addresses(Vec<IpAddr>, u32),
}

/// Answers lookups over UDP until it is dropped; what it doesn't know doesn't exist.
#[derive(Debug)]
pub struct NameServer {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    /// Answers inside the namespace on port 53 of `ip`.
    ///
    /// # Errors
    ///
    /// The address can't be bound.
    pub fn start(netns: &NetnsRef, ip: IpAddr) -> Result<Self> {
        let socket = netns
            .run(|| UdpSocket::bind((ip, PORT)))
            .with_context(|| format!("can't bind a UDP socket to port {PORT} of {ip}"))?;
        socket.set_read_timeout(Some(TICK))?;
        let (zone, stop) = (Arc::new(Mutex::new(Zone::new())), Stop::default());
        let (shared, stopped) = (Arc::clone(&zone), stop.clone());
        let thread = thread::spawn(move || {
            let mut query = [0; MAX_MESSAGE];
            while !stopped.is_set() {
                if let Ok((length, from)) = socket.recv_from(&mut query)
                    && let Some(answer) = answer(&query[..length], &lock(&shared))
                {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Ok(Self {
            address: (ip, PORT).into(),
            zone,
            stop,
            thread: Some(thread),
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on the name has these addresses, for so many seconds after each answer.
    pub fn set(&self, name: &str, addresses: &[IpAddr], ttl: u32) {
        let entry = Entry::Addresses(addresses.to_vec(), ttl);
        lock(&self.zone).insert(name.to_owned(), entry);
    }

    /// From now on the name is another one's alias.
    pub fn set_alias(&self, name: &str, target: &str, ttl: u32) {
        lock(&self.zone).insert(name.to_owned(), Entry::Alias(target.to_owned(), ttl));
    }

    /// From now on there is no such name.
    pub fn remove(&self, name: &str) {
        lock(&self.zone).remove(name);
    }

    /// Looks a name up from inside a namespace: its addresses in the family that goes with `Rtype::A` or `Rtype::AAAA`.
    ///
    /// # Errors
    ///
    /// No answer within the time, or none to the question.
    pub fn lookup(
        &self,
        netns: &NetnsRef,
        name: &str,
        family: Rtype,
        timeout: Duration,
    ) -> Result<Vec<IpAddr>> {
        netns.run(|| self.ask(name, family, timeout))
    }

    /// [`NameServer::lookup`] from the namespace of the calling thread, with a socket of its own.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn ask(&self, name: &str, family: Rtype, timeout: Duration) -> Result<Vec<IpAddr>> {
        let query = query(name, family)?;
        let any: IpAddr = match self.address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(self.address)?;
        socket.set_read_timeout(Some(timeout))?;
        socket.send(query.as_slice())?;
        let mut answer = vec![0; MAX_MESSAGE];
        let length = socket
            .recv(&mut answer)
            .with_context(|| format!("no answer from {}", self.address))?;
        answer.truncate(length);
        let answer = Message::from_octets(answer)?;
        ensure!(answer.is_answer(&query), "not an answer to the question");
        addresses(&answer)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop.set();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A question for a name's addresses.
pub(super) fn query(name: &str, family: Rtype) -> Result<Message<Vec<u8>>> {
    let mut query = MessageBuilder::new_vec();
    query.header_mut().set_rd(true);
    let mut query = query.question();
    query.push((parsed(name)?, family))?;
    Ok(query.into_message())
}

fn addresses(answer: &Message<Vec<u8>>) -> Result<Vec<IpAddr>> {
    let mut addresses = Vec::new();
    for record in answer.answer()? {
        let record = record?;
        if let Some(a) = record.to_record::<A>()? {
            addresses.push(a.data().addr().into());
        } else if let Some(aaaa) = record.to_record::<Aaaa>()? {
            addresses.push(aaaa.data().addr().into());
        }
    }
    Ok(addresses)
}

/// `None` for what isn't a query.
fn answer(query: &[u8], zone: &Zone) -> Option<Vec<u8>> {
    let query = Message::from_octets(query).ok()?;
    let question = query.sole_question().ok()?;
    let mut name = question.qname().to_string();
    let known = zone.contains_key(&name);
    let rcode = if known { Rcode::NOERROR } else { Rcode::NXDOMAIN };
    let mut answer = MessageBuilder::new_vec().start_answer(&query, rcode).ok()?;
    for _ in 0..MAX_ALIASES {
        match zone.get(&name) {
            Some(Entry::Alias(target, ttl)) => {
                let data = Cname::new(parsed(target).ok()?);
                let record = Record::new(parsed(&name).ok()?, Class::IN, Ttl::from_secs(*ttl), data);
                answer.push(record).ok()?;
                name.clone_from(target);
            }
            Some(Entry::Addresses(addresses, ttl)) => {
                let wanted = |ip: &&IpAddr| ip.is_ipv4() == (question.qtype() == Rtype::A);
                for ip in addresses.iter().filter(wanted) {
                    push(&mut answer, &parsed(&name).ok()?, *ip, Ttl::from_secs(*ttl))?;
                }
                break;
            }
            None => break,
        }
    }
    Some(answer.finish())
}

fn push(answer: &mut AnswerBuilder<Vec<u8>>, name: &Name<Vec<u8>>, ip: IpAddr, ttl: Ttl) -> Option<()> {
    match ip {
        IpAddr::V4(v4) => answer.push(Record::new(name, Class::IN, ttl, A::new(v4))),
        IpAddr::V6(v6) => answer.push(Record::new(name, Class::IN, ttl, Aaaa::new(v6))),
    }
    .ok()
}

fn parsed(name: &str) -> Result<Name<Vec<u8>>> {
    name.parse().with_context(|| format!("{name} is no DNS name"))
}

fn lock(zone: &Mutex<Zone>) -> MutexGuard<'_, Zone> {
    zone.lock().unwrap_or_else(PoisonError::into_inner)
}

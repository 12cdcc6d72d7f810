//! Paced request and response: when did packets pass, and when not?

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Stop, TICK, grow_receive_buffer};
use crate::netns::NetnsRef;
use crate::wait::wait_for;

/// The usual pace.
pub const INTERVAL: Duration = Duration::from_millis(5);
/// Enough for the probes of a minute while the reader doesn't get the processor.
const RECEIVE_BUFFER: i32 = 16 << 20;

/// The prober's port and the number in the request.
type RequestId = (SocketAddr, u64);

/// Answers the probes of any number of probers and notes when each arrived.
#[derive(Debug)]
pub struct ProbeServer {
    address: SocketAddr,
    arrivals: Arc<Mutex<HashMap<RequestId, Instant>>>,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl ProbeServer {
    /// Answers inside the namespace on a free port of `ip`.
    ///
    /// # Errors
    ///
    /// The address can't be bound.
    pub fn start(netns: &NetnsRef, ip: IpAddr) -> Result<Self> {
        let socket = netns
            .run(|| UdpSocket::bind((ip, 0)))
            .with_context(|| format!("can't bind a UDP socket to {ip}"))?;
        grow_receive_buffer(&socket, RECEIVE_BUFFER).context("the receive buffer can't be grown")?;
        socket.set_read_timeout(Some(TICK))?;
        let address = socket.local_addr()?;
        let (arrivals, stop) = (Arc::new(Mutex::new(HashMap::new())), Stop::default());
        let (shared, stopped) = (Arc::clone(&arrivals), stop.clone());
        let thread = thread::spawn(move || {
            let mut request = [0; 8];
            while !stopped.is_set() {
                if let Ok((8, from)) = socket.recv_from(&mut request) {
                    lock(&shared).insert((from, u64::from_le_bytes(request)), Instant::now());
                    let _ = socket.send_to(&request, from);
                }
            }
        });
        Ok(Self {
            address,
            arrivals,
            stop,
            thread: Some(thread),
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for ProbeServer {
    fn drop(&mut self) {
        self.stop.set();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    pub sent: Instant,
    /// When the server saw it.
    pub arrived: Option<Instant>,
    /// When its answer was back.
    pub answered: Option<Instant>,
}

/// What became of the requests of a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passage {
    pub sent: usize,
    /// As the server saw it.
    pub arrived: usize,
    pub answered: usize,
}

/// A time in which no probe was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// When the first probe that got no answer was sent.
    pub from: Instant,
    /// When the first probe that got one again was sent; `None`: it isn't over.
    pub until: Option<Instant>,
    pub probes: usize,
}

impl Outage {
    /// Its length; up to now if it isn't over.
    pub fn duration(&self) -> Duration {
        self.until
            .unwrap_or_else(Instant::now)
            .saturating_duration_since(self.from)
    }
}

/// Sends a request every few milliseconds from inside a namespace, until it is dropped.
#[derive(Debug)]
pub struct Prober {
    local: SocketAddr,
    samples: Arc<Mutex<Vec<Sample>>>,
    arrivals: Arc<Mutex<HashMap<RequestId, Instant>>>,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Prober {
    /// Probes the server's address.
    ///
    /// # Errors
    ///
    /// There is no route to it.
    pub fn start(netns: &NetnsRef, server: &ProbeServer, interval: Duration) -> Result<Self> {
        let to = server.address;
        let socket = netns.run(|| -> Result<UdpSocket> {
            let any: IpAddr = match to {
                SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
            };
            let socket = UdpSocket::bind((any, 0)).context("no UDP socket")?;
            // Connecting chooses the source address, by which the server tells probers apart.
            socket.connect(to).with_context(|| format!("no route to {to}"))?;
            Ok(socket)
        })?;
        grow_receive_buffer(&socket, RECEIVE_BUFFER).context("the receive buffer can't be grown")?;
        let local = socket.local_addr()?;
        let (samples, stop) = (Arc::new(Mutex::new(Vec::new())), Stop::default());
        let (shared, stopped) = (Arc::clone(&samples), stop.clone());
        let thread = thread::spawn(move || probe(&socket, interval, &shared, &stopped));
        Ok(Self {
            local,
            samples,
            arrivals: Arc::clone(&server.arrivals),
            stop,
            thread: Some(thread),
        })
    }

    /// All requests so far, in the order of sending.
    pub fn samples(&self) -> Vec<Sample> {
        let mut samples = lock(&self.samples).clone();
        let arrivals = lock(&self.arrivals);
        for (number, sample) in samples.iter_mut().enumerate() {
            sample.arrived = arrivals.get(&(self.local, number as u64)).copied();
        }
        samples
    }

    /// The requests that were sent from one instant to another.
    pub fn between(&self, from: Instant, until: Instant) -> Vec<Sample> {
        let mut samples = self.samples();
        samples.retain(|sample| sample.sent >= from && sample.sent < until);
        samples
    }

    /// What has become until now of the requests that were sent from one instant to another.
    pub fn passage(&self, from: Instant, until: Instant) -> Passage {
        let samples = self.between(from, until);
        Passage {
            sent: samples.len(),
            arrived: samples.iter().filter(|sample| sample.arrived.is_some()).count(),
            answered: samples.iter().filter(|sample| sample.answered.is_some()).count(),
        }
    }

    /// When the first request that was sent at `after` or later was answered, if one was.
    pub fn first_pass_after(&self, after: Instant) -> Option<Instant> {
        let samples = lock(&self.samples);
        let later = samples.partition_point(|sample| sample.sent < after);
        samples[later..].iter().find_map(|sample| sample.answered)
    }

    /// Waits for [`Prober::first_pass_after`]; returns how long after `after` it was.
    pub fn wait_pass(&self, after: Instant, timeout: Duration) -> Option<Duration> {
        wait_for(timeout, Duration::from_millis(1), || self.first_pass_after(after))
            .map(|pass| pass.saturating_duration_since(after))
    }

    /// Waits until a request that was sent at `after` or later was answered within `round_trip`; returns how long after
    /// `after` the answer was back.
    pub fn wait_quick(&self, after: Instant, round_trip: Duration, timeout: Duration) -> Option<Duration> {
        let quick = |sample: &Sample| {
            let answered = sample.answered?;
            (sample.sent >= after && answered - sample.sent < round_trip).then_some(answered)
        };
        wait_for(timeout, Duration::from_millis(1), || {
            lock(&self.samples).iter().find_map(quick)
        })
        .map(|answered| answered - after)
    }

    /// Outages of at least `probes` requests in a row among those that were sent in the given time. Requests that may
    /// still be answered count as unanswered: leave the last of them out by `until`.
    pub fn outages(&self, from: Instant, until: Instant, probes: usize) -> Vec<Outage> {
        let samples = self.between(from, until);
        let mut outages = Vec::new();
        let mut current: Option<Outage> = None;
        for sample in samples {
            match (&mut current, sample.answered) {
                (Some(outage), None) => outage.probes += 1,
                (None, None) => {
                    current = Some(Outage {
                        from: sample.sent,
                        until: None,
                        probes: 1,
                    });
                }
                (_, Some(_)) => outages.extend(current.take().map(|outage| Outage {
                    until: Some(sample.sent),
                    ..outage
                })),
            }
        }
        outages.extend(current);
        outages.retain(|outage| outage.probes >= probes);
        outages
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.stop.set();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One thread sends and receives: between two requests it waits for answers.
fn probe(socket: &UdpSocket, interval: Duration, samples: &Mutex<Vec<Sample>>, stop: &Stop) {
    let mut due = Instant::now();
    let mut answer = [0; 8];
    while !stop.is_set() {
        let now = Instant::now();
        let Some(wait) = due.checked_duration_since(now).filter(|wait| !wait.is_zero()) else {
            let number = {
                let mut samples = lock(samples);
                samples.push(Sample {
                    sent: now,
                    arrived: None,
                    answered: None,
                });
                samples.len() as u64 - 1
            };
            // A refusal is an unanswered request like any other.
            let _ = socket.send(&number.to_le_bytes());
            // After a pause of the whole machine probes aren't made up for: that would be a burst.
            due = (due + interval).max(now);
            continue;
        };
        let _ = socket.set_read_timeout(Some(wait));
        if let Ok(8) = socket.recv(&mut answer) {
            let number = u64::from_le_bytes(answer) as usize;
            if let Some(sample) = lock(samples).get_mut(number) {
                sample.answered.get_or_insert_with(Instant::now);
            }
        }
    }
}

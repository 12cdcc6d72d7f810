//! One established TCP connection, watched at both ends.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::echo::listen;
use super::{Stop, TICK};
use crate::netns::NetnsRef;
use crate::wait::{wait_for, wait_until};

/// Bytes of one record.
const RECORD: usize = 64;

/// The client sends a record every few milliseconds on a connection that is made once; the server sends each back.
#[derive(Debug)]
pub struct Stream {
    shared: Arc<Shared>,
    stop: Stop,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// When the server received something.
    forward: Mutex<Vec<Instant>>,
    /// When the client received something back.
    back: Mutex<Vec<Instant>>,
    /// Why the connection is no more.
    broken: Mutex<Option<String>>,
}

impl Stream {
    /// Connects a client in one namespace with a server in another.
    ///
    /// # Errors
    ///
    /// No connection can be made.
    pub fn open(client: &NetnsRef, server: &NetnsRef, server_ip: IpAddr, interval: Duration) -> Result<Self> {
        let listener = listen(server, server_ip)?;
        let to = listener.local_addr()?;
        let near = client
            .run(|| TcpStream::connect_timeout(&to, Duration::from_secs(5)))
            .with_context(|| format!("no connection to {to}"))?;
        let far = wait_for(Duration::from_secs(5), Duration::from_millis(1), || {
            listener.accept().ok()
        })
        .context("the connection wasn't accepted")?
        .0;
        for end in [&near, &far] {
            end.set_nonblocking(false)?;
            end.set_nodelay(true)?;
            end.set_read_timeout(Some(TICK))?;
            end.set_write_timeout(Some(TICK))?;
        }
        let (shared, stop) = (Arc::new(Shared::default()), Stop::default());
        let (writer, reader) = (near.try_clone()?, near);
        let echo = far.try_clone()?;
        let threads = vec![
            start(&shared, &stop, move |shared, stop| {
                send(writer, interval, shared, stop);
            }),
            start(&shared, &stop, move |shared, stop| {
                receive(reader, None, &shared.back, shared, stop);
            }),
            start(&shared, &stop, move |shared, stop| {
                receive(far, Some(echo), &shared.forward, shared, stop);
            }),
        ];
        Ok(Self {
            shared,
            stop,
            threads,
        })
    }

    /// When data first arrived at the server at `after` or later.
    pub fn forward_after(&self, after: Instant) -> Option<Instant> {
        first_after(&self.shared.forward, after)
    }

    /// When data first came back to the client at `after` or later.
    pub fn back_after(&self, after: Instant) -> Option<Instant> {
        first_after(&self.shared.back, after)
    }

    /// Waits until data has come back to the client after `after`; returns how long after.
    pub fn wait_back(&self, after: Instant, timeout: Duration) -> Option<Duration> {
        wait_for(timeout, Duration::from_millis(1), || self.back_after(after))
            .map(|progress| progress.saturating_duration_since(after))
    }

    /// Waits until nothing has come back to the client for `quiet`; returns when the last thing did.
    pub fn wait_stalled(&self, quiet: Duration, timeout: Duration) -> Option<Instant> {
        let last = || lock(&self.shared.back).last().copied();
        let stalled = || last().is_some_and(|last| last.elapsed() >= quiet);
        wait_until(timeout, Duration::from_millis(2), stalled)
            .then(last)
            .flatten()
    }

    /// How often something came back to the client from one instant to another.
    pub fn backs_between(&self, from: Instant, until: Instant) -> usize {
        let times = lock(&self.shared.back);
        times.partition_point(|&time| time < until) - times.partition_point(|&time| time < from)
    }

    /// Why the connection is no more; `None` while it stands.
    pub fn broken(&self) -> Option<String> {
        lock(&self.shared.broken).clone()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.set();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn first_after(times: &Mutex<Vec<Instant>>, after: Instant) -> Option<Instant> {
    let times = lock(times);
    times.get(times.partition_point(|&time| time < after)).copied()
}

fn start(
    shared: &Arc<Shared>,
    stop: &Stop,
    work: impl FnOnce(&Shared, &Stop) + Send + 'static,
) -> JoinHandle<()> {
    let (shared, stop) = (Arc::clone(shared), stop.clone());
    thread::spawn(move || work(&shared, &stop))
}

fn send(mut connection: TcpStream, interval: Duration, shared: &Shared, stop: &Stop) {
    while !stop.is_set() {
        thread::sleep(interval);
        if !write_all(&mut connection, &[0x5a; RECORD], shared, stop) {
            return;
        }
    }
}

fn receive(
    mut connection: TcpStream,
    mut echo: Option<TcpStream>,
    times: &Mutex<Vec<Instant>>,
    shared: &Shared,
    stop: &Stop,
) {
    let mut buffer = [0; 16 << 10];
    while !stop.is_set() {
        match connection.read(&mut buffer) {
            Ok(0) => return fail(shared, stop, "the other end closed it"),
            Ok(length) => {
                lock(times).push(Instant::now());
                if let Some(echo) = &mut echo
                    && !write_all(echo, &buffer[..length], shared, stop)
                {
                    return;
                }
            }
            Err(error) if is_timeout(&error) => {}
            Err(error) => return fail(shared, stop, &error.to_string()),
        }
    }
}

/// Writes all of it, however long the connection stands still; false when it is over.
fn write_all(connection: &mut TcpStream, mut bytes: &[u8], shared: &Shared, stop: &Stop) -> bool {
    while !bytes.is_empty() && !stop.is_set() {
        match connection.write(bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(error) if is_timeout(&error) => {}
            Err(error) => {
                fail(shared, stop, &error.to_string());
                return false;
            }
        }
    }
    true
}

/// An end that is closed because we stop isn't a failure.
fn fail(shared: &Shared, stop: &Stop, reason: &str) {
    if !stop.is_set() {
        lock(&shared.broken).get_or_insert_with(|| reason.to_owned());
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

//! A TCP echo server.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Stop, TICK};
use crate::netns::NetnsRef;

/// Sends back whatever it is sent, until it is dropped.
#[derive(Debug)]
pub struct Echo {
    address: SocketAddr,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Listens inside the namespace on a free port of `ip`.
    ///
    /// # Errors
    ///
    /// The address can't be bound.
    pub fn start(netns: &NetnsRef, ip: IpAddr) -> Result<Self> {
        let listener = listen(netns, ip)?;
        let address = listener.local_addr()?;
        let stop = Stop::default();
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut connections = Vec::new();
            while !stopped.is_set() {
                match listener.accept() {
                    Ok((connection, _)) => {
                        let stopped = stopped.clone();
                        connections.push(thread::spawn(move || serve(connection, &stopped)));
                    }
                    Err(_) => thread::sleep(Duration::from_millis(1)),
                }
            }
            for connection in connections {
                let _ = connection.join();
            }
        });
        Ok(Self {
            address,
            stop,
            thread: Some(thread),
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.set();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Connects, sends, and waits for the same bytes; returns how long all of it took.
///
/// # Errors
///
/// It didn't come back within the time, or not the same.
pub fn echo_once(netns: &NetnsRef, to: SocketAddr, message: &[u8], timeout: Duration) -> Result<Duration> {
    netns.run(|| {
        let started = Instant::now();
        let mut connection =
            TcpStream::connect_timeout(&to, timeout).with_context(|| format!("no connection to {to}"))?;
        connection.set_read_timeout(Some(timeout))?;
        connection
            .write_all(message)
            .with_context(|| format!("can't send to {to}"))?;
        let mut answer = vec![0; message.len()];
        connection
            .read_exact(&mut answer)
            .with_context(|| format!("no answer from {to}"))?;
        ensure!(answer == message, "{to} answered with other bytes");
        Ok(started.elapsed())
    })
}

/// A listener inside a namespace that never blocks.
pub(super) fn listen(netns: &NetnsRef, ip: IpAddr) -> Result<TcpListener> {
    let listener = netns
        .run(|| TcpListener::bind((ip, 0)))
        .with_context(|| format!("can't listen on {ip}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn serve(mut connection: TcpStream, stop: &Stop) {
    let _ = connection.set_nonblocking(false);
    let _ = connection.set_nodelay(true);
    let _ = connection.set_read_timeout(Some(TICK));
    let mut buffer = [0; 16 << 10];
    while !stop.is_set() {
        match connection.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                if connection.write_all(&buffer[..length]).is_err() {
                    return;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}

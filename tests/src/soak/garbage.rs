//! Connections that say something else than what is spoken there.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::daemon::Daemon;
use crate::dice::Dice;

/// How HTTP/2 begins, after which frames are read.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const LONGEST: u64 = 4096;
const PATIENCE: Duration = Duration::from_millis(100);
/// Connections that say nothing more but stay.
const MOST_IDLE: usize = 16;

/// Talks to both doors until the time is over; how many connections it took.
pub(super) fn talk(daemon: &Daemon, dice: &mut Dice, until: Instant) -> usize {
    let mut idle = Vec::new();
    let mut connections = 0;
    while Instant::now() < until {
        let mut stream = UnixStream::connect(daemon.socket()).expect("the daemon listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
        if dice.roll(2) == 0 {
            let _ = stream.write_all(PREFACE);
        }
        let length = dice.roll(LONGEST) as usize;
        // It may have had enough.
        let _ = stream.write_all(&dice.bytes(length));
        if dice.roll(4) == 0 {
            idle.push(stream);
            if idle.len() > MOST_IDLE {
                idle.clear();
            }
        } else {
            let _ = stream.read(&mut [0; 256]);
        }
        if dice.roll(4) == 0 {
            assert_scraped(daemon, dice);
        }
        connections += 1;
        thread::sleep(Duration::from_millis(10 + dice.roll(40)));
    }
    connections
}

/// The endpoint answers what it has, and refuses what it hasn't.
fn assert_scraped(daemon: &Daemon, dice: &mut Dice) {
    match dice.roll(3) {
        0 => drop(daemon.scrape().expect("the metrics can be read")),
        1 => {
            let (status, body) = daemon.http("/healthz").expect("it answers");
            assert_eq!(status, 200, "{body}");
        }
        _ => {
            let path = format!("/{:x}", dice.number());
            assert_eq!(daemon.http(&path).expect("it answers").0, 404);
        }
    }
}

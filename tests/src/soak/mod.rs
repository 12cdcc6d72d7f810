//! Everything at once, for as long as one likes: random faults under traffic, pods that come and go, floods of calls, and
//! daemons that are told to end, killed and stopped. What must always be true is looked at all the while.
//!
//! What happens follows from one seed; a failure names it. Its functions panic where something isn't as it must be.

mod bystanders;
mod cuts;
mod faults;
mod flood;
mod garbage;
mod ledgers;
mod life;
mod log;
mod storm;
mod traffic;

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use self::bystanders::Bystanders;
pub use self::faults::random_fault;
use self::life::Life;
use crate::daemon::DaemonOptions;
use crate::dice::Dice;
use crate::lab::Lab;

/// Pods by their index in the lab. The first two are what no fault names.
const WATCHED: usize = 0;
const WATCHING: usize = 1;
/// It is cut off from [`FAR`] again and again, and from nobody else.
const CUT: usize = 2;
const FAR: usize = 3;
/// From here on pods are what random faults hit.
const FIRST_PLAYER: usize = 4;
/// The first of those that come and go.
const FIRST_GUEST: usize = FIRST_PLAYER + 3;

/// How long a soak takes, what it rolls, and the daemon that is soaked.
#[derive(Clone, Debug)]
pub struct Soak {
    /// No new storm begins after that.
    pub length: Duration,
    pub seed: u64,
    /// Its namespace and its flags are the soak's to choose.
    pub daemon: DaemonOptions,
}

/// What a soak has done and seen so far.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub took: Duration,
    pub kills: usize,
    pub terminations: usize,
    pub hangs: usize,
    pub storms: usize,
    /// Faults that were applied or edited, and deleted.
    pub applied: usize,
    pub deleted: usize,
    /// Pods that came or went.
    pub guests: usize,
    /// Calls of the floods, and how many of them were refused as they had to be.
    pub calls: usize,
    pub refused: usize,
    /// Connections that said something else than gRPC or HTTP.
    pub garbage: usize,
    /// Cuts of one pod from another that ended by their deadlines, and by a call.
    pub expired: usize,
    pub lifted: usize,
    /// Wire packets that faults whose ledgers were balanced named.
    pub matched: u64,
    pub ledgers: usize,
    /// Probes and datagrams that no fault names.
    pub unnamed: u64,
    /// How many of them the kernel dropped because the machine was too busy, by its own count.
    pub overrun: u64,
    /// From a deadline, or from the end of a daemon, until the first probe that passed.
    pub slowest_end: Duration,
    /// The most that a daemon grew by, from the rest after its first storm to a later one.
    pub most_grown: u64,
    pub most_map_growth: u64,
}

impl Soak {
    /// Runs it; `progress` hears of every storm that is over, and says whether to go on.
    ///
    /// # Panics
    ///
    /// Something isn't as it must be, or this isn't root.
    pub fn run(&self, mut progress: impl FnMut(&Seen) -> bool) -> Seen {
        let _named = Named(self.seed);
        let mut dice = Dice::new(self.seed);
        let mut seen = Seen::default();
        let began = Instant::now();
        let mut lab = Lab::new(FIRST_GUEST).expect("pods can be made (root is needed)");
        let mut bystanders = Bystanders::start(&lab);
        let mut goes_on = true;
        while goes_on && (seen.storms == 0 || began.elapsed() < self.length) {
            let mut life = Life::begin(&lab, self.daemon.clone());
            let storms = 2 + dice.roll(4);
            for _ in 0..storms {
                let storm = self.storm_length(&mut dice);
                life.storm(&mut lab, &mut dice.fork(), storm, &mut seen);
                bystanders.check(&mut seen);
                seen.took = began.elapsed();
                goes_on = progress(&seen);
                if !goes_on || began.elapsed() >= self.length {
                    break;
                }
            }
            life.end(&lab, &mut dice.fork(), &mut seen);
            bystanders.check(&mut seen);
        }
        bystanders.finish(&mut seen);
        seen.took = began.elapsed();
        seen
    }

    /// A short soak has several storms too.
    fn storm_length(&self, dice: &mut Dice) -> Duration {
        let shortest = Duration::from_secs(5);
        let longest = (self.length / 10).clamp(shortest, Duration::from_secs(45));
        dice.duration(shortest, longest)
    }
}

/// Tells the seed when what it stands for has failed.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!(
                "the soak's seed is {}: `cargo xtask soak --seed {}`",
                self.0, self.0
            );
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        writeln!(
            f,
            "{:.0?}: {} storms; daemons: {} killed, {} told to end, {} stopped meanwhile",
            self.took, self.storms, self.kills, self.terminations, self.hangs
        )?;
        writeln!(
            f,
            "{} faults applied or edited, {} deleted; {} pods came or went",
            self.applied, self.deleted, self.guests
        )?;
        writeln!(
            f,
            "{} calls, {} of them refused as they had to be; {} connections with garbage",
            self.calls, self.refused, self.garbage
        )?;
        writeln!(
            f,
            "{} cuts ended by their deadline, {} by a call; the slowest end took {:.0?}",
            self.expired, self.lifted, self.slowest_end
        )?;
        writeln!(
            f,
            "{} packets in {} ledgers, all balanced",
            self.matched, self.ledgers
        )?;
        writeln!(
            f,
            "{} packets that no fault names: none lost, altered or doubled, but {} for which the machine had no room",
            self.unnamed, self.overrun
        )?;
        write!(
            f,
            "a daemon at rest grew by {:.1} MiB at most, its maps by {:.2} MiB",
            mib(self.most_grown),
            mib(self.most_map_growth)
        )
    }
}

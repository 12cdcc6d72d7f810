//! Traffic among the pods that faults hit: both protocols, all ways, both families, until told to end.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::FIRST_PLAYER;
use crate::dice::Dice;
use crate::lab::{Lab, LabPod};
use crate::netns::NetnsRef;
use crate::traffic::{Bulk, UdpLoad, UdpReceiver};

const STREAM: u64 = 4 << 20;
const STREAM_PATIENCE: Duration = Duration::from_secs(1);
const LOAD: UdpLoad = UdpLoad {
    datagrams: 500,
    payload: 300,
    per_second: 2_000,
};

/// One of the pods that send; it may be deleted meanwhile.
#[derive(Clone)]
pub(super) struct Player {
    netns: NetnsRef,
    ipv4: IpAddr,
    ipv6: IpAddr,
}

impl Player {
    fn of(pod: &LabPod) -> Self {
        Self {
            netns: (**pod.netns()).clone(),
            ipv4: pod.ipv4(),
            ipv6: pod.ipv6(),
        }
    }
}

/// Those that are there now.
#[derive(Default)]
pub(super) struct Players(Mutex<Vec<Player>>);

impl Players {
    pub(super) fn set(&self, lab: &Lab) {
        let players = lab.pods()[FIRST_PLAYER..].iter().map(Player::of).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = players;
    }

    fn pair(&self, dice: &mut Dice) -> (Player, Player) {
        let players = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let from = dice.roll(players.len() as u64) as usize;
        let offset = 1 + dice.roll(players.len() as u64 - 1) as usize;
        let to = (from + offset) % players.len();
        (players[from].clone(), players[to].clone())
    }
}

/// Whether it gets through is the faults' affair.
pub(super) fn disturb(players: &Players, dice: &mut Dice, until: Instant) {
    while Instant::now() < until {
        let (from, to) = players.pair(dice);
        let ip = if dice.roll(3) == 0 { to.ipv6 } else { to.ipv4 };
        if dice.roll(2) == 0 {
            if let Ok(sink) = Bulk::listen(&to.netns, ip, STREAM_PATIENCE) {
                let _ = sink.send_from(&from.netns, STREAM, STREAM_PATIENCE);
            }
        } else if let Ok(receiver) = UdpReceiver::start(&to.netns, ip) {
            let _ = LOAD.send(&from.netns, receiver.address());
        }
    }
}

//! Faults that come, change and go at random, and pods with them.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use super::faults::random_fault;
use super::traffic::Players;
use super::{FIRST_GUEST, FIRST_PLAYER, Seen};
use crate::daemon::Client;
use crate::dice::Dice;
use crate::lab::Lab;

const MOST_FAULTS: u64 = 20;
const MOST_GUESTS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(30);

/// What goes on, and the ports of the pods that went.
pub(super) struct Storm<'a> {
    pub(super) client: &'a Client,
    pub(super) players: &'a Players,
    pub(super) gone: Vec<String>,
    alive: BTreeSet<String>,
}

impl<'a> Storm<'a> {
    pub(super) fn new(client: &'a Client, players: &'a Players) -> Self {
        Self {
            client,
            players,
            gone: Vec::new(),
            alive: BTreeSet::new(),
        }
    }

    pub(super) fn rage(&mut self, lab: &mut Lab, dice: &mut Dice, until: Instant, seen: &mut Seen) {
        while Instant::now() < until {
            match dice.roll(40) {
                0..=1 => self.come_or_go(lab, dice, seen),
                2..=12 => self.delete(dice, seen),
                _ => self.apply(lab, dice, seen),
            }
            thread::sleep(Duration::from_millis(20 + dice.roll(80)));
        }
    }

    /// Applies a fault, or edits it, which may give it another target.
    pub(super) fn apply(&mut self, lab: &Lab, dice: &mut Dice, seen: &mut Seen) {
        let players = &lab.pods()[FIRST_PLAYER..];
        let (target, peer) = (dice.pick(players), dice.pick(players));
        let lifetime = dice.duration(Duration::from_millis(200), Duration::from_secs(20));
        let spec = random_fault(dice, target, peer.ipv4(), lifetime);
        let name = format!("storm-{}", dice.roll(MOST_FAULTS));
        self.client
            .apply(&name, spec.clone().into(), PATIENCE)
            .unwrap_or_else(|status| panic!("{name} is refused: {status}\n{spec:#?}"));
        self.alive.insert(name);
        seen.applied += 1;
    }

    fn delete(&mut self, dice: &mut Dice, seen: &mut Seen) {
        let Some(name) = self.alive.iter().nth(dice.roll(MOST_FAULTS) as usize).cloned() else {
            return;
        };
        // It may have expired by itself.
        let _ = self.client.delete("", &name);
        self.alive.remove(&name);
        seen.deleted += 1;
    }

    fn come_or_go(&mut self, lab: &mut Lab, dice: &mut Dice, seen: &mut Seen) {
        let guests = lab.pods().len() - FIRST_GUEST;
        let comes = guests == 0 || guests < MOST_GUESTS && dice.roll(2) == 0;
        if comes {
            lab.add_pod().expect("pods can be made");
            self.players.set(lab);
        } else {
            let gone = FIRST_GUEST + dice.roll(guests as u64) as usize;
            let port = lab.remove_pod(gone);
            self.players.set(lab);
            self.gone.push(port);
        }
        seen.guests += 1;
    }
}

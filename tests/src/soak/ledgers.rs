//! The accounts of faults that have ended: they come to rest, and what went in came out.

use std::thread;
use std::time::Duration;

use sabot_proto::sabot::v1::{Direction, Fault};

use super::Seen;
use crate::books::Books;
use crate::daemon::Client;
use crate::rig::PATIENCE;
use crate::wait::wait_for;

const REST: Duration = Duration::from_millis(200);

/// Reads the accounts of all faults that the daemon still lists, once nothing of theirs is on its way.
pub(super) fn assert_balanced(client: &Client, seen: &mut Seen) {
    let read = || -> Vec<(String, [Books; 2])> {
        let faults = client.list(false).expect("the daemon lists faults");
        faults.iter().map(|fault| (name(fault), books(fault))).collect()
    };
    let mut last = read();
    let rested = wait_for(PATIENCE, Duration::ZERO, || {
        thread::sleep(REST);
        let now = read();
        let is_held = |(_, books): &(String, [Books; 2])| books.iter().any(|books| books.held.packets != 0);
        let rests = now == last && !now.iter().any(is_held);
        last = now;
        rests.then_some(())
    });
    assert!(rested.is_some(), "counters don't come to rest: {last:#?}");
    for (name, books) in &last {
        for direction in books {
            assert!(direction.is_balanced(), "{name} isn't balanced: {direction:#?}");
            seen.matched += direction.matched.packets;
            seen.ledgers += 1;
        }
    }
}

fn name(fault: &Fault) -> String {
    fault.metadata.clone().unwrap_or_default().name
}

fn books(fault: &Fault) -> [Books; 2] {
    [Direction::Egress, Direction::Ingress].map(|direction| Books::of(fault, direction))
}

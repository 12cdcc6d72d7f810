//! Owners that come and go leave nothing behind.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use sabot_testkit::Netns;
use sabot_testkit::wait::wait_until;
use sabotd::observe::drops::{self, DropObserver, DropsConfig};
use sabotd::observe::event::EventHub;
use sabotd::observe::identity::{Identities, Owners};
use sabotd::observe::queries::{self, QueriesConfig, QueryObserver};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::queries::{ask_nobody, owner};
use crate::rig::PATIENCE;

const OWNERS: u32 = 200;
const CLOSED: u16 = 4;

fn entries(drops: &DropObserver, queries: &QueryObserver) -> usize {
    drops.entries() + queries.entries().unwrap()
}

/// How many owners drops and queries are counted of.
fn counted(drops: &DropObserver, queries: &QueryObserver) -> (usize, usize) {
    let queries = queries.snapshot().unwrap().owners;
    (
        drops.snapshot().unwrap().drops.len(),
        queries.values().filter(|stats| stats.queries == 1).count(),
    )
}

#[test]
fn two_hundred_owners_leave_nothing() {
    let runtime = Runtime::new().unwrap();
    let (owners, receiver) = watch::channel(Arc::new(Owners::default()));
    let (drops, queries) = runtime.block_on(async {
        let identities = Identities::from_watch(receiver);
        let hub = EventHub::new(16);
        let drops = drops::start(&DropsConfig::default(), &identities, hub.clone());
        let queries = queries::start(&QueriesConfig::default(), &identities, hub);
        (drops.expect("root is needed"), queries.expect("root is needed"))
    });
    assert_eq!(entries(&drops, &queries), 0);
    for number in 1..=OWNERS {
        let netns = Netns::new("sabot-comer").unwrap();
        let comer = owner(&netns, number, &format!("comer-{number}"));
        owners.send_replace(Arc::new(Owners::new([comer])));
        // Both tables of owners, and the owner's counts of queries.
        assert!(wait_until(PATIENCE, Duration::from_millis(2), || {
            entries(&drops, &queries) == 3
        }));
        netns.run(|| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.send_to(b"nobody listens", ("127.0.0.1", CLOSED)).unwrap();
        });
        ask_nobody(&netns);
        // Nobody listens to the query either: one reason, on the way in.
        assert_eq!(counted(&drops, &queries), (1, 1), "{:?}", drops.snapshot());
        owners.send_replace(Arc::new(Owners::default()));
        let is_gone = wait_until(PATIENCE, Duration::from_millis(2), || {
            entries(&drops, &queries) == 0
        });
        assert!(is_gone, "{number} left {}", entries(&drops, &queries));
        assert_eq!(counted(&drops, &queries), (0, 0));
    }
}

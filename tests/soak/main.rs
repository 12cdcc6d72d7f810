//! Everything at once for a while; `cargo xtask soak` runs it for longer.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sabot_testkit::DaemonOptions;
use sabot_testkit::soak::Soak;

const LENGTH: Duration = Duration::from_secs(90);

#[test]
fn two_minutes_of_everything_leave_nothing_lost_wrong_or_behind() {
    // Another one each time; a failure names it.
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seed = now.expect("it is after 1970").as_secs();
    println!("seed {seed}");
    let soak = Soak {
        length: LENGTH,
        seed,
        daemon: DaemonOptions::built().expect("sabotd and sabot are built"),
    };
    let seen = soak.run(|_| true);
    println!("{seen}");
    assert!(seen.storms >= 2 && seen.kills + seen.terminations >= 1, "{seen}");
    assert!(seen.applied > 50 && seen.matched > 1_000, "{seen}");
    assert!(
        seen.calls > 50 && seen.refused > 10 && seen.garbage > 10,
        "{seen}"
    );
    assert!(seen.expired + seen.lifted >= 2 && seen.unnamed > 1_000, "{seen}");
}

//! What the daemon's programs cost, as the kernel measures it.

use std::thread;
use std::time::{Duration, Instant};

use sabot_testkit::wait::{wait_for, wait_until};

use crate::{LOOK, PATIENCE, Scene};

const RUNS: &str = "sabot_observer_program_runs_total";
const SECONDS: &str = "sabot_observer_program_seconds_total";
const MEASURED: &str = "sabot_observer_measured_seconds_total";
const MISSES: &str = "sabot_observer_program_misses_total";
/// From one sample's begin to the next one's end.
const PERIOD: Duration = Duration::from_secs(31);

#[test]
fn a_daemon_samples_what_its_programs_cost() {
    let started = Instant::now();
    let scene = Scene::new(1, &[]);
    let sums = || {
        let scrape = scene.scrape();
        [RUNS, SECONDS, MEASURED].map(|family| scrape.sum(family, &[]))
    };
    // The programs at the system calls run whatever happens on the machine.
    let mut last = sums();
    let is_measured = || {
        last = sums();
        last.iter().all(|sum| *sum > 0.0)
    };
    assert!(wait_until(PATIENCE + PERIOD, LOOK, is_measured), "{last:?}");
    let [runs, seconds, _] = sums();
    assert!(seconds / runs < 0.001, "a run takes {} s", seconds / runs);

    // It is measured now and then: the time stands still, and goes on later.
    let measured = || scene.scrape().sum(MEASURED, &[]);
    let stands = wait_for(PATIENCE, LOOK, || {
        let before = measured();
        thread::sleep(LOOK);
        (measured() == before).then_some(before)
    });
    let first = stands.expect("the first sample ends");
    assert!(
        wait_until(PATIENCE + PERIOD, LOOK, || measured() > first),
        "no other sample after {first} s"
    );
    let all = started.elapsed().as_secs_f64();
    assert!(measured() < all / 2.0, "{} s of {all}", measured());
}

#[test]
fn what_programs_cost_is_not_measured_where_it_is_not_wanted() {
    let scene = Scene::new(1, &["--measure-programs", "never"]);
    let scrape = scene.scrape();
    for family in [RUNS, SECONDS, MEASURED] {
        assert_eq!(scrape.kind(family), None, "{family}");
    }
    assert_eq!(scrape.kind(MISSES), Some("counter"), "it is counted in any case");
}

//! More calls than a daemon reads: pieces of them are lost and counted, and nothing is made of them that wasn't there.

use std::time::Duration;

use sabot_testkit::wait::wait_until;

use crate::scene::{LOOK, PATIENCE, Scene};

/// Of a call's pieces there are several, of half a kilobyte and more; the ring holds a megabyte.
const FLOOD: u64 = 3000;
const MORE: u64 = 20;
/// The daemon looks at what isn't much twice a second.
const HEARD: Duration = Duration::from_secs(2);

fn call(scene: &Scene) {
    let refused = scene.containerd.pull("no image's name");
    assert!(refused.is_err());
}

/// Calls that were counted, whatever they are thought to be.
fn counted(scene: &Scene) -> u64 {
    scene.counts().values().sum()
}

fn in_flight(scene: &Scene) -> u64 {
    scene.summaries().values().map(|summary| summary.in_flight).sum()
}

fn metric(scene: &Scene, name: &str, labels: &[(&str, &str)]) -> u64 {
    let scrape = scene.daemon.scrape().expect("metrics are served");
    scrape.value(name, labels).expect("it is served") as u64
}

fn lost(scene: &Scene) -> u64 {
    metric(scene, "sabot_events_lost_total", &[("stream", "cri")])
}

#[test]
fn a_flood_loses_pieces_of_calls_and_makes_none_up() {
    let scene = Scene::start();
    let (before, made_before) = (counted(&scene), scene.containerd.calls().len());
    scene.daemon.pause().expect("the daemon is stopped");
    (0..FLOOD).for_each(|_| call(&scene));
    scene.daemon.resume().expect("the daemon goes on");

    // Who hears the next piece learns that some are missing before it.
    let is_heard = wait_until(PATIENCE, LOOK, || {
        let known = counted(&scene);
        call(&scene);
        let out_of_sync = metric(&scene, "sabot_cri_out_of_sync_total", &[]);
        out_of_sync > 0 && wait_until(HEARD, LOOK, || counted(&scene) == known + 1)
    });
    assert!(is_heard, "the daemon doesn't find back: {:?}", scene.counts());
    let made = (scene.containerd.calls().len() - made_before) as u64;
    let (base, missing) = (counted(&scene), lost(&scene));
    assert!(missing > 0);
    assert!(base - before < made, "{} of {made} calls", base - before);
    assert_eq!(in_flight(&scene), 0, "nobody waits for what was lost");

    // From here on every call is counted again.
    (0..MORE).for_each(|_| call(&scene));
    let is_exact = wait_until(PATIENCE, LOOK, || counted(&scene) == base + MORE);
    assert!(is_exact, "{} of {}", counted(&scene), base + MORE);
    assert_eq!((lost(&scene), in_flight(&scene)), (missing, 0));

    // Who reads the events is told as much of both.
    let (mut told, mut told_lost) = (0, 0);
    while told < base + MORE - before || told_lost < missing {
        let event = scene.events.next(PATIENCE);
        let event = event.unwrap_or_else(|| panic!("only {told} calls and {told_lost} losses are told"));
        match (event["type"].as_str(), event["stream"].as_str()) {
            (Some("cri"), _) => told += 1,
            (Some("lost"), Some("cri")) => told_lost += event["count"].as_u64().expect("a number"),
            // What the runtime's syscalls have been may be lost, too.
            _ => {}
        }
    }
    assert_eq!((told, told_lost), (base + MORE - before, missing));
}

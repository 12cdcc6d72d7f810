//! The engine turn by turn on the test's own thread, so that what one line does to another can be counted.

use std::sync::mpsc::{Receiver, sync_channel};

use sabot_core::model::TargetIdentity;

use super::*;
use crate::delayline::LineError;
use crate::delayline::mailbox::{Command, Mailbox};
use crate::delayline::tally::Registry;
use crate::delayline::test_frames::FrameSpec;
use crate::delayline::test_rig::{Far, HOUR, PATIENCE, Pulse, Rig, delay};

const BACKLOG: usize = 4000;
/// A frame of this slot is held; one of any other goes on at once.
const HELD: u32 = 1;
const UNTREATED: u32 = 2;

fn engine() -> Engine {
    let shared = Arc::new(Shared {
        mailbox: Mailbox::new().expect("an eventfd"),
        registry: Registry::default(),
        open: std::sync::Mutex::default(),
        alive: std::sync::atomic::AtomicBool::new(true),
    });
    let config = Config {
        // Whatever the machine does meanwhile, the thread hasn't stood still.
        late_after: HOUR,
        ..Config::default()
    };
    let mut engine = Engine::new(config, Box::new(Pulse::default()), shared).expect("an engine");
    engine.slots.edit(Slot(HELD), Edit::Set(delay(HOUR)));
    engine
}

fn open(engine: &mut Engine, target: u32) -> Far {
    let (far, tap) = Far::pair();
    nix::fcntl::fcntl(&tap, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))
        .expect("it can be made non-blocking");
    let (reply, answer): (_, Receiver<Result<(), LineError>>) = sync_channel(1);
    engine.execute(Command::Open {
        target: TargetId(target),
        identity: TargetIdentity(u64::from(target)),
        netns: None,
        tap,
        reply,
    });
    answer.recv().expect("an answer").expect("the line opens");
    far
}

fn send(far: &Far, slot: u32, count: usize) {
    let mut spec = FrameSpec::default();
    spec.tag.slot = slot;
    let bytes = spec.build(far.vnet_header);
    (0..count).for_each(|_| far.send_bytes(&bytes));
}

fn received(far: &Far) -> usize {
    std::iter::from_fn(|| far.try_receive()).count()
}

fn held(engine: &Engine, target: u32) -> u64 {
    let tallies = engine
        .shared
        .registry
        .tallies((Slot(HELD), TargetId(target), true));
    tallies.held.packets
}

fn turn(engine: &mut Engine) {
    engine.turn().expect("the engine goes on");
}

#[test]
fn a_backlog_that_falls_due_at_once_lets_another_line_through() {
    let mut engine = engine();
    let (busy, calm) = (open(&mut engine, 1), open(&mut engine, 2));
    send(&busy, HELD, BACKLOG);
    send(&calm, HELD, 1);
    while held(&engine, 1) < BACKLOG as u64 || held(&engine, 2) < 1 {
        turn(&mut engine);
    }
    // The busy line's first, and then the calm one's.
    let now = engine.seen_at;
    engine.store.flush_line(0, now);
    engine.store.flush_line(1, now);
    turn(&mut engine);
    assert_eq!(received(&calm), 1, "it had its turn");
    let passed = received(&busy);
    assert!(passed > 0 && passed <= 2 * RELEASE_FRAMES, "{passed} frames");
    while held(&engine, 1) > 0 {
        turn(&mut engine);
    }
    assert_eq!(passed + received(&busy), BACKLOG);
}

#[test]
fn lines_that_flood_get_equal_shares_and_a_calm_one_its_turn() {
    let mut engine = engine();
    let floods: Vec<Far> = (0..20).map(|target| open(&mut engine, target)).collect();
    let calm = open(&mut engine, 99);
    floods.iter().for_each(|far| send(far, UNTREATED, 500));
    send(&calm, UNTREATED, 1);
    turn(&mut engine);
    assert_eq!(received(&calm), 1, "one turn serves every line");
    let shares: Vec<usize> = floods.iter().map(received).collect();
    assert!(shares.iter().all(|&share| share == READ_FRAMES), "{shares:?}");
}

#[test]
fn a_line_that_closes_is_emptied_beside_the_others() {
    let mut engine = engine();
    let (closing, calm) = (open(&mut engine, 1), open(&mut engine, 2));
    send(&closing, UNTREATED, BACKLOG);
    let (reply, answer) = sync_channel(1);
    engine.execute(Command::Close {
        target: TargetId(1),
        reply,
    });
    let (mut turns, mut passed) = (0, 0);
    // Its descriptor stays open, so that what it was sent can still be read.
    let _tap = loop {
        if let Ok(tap) = answer.try_recv() {
            break tap;
        }
        send(&calm, UNTREATED, 1);
        turn(&mut engine);
        assert_eq!(received(&calm), 1);
        passed += received(&closing);
        turns += 1;
    };
    assert_eq!(passed + received(&closing), BACKLOG, "nothing stays in its queue");
    assert!(turns >= BACKLOG / READ_FRAMES / 2, "{turns} turns");
}

#[test]
fn thousands_of_lines_are_served() {
    const LINES: u32 = 2000;
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    let (_, hard) = limit.expect("every process has a limit");
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, hard, hard)
        .expect("it may be raised that far");
    assert!(hard > 3 * u64::from(LINES), "this test needs more descriptors");
    let mut engine = engine();
    let lines: Vec<Far> = (0..LINES).map(|target| open(&mut engine, target)).collect();
    for slot in [HELD, UNTREATED] {
        lines.iter().for_each(|far| send(far, slot, 1));
    }
    while (0..LINES).any(|target| held(&engine, target) == 0) {
        turn(&mut engine);
    }
    assert!(lines.iter().all(|far| received(far) == 1));
    engine.store.flush_slot(Slot(HELD), engine.seen_at);
    while engine.store.has_due() {
        turn(&mut engine);
    }
    assert!(lines.iter().all(|far| received(far) == 1));
}

#[test]
fn the_thread_wakes_early_and_lets_nothing_go_early() {
    let held_for = std::time::Duration::from_millis(3);
    let mut engine = engine();
    engine.slots.edit(Slot(HELD), Edit::Set(delay(held_for)));
    // Its wake-ups seem to come late, and don't.
    (0..1000).for_each(|_| engine.lead.learn(u64::MAX));
    let far = open(&mut engine, 1);
    let sent = boot_time();
    send(&far, HELD, 1);
    while engine.store.next_wake().is_none() {
        engine.turn().expect("it waits");
    }
    engine.next_beat = u64::MAX;
    assert!(engine.next_wake() < engine.store.next_wake());
    while received(&far) == 0 {
        engine.turn().expect("it waits");
    }
    assert!(boot_time() >= sent + held_for.as_nanos() as u64);
}

#[test]
fn a_command_that_comes_while_the_thread_wakes_for_another_is_answered() {
    let (done, ended) = sync_channel(1);
    std::thread::spawn(move || {
        // Without a line, no heartbeat wakes the thread either.
        let rig = Rig::new();
        for round in 0..20_000 {
            rig.delay(HELD, HOUR);
            let wakes = boot_time() + round % 200 * 500;
            while boot_time() < wakes {
                std::hint::spin_loop();
            }
            rig.line.clear_slot(Slot(HELD));
        }
        let _ = done.send(());
    });
    ended.recv_timeout(6 * PATIENCE).expect("the thread sleeps on");
}

//! Round-trip times under a delay.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use sabot_abi::Histogram;
use sabot_testkit::rig::PATIENCE;
use sabot_testkit::wait::wait_for;
use sabot_testkit::{Rig, Spec};

use crate::scene::{Scene, connect};

const DELAY: Duration = Duration::from_millis(40);
const TICK: Duration = Duration::from_millis(12);
/// Round trips between two looks: enough for the smoothed time to have followed for most of them.
const EXCHANGES: usize = 60;

/// What came between two readings of a histogram.
fn between(before: &Histogram, after: &Histogram) -> Histogram {
    let mut new = *after;
    new.sum -= before.sum;
    for (count, old) in new.buckets.iter_mut().zip(&before.buckets) {
        *count -= old;
    }
    new
}

fn mean(histogram: &Histogram) -> Duration {
    Duration::from_nanos(histogram.sum / histogram.count())
}

fn exchange(connection: &mut TcpStream) {
    for _ in 0..EXCHANGES {
        connection.write_all(b"?").expect("it can be sent");
        connection.read_exact(&mut [0]).expect("it is answered");
        // Longer than a tick of the kernel, in each of which there is one sample.
        thread::sleep(TICK);
    }
}

#[test]
fn a_delay_moves_the_round_trip_times_and_its_end_moves_them_back() {
    let rig = Rig::new(2);
    let (client, server) = (rig.lab.pod(0), rig.lab.pod(1));
    let scene = Scene::new(&[client.netns(), server.netns()]);
    let listener = server
        .netns()
        .run(|| TcpListener::bind((server.ipv4(), 0)))
        .expect("an address");
    let address = listener.local_addr().expect("an address");
    let echo = thread::spawn(move || {
        let (mut connection, _) = listener.accept().expect("a connection");
        connection.set_nodelay(true).expect("an option");
        let mut byte = [0];
        while connection.read(&mut byte).expect("it can be read") > 0 {
            connection.write_all(&byte).expect("it can be sent");
        }
    });
    let mut connection = connect(client.netns(), address);
    let mut observe = || {
        let before = scene.totals(1).rtts;
        exchange(&mut connection);
        mean(&between(&before, &scene.totals(1).rtts))
    };
    let usual = observe();
    assert!(usual < DELAY / 4, "the machine is too slow to tell: {usual:?}");
    rig.apply("slow", Spec::delay(client, DELAY).egress());
    // The smoothed time follows within the first exchanges.
    observe();
    let delayed = observe();
    rig.delete("slow");
    let bounds = DELAY * 15 / 16..DELAY * 3 / 2;
    assert!(bounds.contains(&delayed), "{delayed:?} after {usual:?}");
    let back = wait_for(PATIENCE, Duration::ZERO, || {
        let now = observe();
        (now < DELAY / 4).then_some(now)
    });
    assert!(back.is_some(), "the round-trip times didn't move back");
    drop(connection);
    echo.join().expect("it ends");
    // The server's acknowledgements were late in one direction alone: its own data met the same delay.
    assert!(scene.totals(2).rtts.count() > 0);
}

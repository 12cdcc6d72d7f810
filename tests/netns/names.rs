//! Peers by name: what the target's own lookups answer is a peer, for as long as the answer holds.

use std::net::{IpAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use domain::base::iana::Rtype;
use sabot_testkit::rig::PATIENCE;
use sabot_testkit::traffic::{INTERVAL, NameServer, ProbeServer, Prober};
use sabot_testkit::wait::{best_of, wait_until};
use sabot_testkit::{LabPod, Leaks, Rig, Spec};

const TARGET: usize = 0;
const ONE: usize = 1;
const TWO: usize = 2;
const RESOLVER: usize = 3;
const PODS: usize = 4;

/// Longer than a test takes.
const LASTING: u32 = 300;
/// In this time a cut shows, or that there is none.
const WATCHED: Duration = Duration::from_millis(150);
/// How soon an address is a peer, on a machine that isn't busy at that moment.
const SOON: Duration = Duration::from_millis(5);
/// For how long datagrams are sent after an answer.
const BURST: Duration = Duration::from_millis(50);
const API: &str = "api.shop.test";

/// A rig with a resolver that the target asks, and probes from the target to two other pods.
struct Scene {
    one: Line,
    two: Line,
    names: NameServer,
    // Dropped last: the others live in its namespaces.
    rig: Rig,
}

struct Line {
    prober: Prober,
    ip: IpAddr,
    _server: ProbeServer,
}

impl Line {
    fn new(rig: &Rig, to: usize, ip: IpAddr) -> Self {
        let server = ProbeServer::start(rig.lab.pod(to).netns(), ip).expect("it binds");
        let prober = Prober::start(rig.lab.pod(TARGET).netns(), &server, INTERVAL).expect("there is a route");
        let line = Self {
            prober,
            ip,
            _server: server,
        };
        line.assert_flows();
        line
    }

    /// A probe that is sent now is answered, or one soon after.
    fn assert_flows(&self) {
        let passed = self.prober.wait_pass(Instant::now(), PATIENCE);
        assert!(passed.is_some(), "nothing passes to {}", self.ip);
    }

    /// Probes are let through, all of them.
    fn assert_spared(&self) {
        let from = Instant::now();
        thread::sleep(WATCHED);
        let until = Instant::now();
        let whole = || {
            let passage = self.prober.passage(from, until);
            passage.sent > 5 && passage.answered == passage.sent
        };
        let spared = wait_until(PATIENCE, INTERVAL, whole);
        assert!(spared, "{}: {:?}", self.ip, self.prober.passage(from, until));
    }

    /// From soon on no probe gets through.
    fn assert_cut(&self) {
        let cut = wait_until(PATIENCE, Duration::ZERO, || {
            let from = Instant::now();
            thread::sleep(WATCHED);
            let passage = self.prober.passage(from, Instant::now());
            passage.sent > 5 && passage.answered == 0 && passage.arrived == 0
        });
        assert!(cut, "probes to {} get through", self.ip);
    }
}

impl Scene {
    fn new() -> Self {
        Self::over(LabPod::ipv4)
    }

    fn over(family: impl Fn(&LabPod) -> IpAddr) -> Self {
        let rig = Rig::new(PODS);
        let resolver = rig.lab.pod(RESOLVER);
        let names = NameServer::start(resolver.netns(), family(resolver)).expect("it binds");
        let line = |to| Line::new(&rig, to, family(rig.lab.pod(to)));
        Self {
            one: line(ONE),
            two: line(TWO),
            names,
            rig,
        }
    }

    fn cut(&self, name: &str) -> Spec {
        Spec::partition(self.rig.lab.pod(TARGET)).host(name)
    }

    /// Has the target look a name up.
    fn lookup(&self, name: &str) -> Vec<IpAddr> {
        let family = if self.one.ip.is_ipv4() {
            Rtype::A
        } else {
            Rtype::AAAA
        };
        let netns = self.rig.lab.pod(TARGET).netns();
        let answered = self.names.lookup(netns, name, family, PATIENCE);
        answered.expect("the resolver answers")
    }

    /// What the daemon knows of a fault's names, as `name: addresses`.
    fn known(&self, fault: &str) -> Vec<String> {
        let status = self.rig.get(fault).status.unwrap_or_default();
        let text =
            |name: sabot_proto::sabot::v1::LearntName| format!("{}: {}", name.name, name.addresses.join(" "));
        status.names.into_iter().map(text).collect()
    }

    fn end(&self, faults: &[&str]) {
        for fault in faults {
            self.rig.delete(fault);
        }
        self.one.assert_flows();
        self.two.assert_flows();
        for fault in faults {
            let [egress, ingress] = self.rig.settled(fault);
            for books in [egress, ingress] {
                assert_eq!(
                    books.dropped, books.matched,
                    "{fault} dropped all that it matched"
                );
            }
        }
    }
}

#[test]
fn a_name_that_rotates_is_followed_and_its_lifetime_kept() {
    const TTL: u32 = 5;
    let scene = Scene::new();
    scene.names.set(API, &[scene.one.ip], TTL);
    // Nobody watches yet.
    scene.lookup(API);
    scene.rig.apply("cut", scene.cut("API.Shop.Test."));
    assert_eq!(scene.known("cut"), [format!("{API}: ")]);
    scene.one.assert_spared();

    let asked = Instant::now();
    assert_eq!(scene.lookup(API), [scene.one.ip]);
    let learnt = Instant::now();
    scene.one.assert_cut();
    let cut = Instant::now();
    let late = scene.one.prober.between(learnt, cut);
    let late = late
        .iter()
        .filter(|sample| sample.answered.is_some())
        .map(|sample| sample.sent);
    println!(
        "the last probe that passed was sent {:?} after the answer",
        late.max().map(|sent| sent - learnt)
    );

    // The next answer has another address; the first one stays a peer until its time is over.
    scene.names.set(API, &[scene.two.ip], LASTING);
    assert_eq!(scene.lookup(API), [scene.two.ip]);
    scene.two.assert_cut();
    let rest = scene.one.prober.wait_pass(cut, PATIENCE);
    let held = cut + rest.expect("the first address is free again") - asked;
    println!("it passed again {held:?} after the question");
    assert!(
        held >= Duration::from_secs(TTL.into()),
        "a peer for {held:?} only"
    );
    scene.one.assert_spared();
    scene.two.assert_cut();
    assert_eq!(scene.known("cut"), [format!("{API}: {}", scene.two.ip)]);
    scene.end(&["cut"]);
}

#[test]
fn an_address_is_a_peer_as_soon_as_the_target_has_it() {
    let scene = Scene::new();
    let (target, peer) = (scene.rig.lab.pod(TARGET), scene.rig.lab.pod(ONE));
    let receiver = peer
        .netns()
        .run(|| UdpSocket::bind((peer.ipv4(), 0)))
        .expect("it binds");
    receiver.set_nonblocking(true).expect("a socket can be asked");
    let to = receiver.local_addr().expect("it is bound");
    let mut number = 0;
    let what = "from the answer to the last datagram that passed";
    best_of(10, SOON, what, || {
        number += 1;
        let name = format!("name{number}.test");
        scene.names.set(&name, &[scene.one.ip], LASTING);
        scene.rig.apply(&name, scene.cut(&name));
        // The first datagram is sent before anybody knows the name's address.
        let sent = target.netns().run(|| {
            let socket = UdpSocket::bind((target.ipv4(), 0)).expect("it binds");
            socket
                .send_to(&0_usize.to_le_bytes(), to)
                .expect("there is a route");
            scene
                .names
                .ask(&name, Rtype::A, PATIENCE)
                .expect("the resolver answers");
            let learnt = Instant::now();
            let mut sent = vec![Duration::ZERO];
            while learnt.elapsed() < BURST {
                let datagram = sent.len().to_le_bytes();
                sent.push(learnt.elapsed());
                socket
                    .send_to(&datagram, to)
                    .expect("the sender isn't told of the cut");
                thread::sleep(Duration::from_micros(20));
            }
            sent
        });
        scene.one.assert_cut();
        let mut datagram = [0; size_of::<usize>()];
        let arrived = std::iter::from_fn(|| {
            receiver
                .recv(&mut datagram)
                .ok()
                .map(|_| usize::from_le_bytes(datagram))
        });
        let arrived: Vec<usize> = arrived.collect();
        assert_eq!(arrived.first(), Some(&0), "{arrived:?}");
        let last = sent[arrived[arrived.len() - 1]];
        println!(
            "{} of {} datagrams passed, the last after {last:?}",
            arrived.len() - 1,
            sent.len() - 1
        );
        scene.end(&[&name]);
        last
    });
}

#[test]
fn names_are_kept_apart_and_failures_teach_nothing() {
    let scene = Scene::new();
    scene.names.set("one.test", &[scene.one.ip], LASTING);
    scene.names.set("two.test", &[scene.two.ip], LASTING);
    scene
        .names
        .set("three.test", &[scene.one.ip, scene.two.ip], LASTING);
    // What arrives is watched also where only what leaves is meant.
    scene.rig.apply("cut-one", scene.cut("one.test").egress());
    scene.rig.apply("cut-two", scene.cut("two.test"));
    scene.rig.apply("cut-gone", scene.cut("gone.test"));
    scene.lookup("three.test");
    assert!(scene.lookup("gone.test").is_empty());
    scene.one.assert_spared();
    scene.two.assert_spared();

    scene.lookup("one.test");
    scene.one.assert_cut();
    scene.two.assert_spared();
    scene.lookup("two.test");
    scene.two.assert_cut();
    assert_eq!(scene.known("cut-gone"), ["gone.test: "]);

    scene.rig.delete("cut-one");
    scene.one.assert_flows();
    scene.one.assert_spared();
    scene.two.assert_cut();
    scene.end(&["cut-two", "cut-gone"]);
}

#[test]
fn aliases_lead_to_ipv6_addresses() {
    let scene = Scene::over(LabPod::ipv6);
    scene.names.set_alias("www.shop.test", "edge.test", LASTING);
    scene.names.set_alias("edge.test", "edge7.test", LASTING);
    scene.names.set("edge7.test", &[scene.one.ip], LASTING);
    scene.rig.apply("cut", scene.cut("www.shop.test"));
    assert_eq!(scene.lookup("www.shop.test"), [scene.one.ip]);
    scene.one.assert_cut();
    scene.two.assert_spared();
    assert_eq!(scene.known("cut"), [format!("www.shop.test: {}", scene.one.ip)]);

    // The alias now leads elsewhere.
    scene.names.set("edge7.test", &[scene.two.ip], LASTING);
    scene.lookup("www.shop.test");
    scene.two.assert_cut();
    scene.one.assert_cut();
    scene.end(&["cut"]);
}

#[test]
fn an_edit_begins_and_ends_the_watching() {
    let scene = Scene::new();
    let elsewhere = || Spec::partition(scene.rig.lab.pod(TARGET)).peer([203, 0, 113, 1].into());
    scene.names.set(API, &[scene.one.ip], LASTING);
    scene.rig.apply("cut", elsewhere());
    scene.lookup(API);
    scene.one.assert_spared();

    scene.rig.apply("cut", elsewhere().host(API));
    scene.one.assert_spared();
    scene.lookup(API);
    scene.one.assert_cut();

    scene.rig.apply("cut", elsewhere());
    scene.one.assert_flows();
    scene.one.assert_spared();
    assert!(scene.known("cut").is_empty());

    // What was learnt is still valid, and what is looked up unwatched isn't learnt.
    scene.names.set(API, &[scene.two.ip], LASTING);
    scene.lookup(API);
    scene.rig.apply("cut", elsewhere().host(API));
    scene.one.assert_cut();
    scene.two.assert_spared();
    scene.end(&["cut"]);
}

#[test]
fn a_kill_leaves_nothing() {
    let mut scene = Scene::new();
    let mut leaks = Leaks::baseline(&scene.rig.places()).expect("the machine can be looked at");
    scene.names.set(API, &[scene.one.ip], LASTING);
    scene.rig.apply("cut", scene.cut(API));
    scene.lookup(API);
    scene.one.assert_cut();
    leaks.learn(scene.rig.daemon.pid()).expect("it runs");
    scene.rig.daemon.kill9().expect("it runs");
    scene.one.assert_flows();
    let left = leaks.wait_clean(PATIENCE).expect("the machine can be looked at");
    assert!(left.is_empty(), "{left:?}");
}

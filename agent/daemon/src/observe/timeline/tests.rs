mod news;

use sabot_abi::{Histogram, OwnerKey, log_linear_bucket};

use super::recorder::Recorder;
use super::*;
use crate::engine::handle::{Ledger, LedgerDirection, LedgerEntry, Phase, Snapshot};
use crate::observe::drops::DropKind;
use crate::observe::identity::{Owner, Owners};
use crate::observe::testing::{fault_view, name, snapshot, target_view};

const OWNER: u32 = 7;
const FAULT: &str = "shop/cut";

/// What the kernel would say; moments are kept until they are forgotten, as there.
#[derive(Default)]
struct Kernel {
    totals: Mutex<HashMap<u32, Totals>>,
    firsts: Mutex<HashMap<u32, Firsts>>,
    node: Mutex<NodeTotals>,
}

impl Measure for Kernel {
    fn totals(&self, owners: &BTreeSet<u32>) -> HashMap<u32, Totals> {
        let totals = self.totals.lock().unwrap();
        owners
            .iter()
            .map(|owner| (*owner, totals.get(owner).cloned().unwrap_or_default()))
            .collect()
    }

    fn node(&self) -> NodeTotals {
        self.node.lock().unwrap().clone()
    }

    fn firsts(&self, owner: u32) -> Firsts {
        self.firsts
            .lock()
            .unwrap()
            .get(&owner)
            .copied()
            .unwrap_or_default()
    }

    fn forget_firsts(&self, owner: u32) {
        self.firsts.lock().unwrap().remove(&owner);
    }

    fn reaction(&self, _event: &Event) -> Option<(Identity, Reaction)> {
        None
    }
}

struct Scene {
    kernel: Arc<Kernel>,
    recorder: Recorder,
    owners: Owners,
    now: BootTime,
}

impl Scene {
    fn new() -> Self {
        let kernel = Arc::new(Kernel::default());
        let measure: Arc<dyn Measure> = kernel.clone();
        let target = target_view(1);
        let pod = Identity::Pod {
            namespace: target.pod_namespace,
            name: target.pod_name,
        };
        Self {
            recorder: Recorder::new(measure),
            owners: Owners::new([Owner {
                number: OWNER,
                identity: Arc::new(pod),
                keys: vec![OwnerKey { cookie: 1, cgroup: 0 }],
                paths: Vec::new(),
            }]),
            kernel,
            now: boot_time(),
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.now.0 += seconds * 1_000_000_000;
    }

    fn traffic(&self, count: u64, rtt: Duration, retransmits: u64) {
        let mut totals = self.kernel.totals.lock().unwrap();
        let totals = totals.entry(OWNER).or_default();
        let ns = rtt.as_nanos() as u64;
        totals.rtts.buckets[log_linear_bucket(ns)] += count;
        totals.rtts.sum += count * ns;
        totals.retransmits += retransmits;
        if retransmits > 0 {
            let mut firsts = self.kernel.firsts.lock().unwrap();
            firsts
                .entry(OWNER)
                .or_default()
                .retransmit
                .get_or_insert(self.now);
        }
    }

    fn sample(&mut self) {
        self.recorder.sample(&self.owners, self.now);
    }

    fn follow(&mut self, phase: Phase) {
        self.follow_all(snapshot(1, [fault_view(FAULT, phase, 3, &[1])]));
    }

    fn follow_all(&mut self, snapshot: Snapshot) {
        self.recorder.follow(&snapshot, &self.owners, self.now);
    }

    fn told(&self) -> TargetTimeline {
        let timeline = self.recorder.timeline(&name(FAULT)).expect("it is known");
        assert_eq!(timeline.targets.len(), 1, "{timeline:#?}");
        timeline.targets[0].clone()
    }
}

fn kinds(target: &TargetTimeline) -> Vec<What> {
    target.moments.iter().map(|moment| moment.what).collect()
}

/// Two calm minutes' samples, a fault of ten seconds with a retransmit in its third, and calm again.
fn whole_story() -> Scene {
    let mut scene = Scene::new();
    for _ in 0..12 {
        scene.traffic(10, Duration::from_millis(10), 0);
        scene.sample();
        scene.pass(5);
    }
    scene.follow(Phase::Pending);
    scene.follow(Phase::Injected);
    for second in 0..10 {
        scene.pass(1);
        scene.traffic(10, Duration::from_millis(50), u64::from(second == 2));
        scene.recorder.look(scene.now);
    }
    scene.follow(Phase::Expired);
    for _ in 0..5 {
        scene.pass(1);
        scene.traffic(10, Duration::from_millis(10), 0);
        scene.recorder.look(scene.now);
    }
    scene
}

#[test]
fn a_fault_is_told_from_its_application_to_its_recovery() {
    let scene = whole_story();
    let told = scene.told();
    assert_eq!(
        kinds(&told),
        [
            What::Applied,
            What::Injected,
            What::FirstRetransmit,
            What::Ended,
            What::Recovered
        ]
    );
    let seconds = |from, to| told.between(from, to).map(|time| time.as_secs());
    assert_eq!(seconds(What::Injected, What::FirstRetransmit), Some(3));
    assert_eq!(seconds(What::Injected, What::Ended), Some(10));
    assert_eq!(seconds(What::Ended, What::Recovered), Some(0));
    assert_eq!(seconds(What::Ended, What::Injected), None);
    assert_eq!(seconds(What::Injected, What::FirstRto), None);

    let before = told.before.expect("the time before is known");
    assert_eq!((before.length().as_secs(), before.totals.rtts.count()), (30, 50));
    assert_eq!(
        (told.during.length().as_secs(), told.during.totals.retransmits),
        (10, 1)
    );
    assert_eq!(told.during.totals.rtts.count(), 100);
    let after = told.after.expect("it is over");
    assert!(matches!(told.recovery, Some(Recovery::Recovered(_))));
    // The watch ends with the recovery.
    assert_eq!((after.length().as_secs(), after.totals.retransmits), (3, 0));
    assert!(!scene.recorder.is_open());
}

#[test]
fn what_happened_before_a_fault_is_not_its_first() {
    let mut scene = Scene::new();
    scene.traffic(1, Duration::from_millis(1), 3);
    scene.pass(1);
    scene.follow(Phase::Injected);
    scene.pass(1);
    scene.recorder.look(scene.now);
    assert!(!kinds(&scene.told()).contains(&What::FirstRetransmit));
    // Its own is, although the kernel had kept the other one.
    scene.traffic(1, Duration::from_millis(1), 1);
    scene.recorder.look(scene.now);
    assert_eq!(
        scene.told().between(What::Injected, What::FirstRetransmit),
        Some(Duration::from_secs(1))
    );
}

#[test]
fn two_faults_on_one_pod_each_have_their_firsts() {
    let mut scene = Scene::new();
    let both = |first, second| {
        snapshot(
            1,
            [
                fault_view(FAULT, first, 3, &[1]),
                fault_view("shop/later", second, 4, &[1]),
            ],
        )
    };
    scene.follow_all(both(Phase::Injected, Phase::Pending));
    scene.pass(1);
    scene.traffic(1, Duration::from_millis(1), 1);
    scene.pass(1);
    scene.follow_all(both(Phase::Injected, Phase::Injected));
    scene.pass(1);
    scene.traffic(1, Duration::from_millis(1), 1);
    scene.recorder.look(scene.now);
    let later = scene.recorder.timeline(&name("shop/later")).expect("it is known");
    let from_injection = |target: &TargetTimeline| target.between(What::Injected, What::FirstRetransmit);
    assert_eq!(from_injection(&scene.told()), Some(Duration::from_secs(1)));
    assert_eq!(from_injection(&later.targets[0]), Some(Duration::from_secs(1)));
}

/// What the counters of a target say of the fault's first packet.
fn first_packet(target: u32, at: u64) -> LedgerEntry {
    LedgerEntry {
        fault: name(FAULT),
        target: target_view(target),
        direction: LedgerDirection::Egress,
        ledger: Ledger {
            first_match: Some(BootTime(at)),
            ..Ledger::default()
        },
    }
}

#[test]
fn the_first_packet_is_the_counters_own_and_never_before_the_injection() {
    let mut scene = Scene::new();
    scene.follow(Phase::Injected);
    assert_eq!(scene.recorder.unmatched(), [name(FAULT)]);
    let seen = scene.now.0 - 1000;
    let said = [
        first_packet(1, seen + 5),
        first_packet(1, seen),
        first_packet(2, seen - 9),
    ];
    scene.recorder.matched(&name(FAULT), &said);
    assert_eq!(scene.recorder.unmatched(), []);
    let told = scene.told();
    assert_eq!(
        told.between(What::Injected, What::FirstMatch),
        Some(Duration::ZERO)
    );
    let first = told.moments.iter().find(|moment| moment.what == What::FirstMatch);
    assert_eq!(first.map(|moment| moment.at.0), Some(seen));
}

fn dropped_by(injected: bool) -> DropKind {
    DropKind {
        injected,
        egress: true,
        reason: "NO_SOCKET".to_owned(),
    }
}

/// Retransmits and injected drops: in a second before the fault, and between its first packet and the first look at it.
fn before_the_first_look(before: u64, unseen: u64) -> TargetTimeline {
    let mut scene = Scene::new();
    scene.sample();
    scene.pass(1);
    scene.traffic(10, Duration::from_millis(10), before);
    scene.pass(1);
    let first = scene.now.0;
    scene.pass(1);
    scene.traffic(10, Duration::from_millis(10), unseen);
    let dropped = |scene: &Scene, count| {
        let mut totals = scene.kernel.totals.lock().unwrap();
        let drops = &mut totals.entry(OWNER).or_default().drops;
        *drops.entry(dropped_by(true)).or_default() += count;
        *drops.entry(dropped_by(false)).or_default() += 1;
    };
    dropped(&scene, unseen);
    scene.pass(1);
    scene.follow(Phase::Injected);
    // Until the first packet is known, nobody knows whose they are.
    assert_eq!(scene.told().during.totals.retransmits, 0);
    scene.pass(1);
    dropped(&scene, 1);
    scene.recorder.look(scene.now);
    scene.recorder.matched(&name(FAULT), &[first_packet(1, first)]);
    scene.told()
}

#[test]
fn what_a_fault_did_before_it_was_first_looked_at_is_its_own() {
    let told = before_the_first_look(0, 3);
    assert_eq!(
        kinds(&told),
        [
            What::Applied,
            What::Injected,
            What::FirstMatch,
            What::FirstRetransmit
        ]
    );
    let seconds = |from, to| told.between(from, to).map(|time| time.as_secs());
    assert_eq!(seconds(What::Injected, What::FirstRetransmit), Some(1));
    let counted = |window: &Window| (window.totals.retransmits, window.totals.dropped(true));
    assert_eq!(counted(&told.during), (3, 4));
    assert_eq!(told.during.length().as_secs(), 3);
    let before = told.before.expect("it was looked at before");
    assert_eq!(counted(&before), (0, 0));
    assert_eq!(before.length().as_secs(), 2);
}

#[test]
fn what_happened_before_a_first_packet_stays_before() {
    let told = before_the_first_look(2, 0);
    assert!(!kinds(&told).contains(&What::FirstRetransmit));
    assert_eq!(told.during.totals.retransmits, 0);
    assert_eq!(
        told.before.expect("it was looked at before").totals.retransmits,
        2
    );
}

#[test]
fn a_reaction_of_the_runtime_belongs_to_the_pod_that_hurts() {
    let mut scene = Scene::new();
    let reaction = |at| Reaction {
        at,
        what: "StopPodSandbox by kubelet".to_owned(),
    };
    let pod = scene.owners.get(OWNER).unwrap().identity.as_ref().clone();
    scene.recorder.react(&pod, &reaction(scene.now));
    scene.follow(Phase::Injected);
    let other = Identity::Pod {
        namespace: "shop".to_owned(),
        name: "other".to_owned(),
    };
    scene.recorder.react(&other, &reaction(scene.now));
    assert!(!kinds(&scene.told()).contains(&What::RuntimeReaction));
    scene.pass(2);
    scene.recorder.react(&pod, &reaction(scene.now));
    let told = scene.told();
    assert_eq!(
        told.between(What::Injected, What::RuntimeReaction),
        Some(Duration::from_secs(2))
    );
    let moment = told
        .moments
        .iter()
        .find(|moment| moment.what == What::RuntimeReaction);
    assert_eq!(moment.unwrap().detail, "StopPodSandbox by kubelet");
}

#[test]
fn a_fault_that_is_forgotten_or_applied_anew_begins_a_new_page() {
    let mut scene = whole_story();
    let mut again = fault_view(FAULT, Phase::Injected, 3, &[1]);
    Arc::make_mut(&mut again.fault).created += Duration::from_secs(1);
    scene.follow_all(snapshot(2, [again]));
    assert!(!kinds(&scene.told()).contains(&What::Ended));
    scene.follow_all(snapshot(3, []));
    assert_eq!(scene.recorder.timeline(&name(FAULT)), None);
    assert!(!scene.recorder.is_open());
}

#[test]
fn owners_that_went_take_their_history_with_them() {
    let mut scene = Scene::new();
    scene.sample();
    assert_eq!(scene.recorder.remembered(), 1);
    scene.owners = Owners::default();
    scene.sample();
    assert_eq!(scene.recorder.remembered(), 0);
}

/// Calls of the kubelet, every tenth of which fails, and one of the runtime, that fails with the last of many.
fn node_works(scene: &Scene, calls: u64) {
    let mut node = scene.kernel.node.lock().unwrap();
    let mut durations = Histogram::EMPTY;
    durations.buckets[log_linear_bucket(5000)] = calls;
    durations.sum = calls * 5000;
    let kubelet = node.calls.entry(("kubelet".into(), "openat")).or_default();
    kubelet.durations = kubelet.durations.with(&durations);
    *kubelet.errors.entry("ENOENT").or_default() += calls / 10;
    let operation = node.operations.entry("StopContainer").or_default();
    let outcome = if calls > 10 { "Unknown" } else { "OK" };
    *operation.outcomes.entry(outcome).or_default() += 1;
    operation.buckets[0] += 1;
    operation.total += Duration::from_millis(calls);
}

/// Calls, errors, and the runtime's calls, failures and mean.
fn work(window: &NodeWindow) -> (u64, u64, u64, u64, Option<Duration>) {
    let kubelet = window.processes.get("kubelet").cloned().unwrap_or_default();
    assert_eq!(kubelet.durations.count(), kubelet.calls);
    let open = &window.calls[&("kubelet".into(), "openat")];
    assert_eq!((open.calls(), open.failed()), (kubelet.calls, kubelet.errors));
    let operations = window.operations.get("StopContainer");
    let operations = operations.cloned().unwrap_or_default();
    (
        kubelet.calls,
        kubelet.errors,
        operations.calls(),
        operations.failures(),
        operations.mean(),
    )
}

fn told_of_node(scene: &Scene) -> NodeTimeline {
    let timeline = scene.recorder.timeline(&name(FAULT)).expect("it is known");
    timeline.activity.expect("it was in force")
}

#[test]
fn what_the_node_did_is_told_before_during_and_after() {
    let mut scene = Scene::new();
    scene.sample();
    node_works(&scene, 10);
    scene.pass(5);
    scene.sample();
    scene.follow(Phase::Pending);
    assert_eq!(scene.recorder.timeline(&name(FAULT)).unwrap().activity, None);
    scene.pass(1);
    scene.follow(Phase::Injected);
    node_works(&scene, 20);
    node_works(&scene, 40);
    scene.pass(2);
    scene.recorder.look_at_node(&name(FAULT), scene.now);
    let millis = |ms| Some(Duration::from_millis(ms));
    let now = told_of_node(&scene);
    assert_eq!(work(now.before.as_ref().unwrap()), (10, 1, 1, 0, millis(10)));
    assert_eq!(now.before.unwrap().length().as_secs(), 6);
    assert_eq!(work(&now.during), (60, 6, 2, 2, millis(30)));
    assert_eq!((now.during.length().as_secs(), now.after), (2, None));

    node_works(&scene, 30);
    scene.pass(1);
    scene.follow(Phase::Expired);
    scene.pass(1);
    node_works(&scene, 10);
    scene.sample();
    let over = told_of_node(&scene);
    assert_eq!(work(&over.during), (90, 9, 3, 3, millis(30)));
    assert_eq!(work(over.after.as_ref().unwrap()), (10, 1, 1, 0, millis(10)));
    // Without traffic the targets' recovery is given up in time, and with it this.
    for _ in 0..70 {
        scene.pass(1);
        scene.recorder.look(scene.now);
    }
    let given_up = told_of_node(&scene).after.unwrap();
    node_works(&scene, 10);
    scene.pass(5);
    scene.sample();
    assert_eq!(told_of_node(&scene).after, Some(given_up));
}

#[test]
fn a_target_that_comes_later_prolongs_what_is_told_of_the_node() {
    let mut scene = Scene::new();
    scene.follow(Phase::Injected);
    node_works(&scene, 10);
    scene.pass(1);
    let nobody =
        |scene: &mut Scene| scene.follow_all(snapshot(2, [fault_view(FAULT, Phase::Pending, 3, &[])]));
    nobody(&mut scene);
    assert!(told_of_node(&scene).after.is_some());
    node_works(&scene, 10);
    scene.pass(1);
    scene.follow(Phase::Injected);
    scene.recorder.look_at_node(&name(FAULT), scene.now);
    let told = told_of_node(&scene);
    assert_eq!((told.during.length().as_secs(), told.after), (2, None));
    assert_eq!(told.during.processes["kubelet"].calls, 20);
}

#[test]
fn who_did_nothing_in_the_meantime_is_left_out() {
    let scene = Scene::new();
    node_works(&scene, 10);
    let totals = scene.kernel.node();
    assert_eq!(totals.since(&totals), NodeTotals::default());
    assert_eq!(totals.since(&NodeTotals::default()), totals);
    // Counters that begin anew never make it negative.
    assert_eq!(NodeTotals::default().since(&totals), NodeTotals::default());
}

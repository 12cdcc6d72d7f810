use crate::observe::event::{CriEvent, DnsEvent, SyscallEvent};
use crate::observe::identity::Identity;
use crate::observe::identity::containers::Container;

use super::*;

fn event(kind: EventKind) -> Event {
    Event {
        time: UNIX_EPOCH + Duration::from_millis(1_500),
        container: Some(Arc::new(Container {
            id: "19ab".into(),
            name: "main".into(),
            pod_namespace: "team-a".into(),
            pod_name: "web".into(),
        })),
        kind,
    }
}

fn call(process: &str, duration: Duration) -> Event {
    event(EventKind::Syscall(SyscallEvent {
        process: process.into(),
        comm: process.into(),
        pid: 7,
        tid: 8,
        syscall: "openat",
        duration,
        result: -2,
        errno: Some("ENOENT"),
        detail: Vec::new(),
    }))
}

fn latest(events: &[Event]) -> Latest {
    let mut latest = Latest::default();
    for event in events {
        let (series, one) = exemplar(event, || "shop/cut".into()).expect("it has a histogram");
        latest.note(series, one);
    }
    latest
}

/// As the registry writes a histogram: `process` has such counts up to 1 ms, 10 ms and without bound.
fn histogram(process: &str, counts: [u64; 3]) -> String {
    let bounds = ["0.001", "0.01", "+Inf"];
    let lines = bounds.iter().zip(counts).map(|(bound, count)| {
        format!("sabot_syscall_duration_seconds_bucket{{le=\"{bound}\",process=\"{process}\",syscall=\"openat\"}} {count}\n")
    });
    lines.collect()
}

#[test]
fn the_first_bucket_that_holds_the_value_gets_it() {
    let latest = latest(&[call("a\"b", Duration::from_millis(5))]);
    let text = histogram("a\\\"b", [1, 2, 2]) + &histogram("other", [1, 2, 2]) + "# EOF\n";
    let annotated = latest.annotate("sabot", &text);
    let changed: Vec<_> = annotated
        .lines()
        .zip(text.lines())
        .filter(|(line, before)| line != before)
        .map(|(line, _)| line)
        .collect();
    assert_eq!(
        changed,
        [
            "sabot_syscall_duration_seconds_bucket{le=\"0.01\",process=\"a\\\"b\",syscall=\"openat\"} 2 \
          # {fault=\"shop/cut\",pid=\"7\",pod=\"team-a/web\",container=\"main\"} 0.005 1.500"
        ]
    );
    assert_eq!(annotated.lines().count(), text.lines().count());
}

#[test]
fn a_bucket_without_a_value_of_its_own_gets_none() {
    let latest = latest(&[call("a", Duration::from_millis(5))]);
    // What was counted is gone: the process was traced anew.
    let text = histogram("a", [2, 2, 2]);
    assert_eq!(latest.annotate("sabot", &text), text);
    let text = histogram("a", [0, 1, 1]);
    assert!(latest.annotate("sabot", &text).contains("} 1 # {"));
    // Another registry's, another family's.
    let foreign = text.replace("sabot_", "other_");
    assert_eq!(latest.annotate("sabot", &foreign), foreign);
    let foreign = text.replace("syscall_duration", "delay");
    assert_eq!(latest.annotate("sabot", &foreign), foreign);
}

#[test]
fn what_is_beyond_all_bounds_is_in_the_last_bucket() {
    let latest = latest(&[call("a", Duration::from_secs(5))]);
    let annotated = latest.annotate("sabot", &histogram("a", [1, 1, 2]));
    let last = annotated.lines().last().expect("a line");
    assert!(
        last.contains("+Inf") && last.contains(" # {") && last.ends_with(" 5 1.500"),
        "{last}"
    );
}

#[test]
fn calls_of_the_runtime_and_queries_have_some_too() {
    let cri = event(EventKind::Cri(CriEvent {
        operation: "RunPodSandbox",
        pod_namespace: "team-a".into(),
        pod_name: "web".into(),
        duration: Some(Duration::from_millis(400)),
        outcome: "OK",
        ..CriEvent::default()
    }));
    let (series, one) = exemplar(&cri, String::new).expect("it has a histogram");
    assert_eq!(
        series,
        key(
            "cri_operation_duration_seconds",
            vec![("operation", "RunPodSandbox")]
        )
    );
    let expected = [("pod", "team-a/web".to_owned()), ("container", "main".to_owned())];
    assert_eq!(one.labels, expected);

    let query = |outcome| {
        event(EventKind::Dns(DnsEvent {
            owner: Arc::new(Identity::Node),
            outcome,
            name: "x".repeat(200),
            kind: "A".into(),
            server: [10, 0, 0, 1].into(),
            rcode: None,
            latency: Duration::from_secs(2),
        }))
    };
    let (series, one) = exemplar(&query(DnsOutcome::Slow), String::new).expect("it has a histogram");
    let labels = vec![("pod", "node"), ("namespace", "")];
    assert_eq!(series, key("dns_duration_seconds", labels));
    assert!(
        one.labels.iter().all(|(name, _)| *name != "name"),
        "it has no room"
    );
    assert_eq!(exemplar(&query(DnsOutcome::Unanswered), String::new), None);
}

#[test]
fn there_are_never_more_than_their_bound() {
    let mut latest = Latest::default();
    for number in 0..MOST as u64 + 10 {
        let mut event = call(&format!("p{number}"), Duration::from_millis(5));
        event.time = UNIX_EPOCH + Duration::from_secs(number);
        let (series, one) = exemplar(&event, String::new).expect("it has a histogram");
        latest.note(series, one);
    }
    assert_eq!(latest.0.len(), MOST);
    assert!(
        latest
            .0
            .values()
            .all(|one| one.time >= UNIX_EPOCH + Duration::from_secs(10))
    );
}

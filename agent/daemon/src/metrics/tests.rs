mod bounds;

use std::io::Write;
use std::process::{Command, Stdio};

use sabot_core::plan::Slot;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::delayline::DelayHistogram;
use crate::engine::handle::{Ledger, LedgerDirection, LedgerEntry, Phase, Snapshot, Tally};
use crate::kernel::features::Feature;
use crate::observe::testing::{engine, engine_with_ledgers, fault_view, name, snapshot, target_view};
use crate::targets::kube::KubeStatus;

struct Delays;

impl DelaySource for Delays {
    fn histograms(&self) -> Vec<(Slot, DelayHistogram)> {
        let mut delays = DelayHistogram {
            count: 6,
            sum: Duration::from_millis(400),
            ..DelayHistogram::default()
        };
        // Up to 10 ms, up to 50 ms, and beyond the last bound.
        delays.buckets[12] = 1;
        delays.buckets[14] = 2;
        delays.buckets[25] = 3;
        vec![(Slot(3), delays), (Slot(77), delays)]
    }
}

fn sources(engine: Handle) -> Sources {
    let features = Features {
        kernel_release: "6.18".into(),
        list: vec![feature("bpf", true), feature("tun", false)],
    };
    Sources {
        engine,
        observers: Arc::new(Observers {
            incidents: Some(Box::new(|| [0, 0, 0, 9, 0, 0, 0])),
            ..Observers::default()
        }),
        delays: Some(Arc::new(Delays)),
        subscribers_lost: Box::new(|| 4),
        features: Arc::new(features),
        reconcile: ReconcileDuration::default(),
        costs: None,
        kubernetes: KubeStatus::absent("none is wanted".into()),
        exemplars: None,
    }
}

fn feature(name: &'static str, available: bool) -> Feature {
    Feature {
        name,
        available,
        detail: String::new(),
        consequence: String::new(),
    }
}

fn ledger(fault: &str, target: u32, direction: LedgerDirection, matched: u64) -> LedgerEntry {
    LedgerEntry {
        fault: name(fault),
        target: target_view(target),
        direction,
        ledger: Ledger {
            matched: tally(matched),
            dropped: tally(matched),
            held: tally(2),
            ..Ledger::default()
        },
    }
}

fn tally(packets: u64) -> Tally {
    Tally {
        packets,
        bytes: packets * 100,
    }
}

fn world() -> Snapshot {
    snapshot(
        1,
        [
            fault_view("shop/cut", Phase::Injected, 3, &[1, 2]),
            fault_view("plain", Phase::Pending, 4, &[]),
        ],
    )
}

fn ledgers() -> Vec<LedgerEntry> {
    vec![
        ledger("shop/cut", 1, LedgerDirection::Egress, 10),
        ledger("shop/cut", 2, LedgerDirection::Egress, 32),
        ledger("shop/cut", 2, LedgerDirection::Ingress, 5),
        ledger("shop/forgotten", 2, LedgerDirection::Ingress, 5),
    ]
}

/// The lines of `text` must hold each of `expected`.
fn assert_lines(text: &str, expected: &[&str]) {
    for line in expected {
        assert!(
            text.lines().any(|found| found == *line),
            "`{line}` is not in:\n{text}"
        );
    }
}

#[tokio::test]
async fn every_family_has_the_values_of_its_source() {
    let (engine, _snapshots) = engine_with_ledgers(world(), ledgers());
    let sources = sources(engine);
    sources.reconcile.observe(Duration::from_millis(3));
    let text = Metrics::new("sabot", sources).render(Format::Text).await.unwrap();
    assert_lines(
        &text,
        &[
            r#"sabot_fault_packets_total{namespace="shop",fault="cut",direction="egress",outcome="matched"} 42"#,
            r#"sabot_fault_bytes_total{namespace="shop",fault="cut",direction="egress",outcome="dropped"} 4200"#,
            r#"sabot_fault_packets_total{namespace="shop",fault="cut",direction="ingress",outcome="lost_bound"} 0"#,
            r#"sabot_fault_held_packets{namespace="shop",fault="cut",direction="egress"} 4.0"#,
            r#"sabot_fault_active{namespace="shop",fault="cut",action="partition"} 1.0"#,
            r#"sabot_fault_active{namespace="",fault="plain",action="partition"} 0.0"#,
            r#"sabot_fault_targets{namespace="shop",fault="cut"} 2.0"#,
            r#"sabot_delay_seconds_count{namespace="shop",fault="cut"} 6"#,
            r#"sabot_delay_seconds_sum{namespace="shop",fault="cut"} 0.4"#,
            r#"sabot_delay_seconds_bucket{le="0.05",namespace="shop",fault="cut"} 3"#,
            r#"sabot_delay_seconds_bucket{le="+Inf",namespace="shop",fault="cut"} 6"#,
            r#"sabot_events_lost_total{stream="subscribers"} 4"#,
            r#"sabot_datapath_incidents_total{incident="untagged"} 9"#,
            r#"sabot_kernel_feature{feature="bpf"} 1.0"#,
            r#"sabot_kernel_feature{feature="tun"} 0.0"#,
            "sabot_reconcile_duration_seconds_count 1",
            "# TYPE sabot_fault_packets_total counter",
            "# TYPE sabot_fault_expiry_timestamp_seconds gauge",
            "# TYPE sabot_syscall_duration_seconds histogram",
            "# TYPE sabot_syscall_errors_total counter",
            "# TYPE sabot_build_info gauge",
        ],
    );
    assert!(!text.contains("forgotten"));
    assert_eq!(text.matches("sabot_delay_seconds_count").count(), 1);
}

#[tokio::test]
async fn a_series_goes_with_its_fault() {
    let (engine, snapshots) = engine_with_ledgers(world(), ledgers());
    let metrics = Metrics::new("sabot", sources(engine));
    assert!(
        metrics
            .render(Format::Text)
            .await
            .unwrap()
            .contains(r#"fault="cut""#)
    );
    snapshots.send(Arc::new(snapshot(2, []))).unwrap();
    let text = metrics.render(Format::Text).await.unwrap();
    assert!(!text.contains("fault=\""), "{text}");
    assert_lines(&text, &["# TYPE sabot_fault_packets_total counter"]);
}

#[tokio::test]
async fn an_engine_that_is_gone_costs_its_families_and_is_counted() {
    let (engine, _snapshots) = engine(world());
    let metrics = Metrics::new("sabot", sources(engine));
    let text = metrics.render(Format::Text).await.unwrap();
    assert!(!text.contains("sabot_fault_packets"));
    assert_lines(
        &text,
        &[
            r#"sabot_scrape_errors_total{source="engine"} 1"#,
            r#"sabot_fault_targets{namespace="shop",fault="cut"} 2.0"#,
        ],
    );
}

#[tokio::test]
async fn promtool_accepts_the_text_format() {
    let mut awkward = fault_view("shop/cut", Phase::Injected, 3, &[1]);
    awkward.message = "only for people".into();
    let (engine, _snapshots) = engine_with_ledgers(snapshot(1, [awkward]), ledgers());
    let text = Metrics::new("sabot", sources(engine))
        .render(Format::Text)
        .await
        .unwrap();
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is needed: install Debian's package `prometheus`");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(
        output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(),
        "{}{}\n{text}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}

/// The answer's status line and headers, and its body.
async fn get(address: std::net::SocketAddr, path: &str, headers: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: sabot\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

#[tokio::test]
async fn the_endpoint_answers_by_path_and_accept() {
    let (engine, _snapshots) = engine_with_ledgers(world(), ledgers());
    let state = HttpState {
        metrics: Metrics::new("sabot", sources(engine)),
        live: Probe::default().with("engine", || Ok(())),
        ready: Probe::default()
            .with("engine", || Ok(()))
            .with("runtime", || Err("not connected yet".into())),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, Arc::new(state), async move {
        let _ = stopped.await;
    }));

    let (head, body) = get(address, "/metrics", "").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert_lines(&body, &["# TYPE sabot_events_lost_total counter"]);

    let (head, body) = get(
        address,
        "/metrics",
        "Accept: application/openmetrics-text; version=1.0.0\r\n",
    )
    .await;
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    assert_lines(&body, &["# TYPE sabot_events_lost counter", "# EOF"]);

    let (head, body) = get(address, "/healthz", "").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert_eq!(body, "alive\n");

    let (head, body) = get(address, "/readyz", "").await;
    assert!(head.starts_with("http/1.1 503"), "{head}");
    assert_eq!(body, "not ready\nruntime: not connected yet\n");

    let (head, _) = get(address, "/", "").await;
    assert!(head.starts_with("http/1.1 404"), "{head}");

    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
}

//! The documented bound of series, against pages that have one of everything and all that it can have.

use std::collections::{BTreeMap, BTreeSet};

use sabot_abi::{CONNECT_ERRNOS, CONNECTION_OUTCOMES, DNS_RCODES, Histogram, PEER_CLASSES};

use super::*;
use crate::kernel::cost::Cost;
use crate::observe::cri::containers::ContainerSnapshot;
use crate::observe::cri::{CriSnapshot, OperationStats};
use crate::observe::drops::{DropClass, DropKind, DropSnapshot, Dropped};
use crate::observe::identity::Identity;
use crate::observe::queries::{QuerySnapshot, QueryStats};
use crate::observe::syscalls::{CallStats, SyscallSnapshot};
use crate::observe::tcp::{TcpSnapshot, TcpTotals};

const DOCUMENT: &str = include_str!("../../../../../docs/metrics.md");

/// A documented family: its labels, of what there are so many series, and how many.
#[derive(Debug, PartialEq, Eq)]
struct Bound {
    labels: BTreeSet<String>,
    of_each: String,
    series: usize,
}

fn documented() -> BTreeMap<String, Bound> {
    let rows = DOCUMENT.lines().filter(|line| line.starts_with("| `sabot_"));
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [family, labels, of_each, series] = cells[..] else {
            panic!("four columns: {row}");
        };
        let labels = labels.split(", ").filter(|label| !label.is_empty());
        let bound = Bound {
            labels: labels.map(str::to_owned).collect(),
            of_each: of_each.to_owned(),
            series: series.parse().expect("a number"),
        };
        (family.trim_matches('`').to_owned(), bound)
    })
    .collect()
}

/// The families of a page: the labels of their series, and how many there are.
fn families(page: &str) -> BTreeMap<String, (BTreeSet<String>, usize)> {
    let mut families: BTreeMap<String, (BTreeSet<String>, usize)> = BTreeMap::new();
    let mut current = String::new();
    for line in page.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            current = family.split(' ').next().unwrap_or_default().to_owned();
            families.entry(current.clone()).or_default();
        } else if !line.starts_with('#') && !line.is_empty() {
            let family = families.get_mut(&current).expect("its type comes first");
            family.1 += 1;
            let labels = line
                .split_once('{')
                .and_then(|(_, rest)| rest.rsplit_once('}'))
                .map_or("", |(labels, _)| labels);
            let names = labels.split("\",").filter_map(|label| label.split_once('='));
            family
                .0
                .extend(names.map(|(name, _)| name.to_owned()).filter(|name| name != "le"));
        }
    }
    families
}

fn pod() -> Arc<Identity> {
    Arc::new(Identity::Pod {
        namespace: "shop".into(),
        name: "web".into(),
    })
}

/// A connection of each kind, a failure of each error.
fn tcp() -> TcpSnapshot {
    let errors = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    assert_eq!(errors.len(), CONNECT_ERRNOS.len(), "one of each");
    let totals = TcpTotals {
        connections: [[1; CONNECTION_OUTCOMES]; PEER_CLASSES],
        connect_errors: errors.map(|error| (error, 1)).to_vec(),
        lost: 1,
        retransmits: 1,
        synack_retransmits: 1,
        rtos: 1,
        resets_sent: 1,
        resets_received: 1,
        bytes_sent: 1,
        bytes_received: 1,
        handshakes: Histogram::EMPTY,
        rtts: Histogram::EMPTY,
    };
    TcpSnapshot {
        owners: vec![(pod(), totals)],
        ..TcpSnapshot::default()
    }
}

/// An answer of each code.
fn dns() -> QuerySnapshot {
    const CODES: [&str; DNS_RCODES] = [
        "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p",
    ];
    let stats = QueryStats {
        queries: 1,
        responses: CODES.map(|code| (code, 1)).to_vec(),
        ..QueryStats::default()
    };
    QuerySnapshot {
        owners: [(pod(), stats)].into(),
        unrecorded: [("open", 0), ("unread", 0)],
    }
}

fn drops() -> DropSnapshot {
    let class = DropClass {
        owner: pod(),
        kind: DropKind {
            injected: false,
            egress: true,
            reason: "NO_SOCKET".into(),
        },
    };
    DropSnapshot {
        drops: [(class, Dropped::default())].into(),
        ..DropSnapshot::default()
    }
}

fn syscalls() -> SyscallSnapshot {
    let call = ("kubelet".into(), "openat");
    SyscallSnapshot {
        calls: [(call.clone(), CallStats::default())].into(),
        errors: [((call, "ENOENT"), 1)].into(),
        ..SyscallSnapshot::default()
    }
}

fn cri() -> CriSnapshot {
    let outcomes = crate::observe::cri::OUTCOMES.map(|outcome| (outcome, 1));
    let stats = OperationStats {
        outcomes: outcomes.into(),
        ..OperationStats::default()
    };
    CriSnapshot {
        operations: [("RunPodSandbox", stats)].into(),
        ..CriSnapshot::default()
    }
}

/// One of everything that observers tell of.
fn observed() -> String {
    let mut registry = Registry::with_prefix("sabot");
    syscalls::register(&mut registry, &syscalls());
    tcp::register(&mut registry, &tcp());
    drops::register(&mut registry, &drops());
    dns::register(&mut registry, &dns());
    cri::register(&mut registry, &cri());
    cri::register_containers(&mut registry, &ContainerSnapshot::default());
    let costs = [("sys_enter".to_owned(), Cost::default())].into();
    cost::register_programs(&mut registry, &costs, Duration::from_secs(1));
    cost::register_misses(&mut registry, &costs);
    Format::Text.encode(&[&registry]).unwrap()
}

/// A fault in both directions, and what the daemon says of itself.
async fn page() -> String {
    let fault = snapshot(1, [fault_view("shop/cut", Phase::Injected, 3, &[1])]);
    let both = [LedgerDirection::Egress, LedgerDirection::Ingress];
    let ledgers = both.map(|direction| ledger("shop/cut", 1, direction, 1)).to_vec();
    let (engine, _snapshots) = engine_with_ledgers(fault, ledgers);
    Metrics::new("sabot", sources(engine))
        .render(Format::Text)
        .await
        .unwrap()
}

#[tokio::test]
async fn no_family_has_more_series_than_are_documented() {
    let documented = documented();
    let mut found = families(&page().await);
    for (name, (labels, series)) in families(&observed()) {
        let known = found.entry(name).or_default();
        // The same family is there without an observer, and has fewer of them.
        known.0.extend(labels);
        known.1 = known.1.max(series);
    }
    let names = |families: &BTreeSet<&String>| families.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        names(&found.keys().collect()),
        names(&documented.keys().collect()),
        "families of the page and of docs/metrics.md"
    );
    // What other machines have more of than this test.
    let open = ["sabot_kernel_feature", "sabot_kubernetes_requests_total"];
    let wrong: Vec<_> = found
        .iter()
        .filter(|(name, _)| !open.contains(&name.as_str()))
        .filter(|(name, (labels, series))| {
            let known = &documented[*name];
            // Other tests of this process may have loaded programs.
            let is_exact = known.of_each == "program" || known.series == *series;
            known.labels != *labels || !is_exact
        })
        .map(|(name, found)| format!("{name}: {found:?} on the page, {:?} documented", documented[name]))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

//! Exemplars: beside a bucket of a histogram one call that is counted in it, with what the labels of its series don't say.
//!
//! They come from the events: of slow calls there is one each, and of failed ones at least one a second and kind. Only OpenMetrics has them. The registry's crate
//! offers none to histograms that somebody else counted, so that they are added to what it has written.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::broadcast::error::RecvError;

use crate::engine::handle::{Handle, Phase};
use crate::observe::event::{DnsOutcome, Event, EventHub, EventKind};
use crate::observe::ring::OwnedTask;

/// Series that have one; beyond, the oldest goes.
const MOST: usize = 1024;
/// Characters of all names and values together that OpenMetrics allows.
const ROOM: usize = 128;
/// Outcomes of calls that are in no histogram.
const UNMEASURED: [&str; 2] = ["lost", "disconnected"];

/// The latest exemplar of each series; ends when this is dropped.
pub struct Exemplars {
    latest: Arc<Mutex<Latest>>,
    _task: OwnedTask,
}

#[derive(Clone, Debug, PartialEq)]
struct Exemplar {
    labels: Vec<(&'static str, String)>,
    value: Duration,
    time: SystemTime,
}

/// By series.
#[derive(Debug, Default)]
struct Latest(BTreeMap<String, Exemplar>);

impl Exemplars {
    /// Begins to listen. Must be called within a tokio runtime.
    pub fn follow(hub: &EventHub, engine: Handle) -> Self {
        let latest = Arc::new(Mutex::new(Latest::default()));
        let (noted, mut events) = (Arc::clone(&latest), hub.overhear());
        let task = tokio::spawn(async move {
            loop {
                match events.recv().await {
                    Ok(event) => {
                        if let Some((series, exemplar)) = exemplar(&event, || in_force(&engine)) {
                            lock(&noted).note(series, exemplar);
                        }
                    }
                    // There are newer ones.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        });
        Self {
            latest,
            _task: OwnedTask::new(&task),
        }
    }

    /// The text with exemplars at the buckets that hold them, under the registry's prefix.
    pub(super) fn annotate(&self, prefix: &str, open_metrics: &str) -> String {
        lock(&self.latest).annotate(prefix, open_metrics)
    }
}

fn lock(latest: &Mutex<Latest>) -> MutexGuard<'_, Latest> {
    latest.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The faults in force, by name.
fn in_force(engine: &Handle) -> String {
    let snapshot = engine.snapshot();
    let faults = snapshot.faults.iter();
    let names: Vec<_> = faults
        .filter(|(_, fault)| matches!(fault.phase, Phase::Injected | Phase::Partial))
        .map(|(name, _)| name.to_string())
        .collect();
    names.join(",")
}

/// `None` for an event of nothing that has a histogram.
fn exemplar(event: &Event, faults: impl FnOnce() -> String) -> Option<(String, Exemplar)> {
    let (series, value, own) = match &event.kind {
        EventKind::Syscall(call) => {
            let labels = vec![("process", call.process.as_str()), ("syscall", call.syscall)];
            let series = key("syscall_duration_seconds", labels);
            (series, call.duration, ("pid", call.pid.to_string()))
        }
        EventKind::Cri(call) if !UNMEASURED.contains(&call.outcome) => {
            let series = key(
                "cri_operation_duration_seconds",
                vec![("operation", call.operation)],
            );
            let pod = pod(&call.pod_namespace, &call.pod_name);
            (series, call.duration?, ("pod", pod))
        }
        EventKind::Dns(query) if query.outcome != DnsOutcome::Unanswered => {
            let pod = query.owner.label();
            let labels = vec![("namespace", query.owner.namespace()), ("pod", &pod)];
            let series = key("dns_duration_seconds", labels);
            (series, query.latency, ("name", query.name.clone()))
        }
        _ => return None,
    };
    let container = event.container.as_deref();
    let of_container = container.into_iter().flat_map(|container| {
        let pod = pod(&container.pod_namespace, &container.pod_name);
        [("pod", pod), ("container", container.name.clone())]
    });
    let mut labels = Vec::new();
    let mut room = ROOM;
    for (name, text) in [("fault", faults()), own].into_iter().chain(of_container) {
        let needed = name.len() + text.chars().count();
        let is_new = labels.iter().all(|(known, _)| *known != name);
        // What doesn't fit is left out rather than cut, since it would name something else.
        if is_new && !text.is_empty() && needed <= room {
            room -= needed;
            labels.push((name, text));
        }
    }
    let exemplar = Exemplar {
        labels,
        value,
        time: event.time,
    };
    Some((series, exemplar))
}

/// Empty where it isn't known.
fn pod(namespace: &str, name: &str) -> String {
    if name.is_empty() {
        String::new()
    } else {
        format!("{namespace}/{name}")
    }
}

/// By what a series is told from all others.
fn key(family: &str, mut labels: Vec<(&str, &str)>) -> String {
    labels.sort_unstable();
    let labels = labels.iter().flat_map(|&(name, value)| [name, value]);
    // No name and no value of ours has such a character.
    let parts: Vec<_> = [family].into_iter().chain(labels).collect();
    parts.join("\u{1}")
}

impl Latest {
    fn note(&mut self, series: String, exemplar: Exemplar) {
        self.0.insert(series, exemplar);
        if self.0.len() > MOST
            && let Some((oldest, _)) = self.0.iter().min_by_key(|(_, one)| one.time)
        {
            let oldest = oldest.clone();
            self.0.remove(&oldest);
        }
    }

    fn annotate(&self, prefix: &str, open_metrics: &str) -> String {
        let mut text = String::with_capacity(open_metrics.len());
        let mut before: Option<Bucket> = None;
        for line in open_metrics.lines() {
            text.push_str(line);
            if let Some(bucket) = Bucket::parse(prefix, line) {
                let (floor, below) = match &before {
                    Some(last) if last.series == bucket.series => (last.bound, last.count),
                    _ => (f64::NEG_INFINITY, 0),
                };
                // A bucket counts those before it too: the first that holds the value, if it has one of its own.
                if let Some(one) = self.0.get(&bucket.series)
                    && bucket.count > below
                    && (floor..=bucket.bound).contains(&one.value.as_secs_f64())
                    && one.value.as_secs_f64() != floor
                {
                    text.push_str(&one.text());
                }
                before = Some(bucket);
            }
            text.push('\n');
        }
        text
    }
}

impl Exemplar {
    /// As it stands behind a sample: ` # {LABELS} VALUE TIME`.
    fn text(&self) -> String {
        let labels = self.labels.iter();
        let labels: Vec<_> = labels
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        let time = self.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        format!(
            " # {{{}}} {} {:.3}",
            labels.join(","),
            self.value.as_secs_f64(),
            time.as_secs_f64()
        )
    }
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// A sample of a bucket, as far as exemplars need it.
struct Bucket {
    series: String,
    /// In seconds.
    bound: f64,
    count: u64,
}

impl Bucket {
    /// `None` for all other lines.
    fn parse(prefix: &str, line: &str) -> Option<Self> {
        let (name, rest) = line.split_once('{')?;
        let family = name
            .strip_suffix("_bucket")?
            .strip_prefix(prefix)?
            .strip_prefix('_')?;
        let (labels, count) = rest.rsplit_once("} ")?;
        let labels = parse_labels(labels)?;
        let of_series = labels.iter().filter(|(name, _)| *name != "le");
        let (_, bound) = labels.iter().find(|(name, _)| *name == "le")?;
        let bound = match bound.as_str() {
            "+Inf" => f64::INFINITY,
            bound => bound.parse().ok()?,
        };
        Some(Self {
            series: key(
                family,
                of_series.map(|(name, value)| (*name, value.as_str())).collect(),
            ),
            bound,
            count: count.parse().ok()?,
        })
    }
}

/// Of `name="value",..`, with the values as they were before they were escaped.
fn parse_labels(mut text: &str) -> Option<Vec<(&str, String)>> {
    let mut labels = Vec::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = rest.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match characters.next()? {
                    (_, 'n') => '\n',
                    (_, other) => other,
                }),
                (_, other) => value.push(other),
            }
        };
        labels.push((name, value));
        text = rest[end + 1..].trim_start_matches(',');
    }
    Some(labels)
}

#[cfg(test)]
mod tests;

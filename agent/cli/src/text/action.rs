//! Actions in a few words.

use humantime::format_duration;
use sabot_core::spec::{Action, Corrupt, Delay, Drop, Duplicate, Nth, Offset, RateLimit, Reorder};

/// `delay 100ms ±20ms`, `drop 2% in bursts of 8`.
pub(crate) fn action(action: &Action) -> String {
    let Action {
        partition,
        drop: lost,
        corrupt: changed,
        duplicate: copied,
        reorder: shuffled,
        rate_limit: limited,
        reject,
        reset,
        delay: held,
    } = action;
    let parts = [
        partition.as_ref().map(|_| "partition".to_owned()),
        lost.as_ref().map(drop),
        changed.as_ref().map(corrupt),
        copied.as_ref().map(duplicate),
        shuffled.as_ref().map(reorder),
        limited.as_ref().map(rate_limit),
        reject
            .as_ref()
            .map(|r| format!("reject {}", r.code.as_deref().unwrap_or("port-unreachable"))),
        reset
            .as_ref()
            .map(|r| format!("reset {}", r.to.as_deref().unwrap_or("both"))),
        held.as_ref().map(delay),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    parts.join(" + ")
}

fn drop(drop: &Drop) -> String {
    let models = [
        drop.percent.map(|percent| format!("{percent}%")),
        drop.gilbert_elliott.as_ref().map(|chain| {
            let (good, bad) = (chain.loss_good.unwrap_or(0.0), chain.loss_bad.unwrap_or(100.0));
            format!("Gilbert-Elliott {}:{}:{good}:{bad}", chain.p, chain.r)
        }),
        drop.burst
            .as_ref()
            .map(|burst| format!("{}% in bursts of {}", burst.percent, burst.length)),
        drop.nth.as_ref().map(nth),
        drop.flows
            .as_ref()
            .map(|flows| format!("{}% of flows", flows.percent)),
    ];
    let mut words = vec!["drop".to_owned()];
    words.extend(models.into_iter().flatten());
    words.extend(drop.only.as_ref().map(|only| format!("({only} only)")));
    words.join(" ")
}

fn nth(nth: &Nth) -> String {
    match (nth.every, nth.first) {
        (Some(every), _) => format!("1 in {every}"),
        (None, Some(first)) => format!("first {first} of each connection"),
        (None, None) => String::new(),
    }
}

fn corrupt(corrupt: &Corrupt) -> String {
    let mut text = format!("corrupt {}%", corrupt.percent);
    if let Some(kind) = corrupt.kind.as_deref().filter(|kind| *kind != "payload") {
        text.push_str(&format!(" {kind}"));
    }
    if let Some(bits) = corrupt.bits.filter(|bits| *bits != 1) {
        text.push_str(&format!(", {bits} bits"));
    }
    if let Some(Offset { from, to }) = corrupt.offset {
        let to = to.map(|to| to.to_string()).unwrap_or_default();
        text.push_str(&format!(", bytes {}-{to}", from.unwrap_or(0)));
    }
    text
}

fn duplicate(duplicate: &Duplicate) -> String {
    let mut text = format!("duplicate {}%", duplicate.percent);
    if let Some(copies) = duplicate.copies.filter(|copies| *copies != 1) {
        text.push_str(&format!(" ×{copies}"));
    }
    if let Some(delay) = duplicate.delay.filter(|delay| !delay.is_zero()) {
        text.push_str(&format!(" after {}", format_duration(delay)));
    }
    text
}

fn reorder(reorder: &Reorder) -> String {
    let mut text = format!("reorder {}%", reorder.percent);
    if let Some(gap) = reorder.gap {
        text.push_str(&format!(" by {gap} packets"));
    }
    if let Some(delay) = reorder.delay {
        let word = if reorder.gap.is_some() { "within" } else { "by" };
        text.push_str(&format!(" {word} {}", format_duration(delay)));
    }
    text
}

fn rate_limit(limit: &RateLimit) -> String {
    let mut text = format!("rate limit {}", limit.rate);
    if let Some(burst) = &limit.burst {
        text.push_str(&format!(", burst {burst}"));
    }
    if let Some(bytes) = &limit.queue_bytes {
        text.push_str(&format!(", queue {bytes}"));
    }
    if let Some(time) = limit.queue_time {
        text.push_str(&format!(", queue {}", format_duration(time)));
    }
    text
}

fn delay(delay: &Delay) -> String {
    let mut text = match (delay.quantiles.first(), delay.quantiles.last()) {
        (Some(first), Some(last)) => {
            let (first, last) = (format_duration(*first), format_duration(*last));
            format!("delay {first} to {last} by {} quantiles", delay.quantiles.len())
        }
        _ => format!("delay {}", format_duration(delay.latency.unwrap_or_default())),
    };
    if let Some(jitter) = delay.jitter.filter(|jitter| !jitter.is_zero()) {
        text.push_str(&format!(" ±{}", format_duration(jitter)));
    }
    if let Some(name) = delay.distribution.as_deref().filter(|name| *name != "uniform") {
        text.push_str(&format!(" {name}"));
    }
    if let Some(correlation) = delay.correlation.filter(|correlation| *correlation > 0.0) {
        text.push_str(&format!(", correlation {correlation}%"));
    }
    if delay.allow_reorder == Some(true) {
        text.push_str(", reordering");
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_action_is_told_in_a_few_words() {
        for (yaml, text) in [
            ("partition: {}", "partition"),
            ("drop: {percent: 5}", "drop 5%"),
            ("drop: {percent: 30, only: syn}", "drop 30% (syn only)"),
            ("drop: {only: handshake}", "drop (handshake only)"),
            (
                "drop: {gilbertElliott: {p: 1, r: 25}}",
                "drop Gilbert-Elliott 1:25:0:100",
            ),
            ("drop: {burst: {percent: 2, length: 8}}", "drop 2% in bursts of 8"),
            ("drop: {nth: {every: 10}}", "drop 1 in 10"),
            ("drop: {nth: {first: 3}}", "drop first 3 of each connection"),
            ("drop: {flows: {percent: 20}}", "drop 20% of flows"),
            ("corrupt: {percent: 1}", "corrupt 1%"),
            (
                "corrupt: {percent: 1, kind: wire, bits: 2, offset: {to: 100}}",
                "corrupt 1% wire, 2 bits, bytes 0-100",
            ),
            ("duplicate: {percent: 5}", "duplicate 5%"),
            (
                "duplicate: {percent: 5, copies: 2, delay: 10ms}",
                "duplicate 5% ×2 after 10ms",
            ),
            ("reorder: {percent: 5, gap: 3}", "reorder 5% by 3 packets"),
            (
                "reorder: {percent: 5, gap: 3, delay: 10ms}",
                "reorder 5% by 3 packets within 10ms",
            ),
            ("reorder: {percent: 5, delay: 10ms}", "reorder 5% by 10ms"),
            ("rateLimit: {rate: 10mbit}", "rate limit 10mbit"),
            (
                "rateLimit: {rate: 10mbit, burst: 16KiB, queueBytes: 64KiB}",
                "rate limit 10mbit, burst 16KiB, queue 64KiB",
            ),
            (
                "rateLimit: {rate: 10mbit, queueTime: 1s}",
                "rate limit 10mbit, queue 1s",
            ),
            ("reject: {}", "reject port-unreachable"),
            ("reset: {to: peer}", "reset peer"),
            (
                "delay: {latency: 100ms, jitter: 20ms, distribution: uniform}",
                "delay 100ms ±20ms",
            ),
            (
                "delay: {latency: 9ms, jitter: 2ms, distribution: pareto, correlation: 25, allowReorder: true}",
                "delay 9ms ±2ms pareto, correlation 25%, reordering",
            ),
            (
                "delay: {quantiles: [5ms, 9ms, 40ms]}",
                "delay 5ms to 40ms by 3 quantiles",
            ),
        ] {
            assert_eq!(super::action(&crate::render::fixtures::action(yaml)), text);
        }
    }
}

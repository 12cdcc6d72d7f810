//! Rate limits.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::model::{QueueBound, RateLimit};
use crate::spec;
use crate::units::{bit_rate, byte_count};

use super::super::Limits;
use super::super::report::{Report, duration_text};

/// Bits per second.
pub(in crate::validate) const RATES: RangeInclusive<u64> = 1_000..=100_000_000_000;
/// Of Ethernet, with its header: with less, a full one could never leave.
const PACKET: u32 = 1514;
const MAX_BURST: u32 = 1 << 30;
const DEFAULT_QUEUE: Duration = Duration::from_millis(100);

/// `None` only when a violation was reported.
pub(super) fn check(report: &mut Report, limit: &spec::RateLimit, limits: &Limits) -> Option<RateLimit> {
    let rate = bit_rate(&limit.rate).filter(|rate| RATES.contains(rate));
    if rate.is_none() {
        let allowed = "a bit rate from 1kbit to 100gbit, as 10mbit, 1.5gbit, 800kbit or 56000";
        report.add("spec.action.rateLimit.rate", &limit.rate, allowed);
    }
    let burst = match limit.burst.as_deref() {
        None => rate.map(default_burst),
        Some(text) => burst(report, text),
    };
    let queue = queue(report, limit, rate, limits);
    Some(RateLimit {
        rate: rate?,
        burst: burst?,
        queue: queue?,
    })
}

/// What the rate sends in a millisecond, and at least two packets.
fn default_burst(rate: u64) -> u32 {
    u32::try_from(rate / 8 / 1000).map_or(MAX_BURST, |bytes| bytes.max(2 * PACKET))
}

fn burst(report: &mut Report, text: &str) -> Option<u32> {
    let bytes = byte_count(text).and_then(|bytes| u32::try_from(bytes).ok());
    let burst = bytes.filter(|bytes| (PACKET..=MAX_BURST).contains(bytes));
    if burst.is_none() {
        let allowed = format!("bytes from {PACKET}, one packet, to 1GiB, as 16KiB, 32kB or 3028");
        report.add("spec.action.rateLimit.burst", text, allowed);
    }
    burst
}

fn queue(
    report: &mut Report,
    limit: &spec::RateLimit,
    rate: Option<u64>,
    limits: &Limits,
) -> Option<QueueBound> {
    let longest = duration_text(limits.max_latency);
    match (limit.queue_bytes.as_deref(), limit.queue_time) {
        (Some(_), Some(_)) => {
            let field = "spec.action.rateLimit";
            report.add(
                field,
                "queueBytes, queueTime",
                "at most one of queueBytes, queueTime",
            );
            None
        }
        (Some(text), None) => {
            // At most what the rate sends in the longest time that a packet may be held.
            let most = rate
                .map(|rate| u128::from(rate).saturating_mul(limits.max_latency.as_nanos()) / 8_000_000_000);
            let queue = byte_count(text).filter(|bytes| {
                *bytes >= u64::from(PACKET) && most.is_none_or(|most| u128::from(*bytes) <= most)
            });
            if queue.is_none() {
                let most = most.map(|most| format!(" to {most}, which wait for {longest} at this rate"));
                let allowed = format!(
                    "bytes from {PACKET}, one packet,{}, as 256KiB or 100kB",
                    most.unwrap_or_else(|| " on".to_owned())
                );
                report.add("spec.action.rateLimit.queueBytes", text, allowed);
            }
            queue.map(QueueBound::Bytes)
        }
        (None, time) => {
            let time = time.unwrap_or(DEFAULT_QUEUE.min(limits.max_latency));
            if time > limits.max_latency {
                let allowed = format!("a duration up to {longest}");
                report.add("spec.action.rateLimit.queueTime", duration_text(time), allowed);
            }
            Some(QueueBound::Time(time))
        }
    }
}

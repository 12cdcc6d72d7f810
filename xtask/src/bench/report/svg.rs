//! Bars with their bounds, as SVG that stands in the page itself.

use std::fmt::Write;
use std::iter;

use super::figure::{Figure, Kind};
use super::html::escape;
use super::number;
use crate::bench::measure::Spread;

const WIDTH: f64 = 940.0;
/// Where bars begin, and how long the longest one is.
const LEFT: f64 = 330.0;
const PLOT: f64 = 500.0;
const BAR: f64 = 13.0;
const GAP: f64 = 9.0;
const AXIS: f64 = 24.0;
/// Letters of a case's name beside its bar; the whole name is shown on pointing at it.
const LETTERS: usize = 52;
/// Values that are further apart than this are shown on a logarithmic axis.
const FAR_APART: f64 = 40.0;

/// Where on the axis a value is.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Scale {
    is_logarithmic: bool,
    low: f64,
    high: f64,
}

impl Scale {
    /// From zero to the largest value; by powers of ten when they are far apart and none is zero or below.
    fn of(spreads: &[Spread]) -> Self {
        let finite = |value: &f64| value.is_finite();
        let medians = spreads.iter().map(|spread| spread.p50).filter(finite);
        let least = medians.clone().fold(f64::INFINITY, f64::min);
        let most = spreads.iter().map(|spread| spread.max).filter(finite);
        let most = most.fold(0.0, f64::max);
        if least > 0.0 && least.is_finite() && most / least > FAR_APART {
            return Self {
                is_logarithmic: true,
                low: 10_f64.powf(least.log10().floor()),
                high: 10_f64.powf(most.log10().ceil()),
            };
        }
        let step = step(most);
        Self {
            is_logarithmic: false,
            low: 0.0,
            high: (most / step).ceil().max(1.0) * step,
        }
    }

    /// A share of the axis; values outside of it are at its ends.
    fn share(self, value: f64) -> f64 {
        let share = if self.is_logarithmic {
            (value.max(self.low) / self.low).log10() / (self.high / self.low).log10()
        } else {
            value / self.high
        };
        if share.is_nan() {
            0.0
        } else {
            share.clamp(0.0, 1.0)
        }
    }

    fn x(self, value: f64) -> f64 {
        LEFT + PLOT * self.share(value)
    }

    fn ticks(self) -> Vec<f64> {
        if self.is_logarithmic {
            let (first, last) = (self.low.log10().round(), self.high.log10().round());
            let decades = (last - first) as i32;
            return (0..=decades)
                .map(|decade| 10_f64.powi(first as i32 + decade))
                .collect();
        }
        let step = step(self.high);
        let count = (self.high / step).round() as i32;
        (0..=count).map(|tick| f64::from(tick) * step).collect()
    }
}

/// 1, 2 or 5 times a power of ten, about five of which reach the value.
fn step(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let rough = value / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let times = [1.0, 2.0, 5.0, 10.0];
    times
        .into_iter()
        .map(|times| times * power)
        .find(|step| *step >= rough * 0.999)
        .unwrap_or(power)
}

/// One quantity of several cases: medians as bars, the bounds as whiskers, what stands beside them below each.
pub(super) fn chart(cases: &[(&str, &Figure)]) -> String {
    let Some((_, first)) = cases.first() else {
        return String::new();
    };
    let spreads: Vec<Spread> = cases
        .iter()
        .flat_map(|(_, figure)| {
            let baselines = figure.baselines.iter().map(|baseline| baseline.spread);
            iter::once(figure.ours).chain(baselines)
        })
        .collect();
    let scale = Scale::of(&spreads);
    let mut bars = String::new();
    let mut top = AXIS;
    for (name, figure) in cases {
        let height = (1 + figure.baselines.len()) as f64 * BAR;
        label(&mut bars, name, top + height / 2.0);
        bar(&mut bars, scale, figure.ours, "ours", "ours", top);
        for (place, baseline) in figure.baselines.iter().enumerate() {
            let class = match (baseline.kind, place) {
                (Kind::Control, _) => "control",
                (Kind::Peer, 0) => "peer",
                (Kind::Peer, _) => "second",
            };
            let top = top + (1 + place) as f64 * BAR;
            bar(&mut bars, scale, baseline.spread, class, &baseline.name, top);
        }
        top += height + GAP;
    }
    let title = format!("{}, {}", first.name, first.unit);
    let title = escape(title.trim_end_matches([',', ' ']));
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {top}\" role=\"img\" aria-label=\"{title}\">\n<title>{title}</title>\n{}{bars}</svg>\n",
        axis(scale, top)
    )
}

fn axis(scale: Scale, bottom: f64) -> String {
    let mut lines = String::new();
    for tick in scale.ticks() {
        let x = scale.x(tick);
        let _ = writeln!(
            lines,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{bottom:.1}\"/>\
             <text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
            AXIS - 6.0,
            AXIS - 10.0,
            tick_label(tick)
        );
    }
    lines
}

/// A round number without the zeros behind its point.
fn tick_label(tick: f64) -> String {
    if tick >= 1000.0 && tick.rem_euclid(1000.0) == 0.0 {
        return format!("{}k", tick / 1000.0);
    }
    let text = format!("{tick:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn label(out: &mut String, name: &str, middle: f64) {
    let short: String = if name.chars().count() > LETTERS {
        name.chars().take(LETTERS - 1).chain(['…']).collect()
    } else {
        name.to_owned()
    };
    let _ = writeln!(
        out,
        "<text class=\"case\" x=\"{:.1}\" y=\"{:.1}\"><title>{}</title>{}</text>",
        LEFT - 8.0,
        middle + 4.0,
        escape(name),
        escape(&short)
    );
}

fn bar(out: &mut String, scale: Scale, spread: Spread, class: &str, whose: &str, top: f64) {
    let (from, to) = (scale.x(scale.low), scale.x(spread.p50));
    let (min, max) = (scale.x(spread.min), scale.x(spread.max));
    let middle = top + BAR / 2.0;
    let values = format!(
        "{whose}: median {}, {} to {}, of {}",
        number(spread.p50),
        number(spread.min),
        number(spread.max),
        spread.repetitions
    );
    let _ = writeln!(
        out,
        "<g class=\"{class}\"><title>{}</title>\
         <rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>\
         <line x1=\"{min:.1}\" x2=\"{max:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\">{}</text></g>",
        escape(&values),
        top + 1.0,
        to - from,
        BAR - 2.0,
        max.max(to) + 5.0,
        middle + 4.0,
        number(spread.p50)
    );
}

#[cfg(test)]
mod tests {
    use super::super::sample::spread;
    use super::*;

    #[test]
    fn axes_begin_at_zero_unless_values_are_far_apart() {
        let near = Scale::of(&[spread(&[2.0, 3.0]), spread(&[41.0])]);
        assert_eq!((near.is_logarithmic, near.low, near.high), (false, 0.0, 50.0));
        assert_eq!(near.ticks(), [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]);
        assert_eq!(near.x(25.0), LEFT + PLOT / 2.0);
        let far = Scale::of(&[spread(&[0.6]), spread(&[760.0])]);
        assert_eq!((far.is_logarithmic, far.low, far.high), (true, 0.1, 1000.0));
        assert_eq!(far.ticks().len(), 5);
        assert!((far.x(10.0) - (LEFT + PLOT / 2.0)).abs() < 1e-6);
        let with_zero = Scale::of(&[spread(&[0.0]), spread(&[760.0])]);
        assert!(!with_zero.is_logarithmic);
    }

    #[test]
    fn strange_values_stay_on_the_axis() {
        for values in [
            &[0.0][..],
            &[-4.0, -3.0],
            &[f64::NAN],
            &[f64::INFINITY],
            &[1e-9, 1e9],
        ] {
            let one = spread(values);
            let scale = Scale::of(&[one]);
            for value in [one.min, one.p50, one.max] {
                let x = scale.x(value);
                assert!((LEFT..=LEFT + PLOT).contains(&x), "{values:?}: {x}");
            }
            assert!(scale.ticks().len() < 30, "{values:?}");
        }
    }

    #[test]
    fn bars_are_as_long_as_their_medians() {
        let ours = Figure::new("latency", "ms", spread(&[5.0, 10.0, 20.0])).beside("a < b", spread(&[40.0]));
        let svg = chart(&[("a & b", &ours)]);
        // 10 and 40 on an axis that ends at 40.
        assert!(svg.contains("width=\"125.0\""), "{svg}");
        assert!(svg.contains("width=\"500.0\""), "{svg}");
        assert!(svg.contains("<line x1=\"392.5\" x2=\"580.0\""), "{svg}");
        assert!(
            svg.contains("a &amp; b") && svg.contains("a &lt; b: median 40.0"),
            "{svg}"
        );
        assert_eq!(chart(&[]), "");
    }

    #[test]
    fn ticks_are_short() {
        let labels = [0.0, 0.001, 0.5, 20.0, 1000.0, 2500.0, 100_000.0].map(tick_label);
        assert_eq!(labels, ["0", "0.001", "0.5", "20", "1k", "2500", "100k"]);
    }
}

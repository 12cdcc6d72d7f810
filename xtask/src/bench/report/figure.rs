//! One figure: what was measured of ours, what beside it, and what is asked of it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::bench::measure::Spread;

/// A quantity of one case, in its unit.
#[derive(Clone, Debug)]
pub(in crate::bench) struct Figure {
    pub(super) name: Cow<'static, str>,
    pub(super) unit: Cow<'static, str>,
    pub(super) better: Better,
    pub(super) ours: Spread,
    /// In the order in which they were named; goals and the advantage are about the first one.
    pub(super) baselines: Vec<Baseline>,
    pub(super) goals: Vec<Goal>,
}

/// Which of two values one would rather have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Better {
    Less,
    More,
}

/// What the same run measured beside ours.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Baseline {
    pub(super) name: String,
    pub(super) kind: Kind,
    #[serde(flatten)]
    pub(super) spread: Spread,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// Another tool that does the same.
    Peer,
    /// The same without ours.
    Control,
}

/// Which value of a figure a goal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::bench) enum Statistic {
    P50,
    P99,
    Max,
    /// How many times better than the first baseline.
    Advantage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Relation {
    AtMost,
    AtLeast,
}

/// What is asked of a figure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Goal {
    pub(super) of: Statistic,
    pub(super) relation: Relation,
    pub(super) bound: f64,
    /// `None`: the baseline or ours is zero or below, and no ratio says anything.
    pub(super) measured: Option<f64>,
    pub(super) met: bool,
}

impl Figure {
    /// A figure of which less is better.
    pub(in crate::bench) fn new(
        name: impl Into<Cow<'static, str>>,
        unit: impl Into<Cow<'static, str>>,
        ours: Spread,
    ) -> Self {
        Self {
            name: name.into(),
            unit: unit.into(),
            better: Better::Less,
            ours,
            baselines: Vec::new(),
            goals: Vec::new(),
        }
    }

    pub(in crate::bench) fn more_is_better(mut self) -> Self {
        self.better = Better::More;
        self
    }

    /// What another tool took for the same.
    pub(in crate::bench) fn beside(self, peer: &str, spread: Spread) -> Self {
        self.with(peer, Kind::Peer, spread)
    }

    /// What it is without ours.
    pub(in crate::bench) fn against(self, control: &str, spread: Spread) -> Self {
        self.with(control, Kind::Control, spread)
    }

    fn with(mut self, name: &str, kind: Kind, spread: Spread) -> Self {
        self.baselines.push(Baseline {
            name: name.to_owned(),
            kind,
            spread,
        });
        self
    }

    pub(in crate::bench) fn at_most(self, of: Statistic, bound: f64) -> Self {
        self.goal(of, Relation::AtMost, bound)
    }

    pub(in crate::bench) fn at_least(self, of: Statistic, bound: f64) -> Self {
        self.goal(of, Relation::AtLeast, bound)
    }

    fn goal(mut self, of: Statistic, relation: Relation, bound: f64) -> Self {
        let measured = match of {
            Statistic::P50 => Some(self.ours.p50),
            Statistic::P99 => Some(self.ours.p99),
            Statistic::Max => Some(self.ours.max),
            Statistic::Advantage => self.advantage(),
        };
        let measured = measured.filter(|value| !value.is_nan());
        let met = match (relation, measured) {
            (Relation::AtMost, Some(value)) => value <= bound,
            (Relation::AtLeast, Some(value)) => value >= bound,
            // Without a ratio the order of the two still says who is better.
            (_, None) => {
                let first = self.baselines.first();
                let is_about_order = of == Statistic::Advantage && bound <= 1.0;
                is_about_order && first.is_some_and(|first| self.is_at_least_equal(first))
            }
        };
        self.goals.push(Goal {
            of,
            relation,
            bound,
            measured,
            met,
        });
        self
    }

    /// The same over the first baseline; `None` without one.
    fn advantage(&self) -> Option<f64> {
        self.advantage_over(self.baselines.first()?)
    }

    /// How many times better our median is than the baseline's; `None` when one of them isn't above zero.
    pub(super) fn advantage_over(&self, baseline: &Baseline) -> Option<f64> {
        let theirs = baseline.spread.p50;
        let ours = self.ours.p50;
        if !(ours > 0.0 && theirs > 0.0) {
            return None;
        }
        Some(match self.better {
            Better::Less => theirs / ours,
            Better::More => ours / theirs,
        })
    }

    /// The other tools whose medians are better than ours.
    pub(super) fn ahead(&self) -> impl Iterator<Item = &Baseline> {
        let peers = self
            .baselines
            .iter()
            .filter(|baseline| baseline.kind == Kind::Peer);
        peers.filter(|peer| !self.is_at_least_equal(peer))
    }

    fn is_at_least_equal(&self, baseline: &Baseline) -> bool {
        let theirs = baseline.spread.p50;
        match self.better {
            Better::Less => self.ours.p50 <= theirs,
            Better::More => self.ours.p50 >= theirs,
        }
    }
}

impl Statistic {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::P50 => "median",
            Self::P99 => "p99",
            Self::Max => "max",
            Self::Advantage => "times better",
        }
    }
}

impl Goal {
    /// As people write it: `<= 2 ms`.
    pub(super) fn asked(&self, unit: &str) -> String {
        let sign = match self.relation {
            Relation::AtMost => "<=",
            Relation::AtLeast => ">=",
        };
        let unit = if self.of == Statistic::Advantage {
            "times"
        } else {
            unit
        };
        format!("{sign} {} {unit}", self.bound).trim_end().to_owned()
    }

    pub(super) fn verdict(&self) -> &'static str {
        if self.met { "met" } else { "NOT MET" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::measure::single;

    fn latency(ours: f64, theirs: f64) -> Figure {
        Figure::new("latency", "ms", single(ours)).beside("ipset", single(theirs))
    }

    #[test]
    fn the_advantage_follows_what_is_better() {
        let quick = latency(2.0, 30.0).at_least(Statistic::Advantage, 10.0);
        assert_eq!(quick.advantage(), Some(15.0));
        assert!(quick.goals[0].met && quick.ahead().next().is_none());
        let slow = latency(30.0, 2.0).at_least(Statistic::Advantage, 1.0);
        assert!(!slow.goals[0].met && slow.ahead().count() == 1);
        let rate = Figure::new("throughput", "Gbit/s", single(9.0)).more_is_better();
        assert_eq!(rate.clone().beside("netem", single(10.0)).advantage(), Some(0.9));
        assert_eq!(rate.clone().beside("netem", single(10.0)).ahead().count(), 1);
        assert!(
            rate.against("no fault", single(10.0)).ahead().next().is_none(),
            "a control is no peer"
        );
    }

    #[test]
    fn what_has_no_ratio_is_still_ordered() {
        let ours = latency(-3.0, 40.0).at_least(Statistic::Advantage, 1.0);
        assert_eq!(ours.advantage(), None);
        assert!(ours.goals[0].met && ours.ahead().next().is_none());
        let ten = latency(-3.0, 40.0).at_least(Statistic::Advantage, 10.0);
        assert!(!ten.goals[0].met, "ten times isn't shown by an order");
        let theirs = latency(40.0, -3.0).at_least(Statistic::Advantage, 1.0);
        assert!(!theirs.goals[0].met && theirs.ahead().count() == 1);
    }

    #[test]
    fn goals_are_about_the_first_of_several_baselines() {
        let figure = latency(2.0, 30.0).beside("EDT", single(1.0));
        let figure = figure.at_least(Statistic::Advantage, 10.0);
        assert!(figure.goals[0].met);
        let ahead: Vec<&str> = figure.ahead().map(|peer| peer.name.as_str()).collect();
        assert_eq!(ahead, ["EDT"]);
        let advantages = figure
            .baselines
            .iter()
            .map(|baseline| figure.advantage_over(baseline));
        assert_eq!(advantages.collect::<Vec<_>>(), [Some(15.0), Some(0.5)]);
    }

    #[test]
    fn goals_are_about_the_statistic_that_they_name() {
        let mut samples = crate::bench::measure::Samples::default();
        samples.push(1.0);
        samples.push(1.0);
        samples.push(9.0);
        let figure = Figure::new("latency", "ms", samples.spread())
            .at_most(Statistic::P50, 2.0)
            .at_most(Statistic::P99, 2.0)
            .at_least(Statistic::Max, 9.0);
        let met: Vec<bool> = figure.goals.iter().map(|goal| goal.met).collect();
        assert_eq!(met, [true, false, true]);
        assert_eq!(figure.goals[1].asked("ms"), "<= 2 ms");
        let nothing = Figure::new("fit", "", single(f64::NAN)).at_least(Statistic::P50, 0.5);
        assert!(!nothing.goals[0].met);
    }
}

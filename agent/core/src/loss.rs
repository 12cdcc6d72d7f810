//! Loss models as values: what share of the packets a model loses, and in bursts of which lengths.

/// A Markov chain of a good and a bad state, each with its own loss: the Gilbert-Elliott model. All four are shares from
/// 0 to 1, per packet.
///
/// A packet is lost or not by the state that it meets, and then the state changes: from good to bad with `p`, from bad to
/// good with `r`. A stream starts in the good state. With a loss of 0 and 1 in the two states (the Gilbert model) a burst
/// is a stay in the bad state: its length is geometric with a mean of `1/r`, and the stationary loss is `p / (p + r)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GilbertElliott {
    pub p: f64,
    pub r: f64,
    pub loss_good: f64,
    pub loss_bad: f64,
}

impl GilbertElliott {
    /// Each packet is lost with the same probability, whatever became of the others.
    pub fn independent(loss: f64) -> Self {
        Self {
            p: 0.0,
            r: 1.0,
            loss_good: loss,
            loss_bad: loss,
        }
    }

    /// The Gilbert model with this stationary loss and this mean burst length, which is 1 or more. `None` where it
    /// doesn't exist: after a burst of mean `length` comes at least one packet that isn't lost, so that the loss is at
    /// most `length / (length + 1)`.
    pub fn of_burst(loss: f64, length: f64) -> Option<Self> {
        if !(0.0..1.0).contains(&loss) || !(1.0..f64::INFINITY).contains(&length) {
            return None;
        }
        let r = 1.0 / length;
        let p = r * loss / (1.0 - loss);
        (p <= 1.0).then_some(Self {
            p,
            r,
            loss_good: 0.0,
            loss_bad: 1.0,
        })
    }

    /// The share of packets that meet the bad state in the long run, `p / (p + r)`; none where the state never changes.
    pub fn stationary_bad(&self) -> f64 {
        if self.p == 0.0 {
            return 0.0;
        }
        self.p / (self.p + self.r)
    }

    /// The share of packets that are lost in the long run.
    pub fn stationary_loss(&self) -> f64 {
        let bad = self.stationary_bad();
        (1.0 - bad) * self.loss_good + bad * self.loss_bad
    }

    /// The mean number of packets that are lost in a row. `None` where none is lost, or where a burst may never end.
    pub fn mean_burst_length(&self) -> Option<f64> {
        // In the long run there are as many bursts as there are packets that are lost right after one that wasn't.
        let bursts: f64 = self.after_delivery().into_iter().sum();
        let length = self.stationary_loss() / bursts;
        (length.is_finite() && length > 0.0).then_some(length)
    }

    /// The share of bursts of each length, 1, 2 and so on without end. All shares are 0 where there are no bursts.
    pub fn burst_lengths(&self) -> impl Iterator<Item = f64> + use<> {
        let model = *self;
        let first = self.after_delivery();
        let bursts: f64 = first.iter().sum();
        let mut lost = if bursts > 0.0 {
            first.map(|share| share / bursts)
        } else {
            [0.0; 2]
        };
        std::iter::repeat_with(move || {
            let next = model.lost(model.transition(lost));
            let ended = lost.iter().sum::<f64>() - next.iter().sum::<f64>();
            lost = next;
            ended
        })
    }

    /// The probability, by state, that a packet is lost and the one before it wasn't.
    fn after_delivery(&self) -> [f64; 2] {
        let bad = self.stationary_bad();
        let delivered = [(1.0 - bad) * (1.0 - self.loss_good), bad * (1.0 - self.loss_bad)];
        self.lost(self.transition(delivered))
    }

    /// One step of the chain, from probabilities of the good and the bad state.
    fn transition(&self, [good, bad]: [f64; 2]) -> [f64; 2] {
        [
            good * (1.0 - self.p) + bad * self.r,
            good * self.p + bad * (1.0 - self.r),
        ]
    }

    fn lost(&self, [good, bad]: [f64; 2]) -> [f64; 2] {
        [good * self.loss_good, bad * self.loss_bad]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn near(one: f64, other: f64) -> bool {
        (one - other).abs() <= 1e-9 * other.abs().max(1.0)
    }

    #[test]
    fn the_gilbert_model_has_its_closed_form() {
        let model = GilbertElliott {
            p: 0.01,
            r: 0.25,
            loss_good: 0.0,
            loss_bad: 1.0,
        };
        assert!(near(model.stationary_loss(), 0.01 / 0.26));
        assert!(model.mean_burst_length().is_some_and(|length| near(length, 4.0)));
        for (length, share) in model.burst_lengths().take(50).enumerate() {
            assert!(near(share, 0.25 * 0.75f64.powi(length as i32)));
        }
    }

    #[test]
    fn independent_losses_have_geometric_bursts() {
        let model = GilbertElliott::independent(0.3);
        assert!(near(model.stationary_loss(), 0.3));
        assert!(
            model
                .mean_burst_length()
                .is_some_and(|length| near(length, 1.0 / 0.7))
        );
        assert!(
            model
                .burst_lengths()
                .nth(2)
                .is_some_and(|share| near(share, 0.7 * 0.09))
        );
    }

    #[test]
    fn a_burst_model_has_the_asked_loss_and_length() {
        let model = GilbertElliott::of_burst(0.02, 8.0).expect("it exists");
        assert!(near(model.r, 0.125) && near(model.p, 0.125 * 0.02 / 0.98));
        assert!(near(model.stationary_loss(), 0.02));
        assert!(model.mean_burst_length().is_some_and(|length| near(length, 8.0)));
    }

    #[test]
    fn a_burst_model_that_cannot_be_is_none() {
        assert!(GilbertElliott::of_burst(0.5, 1.0).is_some());
        assert!(GilbertElliott::of_burst(0.0, 3.0).is_some());
        let impossible = [
            (0.51, 1.0),
            (1.0, 8.0),
            (0.1, 0.9),
            (-0.1, 2.0),
            (f64::NAN, 2.0),
            (0.1, f64::NAN),
        ];
        for (loss, length) in impossible {
            assert_eq!(GilbertElliott::of_burst(loss, length), None, "{loss} {length}");
        }
    }

    #[test]
    fn chains_that_rest_have_no_bursts_to_speak_of() {
        let none = GilbertElliott::independent(0.0);
        assert_eq!((none.stationary_loss(), none.mean_burst_length()), (0.0, None));
        assert_eq!(none.burst_lengths().next(), Some(0.0));
        let all = GilbertElliott::independent(1.0);
        assert_eq!((all.stationary_loss(), all.mean_burst_length()), (1.0, None));
        let at_rest = GilbertElliott {
            p: 0.0,
            r: 0.0,
            loss_good: 0.1,
            loss_bad: 1.0,
        };
        assert_eq!(at_rest.stationary_loss(), 0.1);
        let never_back = GilbertElliott { p: 0.1, ..at_rest };
        assert_eq!(
            (never_back.stationary_loss(), never_back.mean_burst_length()),
            (1.0, None)
        );
    }

    /// The model played packet by packet.
    #[test]
    fn a_played_chain_has_the_calculated_loss_and_bursts() {
        const PACKETS: usize = 1_000_000;
        let model = GilbertElliott {
            p: 0.05,
            r: 0.2,
            loss_good: 0.02,
            loss_bad: 0.6,
        };
        let mut state = 88_172_645_463_325_252u64;
        let mut chance = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        let (mut bad, mut run) = (false, 0);
        let mut bursts = Vec::new();
        for _ in 0..PACKETS {
            let loss = if bad { model.loss_bad } else { model.loss_good };
            if chance() < loss {
                run += 1;
            } else if run > 0 {
                bursts.push(std::mem::take(&mut run));
            }
            bad = if bad {
                chance() >= model.r
            } else {
                chance() < model.p
            };
        }
        let lost: usize = bursts.iter().sum();
        assert!((lost as f64 / PACKETS as f64 - model.stationary_loss()).abs() < 0.002);
        let mean = lost as f64 / bursts.len() as f64;
        let expected = model.mean_burst_length().expect("there are bursts");
        assert!((mean - expected).abs() < 0.02, "{mean} instead of {expected}");
        for (length, share) in (1..).zip(model.burst_lengths().take(6)) {
            let got = bursts.iter().filter(|burst| **burst == length).count() as f64 / bursts.len() as f64;
            assert!(
                (got - share).abs() < 0.008,
                "{got} instead of {share} of length {length}"
            );
        }
    }

    proptest! {
        #[test]
        fn burst_lengths_add_up_to_their_mean(p in 0.01..1.0, r in 0.05..1.0, good in 0.0..0.9, bad in 0.0..0.95) {
            let model = GilbertElliott { p, r, loss_good: good, loss_bad: bad };
            let lengths: Vec<f64> = model.burst_lengths().take(2_000).collect();
            prop_assert!(lengths.iter().all(|share| *share >= -1e-12));
            if let Some(mean) = model.mean_burst_length() {
                let total: f64 = lengths.iter().sum();
                let weighted: f64 = (1..).zip(&lengths).map(|(length, share)| f64::from(length) * share).sum();
                prop_assert!((total - 1.0).abs() < 1e-6, "{total}");
                prop_assert!((weighted - mean).abs() < 1e-4 * mean, "{weighted} instead of {mean}");
            }
        }
    }
}

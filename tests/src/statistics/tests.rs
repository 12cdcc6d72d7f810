use super::*;

/// Whole numbers of a generator whose quality is known, below `end`.
fn numbers(count: usize, end: u64) -> Vec<u64> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    (0..count)
        .map(|_| {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            let number = state.wrapping_mul(0x2545_f491_4f6c_dd1d);
            ((u128::from(number) * u128::from(end)) >> 64) as u64
        })
        .collect()
}

#[test]
fn the_distance_is_the_greatest_difference_on_either_side() {
    // Uniform on 0..10.
    let cdf = |x: u64| ((x + 1) as f64 / 10.0).min(1.0);
    let near = |one: f64, other: f64| (one - other).abs() < 1e-12;
    assert!(near(ks_distance(&(0..10).collect::<Vec<_>>(), cdf), 0.0));
    // Of 0..=3 the sample has none: the difference is greatest just below 4.
    assert!(near(ks_distance(&[4, 5, 6, 7, 8, 9], cdf), 0.4));
    // Everything is at or below 5.
    assert!(near(ks_distance(&[5, 0, 3, 1], cdf), 0.4));
    assert!(near(ks_distance(&[50], cdf), 1.0));
}

#[test]
fn an_atom_is_no_distance() {
    // Half of the values are 0, the others uniform on 1..=100.
    let cdf = |x: u64| (0.5 + x as f64 / 200.0).min(1.0);
    let sample: Vec<u64> = (0..100).map(|_| 0).chain(1..=100).collect();
    assert!(ks_distance(&sample, cdf) < 1e-12);
    assert!(ks_distance(&sample[..150], cdf) > 0.1);
}

#[test]
fn uniform_numbers_are_near_and_others_are_not() {
    let cdf = |x: u64| ((x + 1) as f64 / 1e9).min(1.0);
    let uniform = numbers(20_000, 1_000_000_000);
    let distance = ks_distance(&uniform, cdf);
    assert!(ks_probability(distance, uniform.len()) > 0.01, "{distance}");
    let shrunk: Vec<u64> = uniform.iter().map(|x| x / 100 * 97).collect();
    let distance = ks_distance(&shrunk, cdf);
    assert!((distance - 0.03).abs() < 0.01, "{distance}");
    assert!(ks_probability(distance, shrunk.len()) < 1e-6);
}

/// Smirnov's table of the limit, and the published critical values of a small sample.
#[test]
fn the_probability_of_a_distance_has_its_published_values() {
    let limit = [
        (0.828, 0.4998),
        (1.224, 0.1),
        (1.358, 0.05),
        (1.628, 0.01),
        (1.949, 0.001),
    ];
    for (x, expected) in limit {
        let count = 100_000_000;
        let got = ks_probability(x / 1e4, count);
        assert!(
            (got - expected).abs() < 0.01 * expected,
            "{got} instead of {expected} at {x}"
        );
    }
    assert!((ks_probability(0.294_08, 20) - 0.05).abs() < 0.002);
    assert_eq!(ks_probability(0.0, 100), 1.0);
}

/// Critical values from the published tables.
#[test]
fn the_probability_of_a_chi_square_has_its_published_values() {
    let published = [
        (1, 3.841_459, 0.05),
        (1, 10.827_566, 0.001),
        (2, 5.991_465, 0.05),
        (5, 1.145_476, 0.95),
        (10, 18.307_038, 0.05),
        (10, 29.588_298, 0.001),
        (30, 50.892_181, 0.01),
        (100, 124.342_113, 0.05),
        (100, 149.449_253, 0.001),
    ];
    for (degrees, statistic, expected) in published {
        let got = ChiSquare { statistic, degrees }.probability();
        assert!(
            (got / expected - 1.0).abs() < 1e-5,
            "{got} instead of {expected} of {degrees}"
        );
    }
}

/// Mendel's peas: 315, 108, 101 and 32 against 9:3:3:1, a statistic of 0.470.
#[test]
fn the_statistic_of_mendels_peas_is_the_published_one() {
    let expected = [9.0, 3.0, 3.0, 1.0].map(|part| part / 16.0 * 556.0);
    let peas = ChiSquare::of(&[315, 108, 101, 32], &expected);
    assert_eq!(peas.degrees, 3);
    assert!((peas.statistic - 0.470_024).abs() < 1e-6, "{peas:?}");
    assert!(
        (peas.probability() - 0.925_426).abs() < 1e-4,
        "{}",
        peas.probability()
    );
}

#[test]
fn sigmas_count_standard_deviations() {
    let near = |one: f64, other: f64| (one - other).abs() < 1e-9;
    assert!(near(binomial_sigmas(5_150, 10_000, 0.5), 3.0));
    assert!(near(binomial_sigmas(970, 10_000, 0.1), -1.0));
    assert_eq!(binomial_sigmas(0, 1_000, 0.0), 0.0);
    assert_eq!(binomial_sigmas(1, 1_000, 0.0), f64::INFINITY);
    assert_eq!(binomial_sigmas(999, 1_000, 1.0), f64::NEG_INFINITY);
    // Without memory, p + r = 1, it is the binomial.
    assert!(near(gilbert_sigmas(970, 10_000, 0.1, 0.9), -1.0));
    // Bursts of 10 spread the count by nearly √19.
    let spread = binomial_sigmas(1_100, 10_000, 0.1) / gilbert_sigmas(1_100, 10_000, 0.1 / 9.0, 0.1);
    assert!(near(spread, 17f64.sqrt()), "{}", spread * spread);
}

/// Many short chains: their counts have the calculated variance.
#[test]
fn a_gilbert_chain_spreads_as_calculated() {
    const CHAINS: usize = 2_000;
    const PACKETS: usize = 500;
    let (p, r) = (0.05, 0.25);
    let mut chance = numbers(CHAINS * PACKETS, 1_000_000)
        .into_iter()
        .map(|x| x as f64 / 1e6);
    let mut bad = false;
    let mut squares = 0.0;
    for _ in 0..CHAINS {
        let mut losses = 0;
        for chance in chance.by_ref().take(PACKETS) {
            losses += u64::from(bad);
            bad = if bad { chance >= r } else { chance < p };
        }
        squares += gilbert_sigmas(losses, PACKETS as u64, p, r).powi(2);
    }
    let variance = squares / CHAINS as f64;
    assert!((0.88..1.12).contains(&variance), "{variance}");
}

#[test]
fn moments_and_percentiles_of_small_samples() {
    let sample = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
    assert_eq!(
        (mean(&sample), deviation(&sample), median(&sample)),
        (5.0, 2.0, 4.5)
    );
    assert_eq!((percentile(&sample, 0.0), percentile(&sample, 100.0)), (2.0, 9.0));
    assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
    assert!((percentile(&[20.0, 10.0], 99.0) - 19.9).abs() < 1e-12);
    assert_eq!(mean(&[]), 0.0);
}

#[test]
fn autocorrelation_of_known_series() {
    let alternating: Vec<f64> = (0..1_000).map(|n| f64::from(n % 2)).collect();
    assert!((autocorrelation(&alternating, 1) + 1.0).abs() < 0.002);
    assert!((autocorrelation(&alternating, 2) - 1.0).abs() < 0.003);
    assert_eq!(autocorrelation(&alternating, 0), 1.0);
    assert_eq!(autocorrelation(&[1.0; 10], 1), 0.0);
    // (1..=5): the products of neighbours around 3 are 2, 0, 0, 2 and the squares 10.
    assert_eq!(autocorrelation(&[1.0, 2.0, 3.0, 4.0, 5.0], 1), 0.4);
    let noise: Vec<f64> = numbers(40_000, 1_000).into_iter().map(|x| x as f64).collect();
    assert!(autocorrelation(&noise, 1).abs() < 0.02);
    // The mean of two neighbours shares one of them with the next.
    let moving: Vec<f64> = noise.windows(2).map(|pair| pair[0] + pair[1]).collect();
    assert!((autocorrelation(&moving, 1) - 0.5).abs() < 0.02);
}

#[test]
fn bursts_are_runs_of_losses() {
    let lost = |text: &str| bursts(text.chars().map(|sign| sign == 'x').collect::<Vec<_>>());
    assert_eq!(lost("xx.x...xxx.x"), [2, 1, 3]);
    assert_eq!(lost("..."), [0u64; 0]);
}

#[test]
fn lengths_are_pooled_until_five_are_expected() {
    let lengths = [1, 1, 2, 3, 9, 4, 1, 2, 1, 50, 1, 1, 1, 2, 3, 1, 1, 1, 2, 1];
    // 10, 5, then 2.5 + 1.25 + … = 5 in the tail.
    let bins = Bins::of(&lengths, geometric(2.0));
    assert_eq!(bins.from, [1, 2, 3]);
    assert_eq!(bins.observed, [11, 4, 5]);
    assert_eq!(bins.expected, [10.0, 5.0, 5.0]);
    let many: Vec<u64> = (0..200).map(|n| n % 40 + 1).collect();
    let bins = Bins::of(&many, geometric(20.0));
    assert!(bins.expected.iter().all(|count| *count >= 5.0));
    assert!((bins.expected.iter().sum::<f64>() - 200.0).abs() < 1e-9);
    assert_eq!(bins.observed.iter().sum::<u64>(), 200);
    assert_eq!(Bins::of(&[], geometric(2.0)).observed, [0]);
    assert_eq!(Bins::of(&[1; 100], geometric(1.0)).expected, [100.0]);
}

#[test]
fn geometric_bursts_pass_and_others_fail() {
    let chance: Vec<bool> = numbers(100_000, 100).into_iter().map(|x| x < 30).collect();
    let lengths = bursts(chance);
    let probability = |mean: f64| {
        let bins = Bins::of(&lengths, geometric(mean));
        ChiSquare::of(&bins.observed, &bins.expected).probability()
    };
    assert!(probability(1.0 / 0.7) > 0.001);
    assert!(probability(1.6) < 1e-6);
}

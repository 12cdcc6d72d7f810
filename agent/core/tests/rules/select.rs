use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sabot_core::model::{LabelRequirement, LabelSelector, Pick, PickShare, Pod};
use sabot_core::select::{rank, taken};

use crate::fixtures::{labelled, percent, pod};

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn requirements_mean_what_they_mean_in_kubernetes() {
    let key = || "tier".to_owned();
    let values = || BTreeSet::from(["db".to_owned(), "cache".to_owned()]);
    let cases = [
        (
            LabelRequirement::In {
                key: key(),
                values: values(),
            },
            [true, false, false],
        ),
        (
            LabelRequirement::NotIn {
                key: key(),
                values: values(),
            },
            [false, true, true],
        ),
        (LabelRequirement::Exists { key: key() }, [true, true, false]),
        (
            LabelRequirement::DoesNotExist { key: key() },
            [false, false, true],
        ),
    ];
    for (requirement, expected) in cases {
        let given = [labels(&[("tier", "db")]), labels(&[("tier", "web")]), labels(&[])];
        assert_eq!(
            given.map(|labels| requirement.matches(&labels)),
            expected,
            "{requirement}"
        );
    }
    assert!(
        LabelSelector::default().matches(&labels(&[])),
        "an empty selector matches everything"
    );
}

#[test]
fn a_pod_selector_minds_the_namespace_and_the_name() {
    let selector = labelled("web");
    let web = pod(1, "web", 1);
    assert!(selector.matches(&web));
    assert!(!selector.matches(&pod(1, "db", 1)));
    let elsewhere = Pod {
        namespace: "bank".to_owned(),
        ..web.clone()
    };
    assert!(!selector.matches(&elsewhere));
    let mut named = selector;
    named.name = Some("web-2".to_owned());
    assert!(!named.matches(&web) && named.matches(&pod(2, "web", 1)));
}

fn pick<'a>(matching: &[&'a Pod], pick: &Pick) -> Vec<&'a Pod> {
    let taken = taken(matching.iter().map(|pod| pod.uid.as_str()), pick);
    let picked = matching.iter().filter(|pod| taken.contains(pod.uid.as_str()));
    picked.copied().collect()
}

#[test]
fn ranks_never_change() {
    // Computed by another implementation. Daemons of different versions must pick the same pods: these values are part of the protocol between them.
    assert_eq!(rank(0, ""), 0x813f_0174_a236_7c13);
    assert_eq!(
        rank(7, "0b1f6a52-6d3c-4c3e-9f0e-5f8d9f1f2a3b"),
        0xcae7_0692_a112_fa18
    );
}

#[test]
fn a_percent_is_rounded_up_but_not_by_rounding_errors() {
    let pods: Vec<Pod> = (0..30).map(|index| pod(index, "web", 1)).collect();
    let all: Vec<&Pod> = pods.iter().collect();
    for (share, expected) in [
        (0.0, 0),
        (0.1, 1),
        (10.0, 3),
        (30.0, 9),
        (33.4, 11),
        (70.0, 21),
        (100.0, 30),
    ] {
        let share = PickShare::Percent(percent(share));
        assert_eq!(pick(&all, &Pick { share, seed: 1 }).len(), expected, "{share:?}");
    }
    let two_sandboxes = [pod(1, "web", 1), pod(1, "web", 2), pod(2, "web", 1)];
    let share = PickShare::Percent(percent(100.0));
    assert_eq!(
        pick(
            &two_sandboxes.iter().collect::<Vec<_>>(),
            &Pick { share, seed: 1 }
        )
        .len(),
        3
    );
}

#[test]
fn seeds_pick_evenly() {
    let pods: Vec<Pod> = (0..10).map(|index| pod(index, "web", 1)).collect();
    let all: Vec<&Pod> = pods.iter().collect();
    let mut taken: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 0..1000 {
        let share = PickShare::Count(3);
        for pod in pick(&all, &Pick { share, seed }) {
            *taken.entry(&pod.uid).or_default() += 1;
        }
    }
    // Each is expected 300 times with a standard deviation of 14.5; the seeds are fixed, so this can't flicker.
    assert!(
        taken.values().all(|count| (230..=370).contains(count)),
        "{taken:?}"
    );
    assert_eq!(taken.len(), 10);
}

fn uids<'a>(pods: &[&'a Pod]) -> BTreeSet<&'a str> {
    pods.iter().map(|pod| pod.uid.as_str()).collect()
}

fn share() -> impl Strategy<Value = PickShare> {
    prop_oneof![
        (1..12_u32).prop_map(PickShare::Count),
        (0.0..=100.0_f64).prop_map(|value| PickShare::Percent(percent(value))),
    ]
}

proptest! {
    #[test]
    fn a_pod_that_comes_or_goes_moves_at_most_one_other(
        present in prop::collection::btree_set(0..40_u8, 1..20),
        changed in 0..40_u8,
        seed in any::<u64>(),
        share in share(),
    ) {
        let pods: Vec<Pod> = (0..40).map(|index| pod(index, "web", 1)).collect();
        let choose = |set: &BTreeSet<u8>| {
            let all: Vec<&Pod> = set.iter().map(|index| &pods[usize::from(*index)]).collect();
            pick(&all, &Pick { share, seed })
        };
        let mut with = present.clone();
        with.insert(changed);
        let mut without = with.clone();
        without.remove(&changed);
        let (large, small) = (choose(&with), choose(&without));
        let (large, small) = (uids(&large), uids(&small));
        let it = format!("uid-{changed}");
        let left = large.difference(&small).filter(|uid| **uid != it).count();
        let joined = small.difference(&large).count();
        prop_assert!(left + joined <= 1, "{large:?} with it, {small:?} without");
        if !large.contains(it.as_str()) {
            prop_assert_eq!(joined, 0, "a pod that isn't picked pushes nobody out");
        }
    }

    #[test]
    fn the_order_of_the_pods_does_not_matter(
        mut order in prop::collection::vec(0..40_u8, 1..20),
        seed in any::<u64>(),
        share in share(),
    ) {
        let pods: Vec<Pod> = (0..40).map(|index| pod(index, "web", 1)).collect();
        let choose = |order: &[u8]| -> BTreeSet<String> {
            let all: Vec<&Pod> = order.iter().map(|index| &pods[usize::from(*index)]).collect();
            pick(&all, &Pick { share, seed }).iter().map(|pod| pod.uid.clone()).collect()
        };
        let first = choose(&order);
        order.reverse();
        prop_assert_eq!(first, choose(&order));
    }
}

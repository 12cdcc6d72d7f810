//! The scenarios that are delivered are valid faults, and there is one of each kind.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use sabot_core::model::{Action, CorruptKind, LossModel};
use sabot_core::{Limits, parse_manifests, validate};

/// The action, with the model where it has several.
fn kind(action: &Action) -> &'static str {
    match action {
        Action::Drop(loss) if loss.only.is_some() => "drop only",
        Action::Drop(loss) => match loss.model {
            LossModel::Percent(_) => "drop percent",
            LossModel::GilbertElliott(chain) if chain.loss_bad < 1.0 => "drop gilbertElliott",
            LossModel::GilbertElliott(_) => "drop burst",
            LossModel::EveryNth(_) => "drop every",
            LossModel::FirstOfConnection(_) => "drop first",
            LossModel::Flows(_) => "drop flows",
        },
        Action::Corrupt(corrupt) if corrupt.kind == CorruptKind::Wire => "corrupt wire",
        other => other.name(),
    }
}

#[test]
fn delivered_scenarios_are_valid() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/scenarios");
    let mut seen = BTreeSet::new();
    // What needs a cluster is in a folder of its own.
    let alone = fs::read_dir(&directory).unwrap();
    for entry in alone.chain(fs::read_dir(directory.join("cluster")).unwrap()) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for manifest in parse_manifests(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())) {
            let valid = validate(&manifest.metadata, &manifest.spec, &Limits::default());
            let valid = valid.unwrap_or_else(|found| panic!("{}: {found:?}", path.display()));
            seen.insert(kind(&valid.action));
        }
    }
    let expected = [
        "partition",
        "drop only",
        "drop percent",
        "drop gilbertElliott",
        "drop burst",
        "drop every",
        "drop first",
        "drop flows",
        "corrupt",
        "corrupt wire",
        "duplicate",
        "reorder",
        "rate_limit",
        "reject",
        "reset",
        "delay",
    ];
    assert_eq!(seen, BTreeSet::from(expected), "a scenario of each kind");
}

//! The scenarios that are delivered are valid faults.

use std::fs;
use std::path::Path;

use sabot_core::{Limits, parse_manifests, validate};

#[test]
fn delivered_scenarios_are_valid() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/scenarios");
    let mut seen = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        for manifest in parse_manifests(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())) {
            let valid = validate(&manifest.metadata, &manifest.spec, &Limits::default());
            assert!(valid.is_ok(), "{}: {:?}", path.display(), valid.err());
            seen += 1;
        }
    }
    assert!(seen > 0, "no scenario was found");
}

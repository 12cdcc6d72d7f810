//! What the verifier goes through for each program.

use std::collections::BTreeMap;

use sabot_testkit::verified::{ALWAYS, FLAGS, MOST_INSTRUCTIONS, loaded};

#[test]
fn every_program_is_within_half_of_the_verifiers_bound() {
    let rig = crate::rig(0, &FLAGS);
    let log = rig.daemon.log();
    let programs: BTreeMap<_, _> = loaded(&log)
        .into_iter()
        .map(|loaded| (loaded.program.clone(), loaded))
        .collect();
    for name in ALWAYS {
        assert!(programs.contains_key(name), "{name}: {log}");
    }
    for (name, loaded) in programs {
        let told = loaded
            .instructions
            .map_or("-".to_owned(), |count| count.to_string());
        println!("figure: {name} {told} {}", loaded.micros);
        let count = loaded.instructions.unwrap_or_default();
        assert!(count <= MOST_INSTRUCTIONS, "{name}: {count} instructions");
    }
}

//! What the verifier goes through for each program. Its bound is a million instructions; ours is half of that.

use std::collections::BTreeMap;

const MOST_INSTRUCTIONS: u64 = 500_000;
/// Those behind the gate; without them there is no fault.
const ALWAYS: [&str; 4] = ["fault_egress", "fault_ingress", "fault_line", "fault_segmenter"];

/// The value of a field in a line of the daemon's log.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(&format!("{name}="))?;
    Some(rest.split_whitespace().next()?.trim_matches('"'))
}

#[test]
fn every_program_is_within_half_of_the_verifiers_bound() {
    let Some(rig) = crate::rig(0, &["--log-level", "info,sabotd::kernel::verified=debug"]) else {
        return;
    };
    let mut programs = BTreeMap::new();
    for line in rig.daemon.log().lines() {
        let number = |name| field(line, name)?.parse::<u64>().ok();
        if let (Some(name), Some(count), Some(micros)) =
            (field(line, "program"), number("instructions"), number("micros"))
        {
            programs.insert(name.to_owned(), (count, micros));
        }
    }
    for name in ALWAYS {
        assert!(programs.contains_key(name), "{name}: {}", rig.daemon.log());
    }
    for (name, (count, micros)) in programs {
        // Kernels before 5.16 keep it to themselves.
        let told = if count == 0 {
            "-".to_owned()
        } else {
            count.to_string()
        };
        println!("figure: {name} {told} {micros}");
        assert!(count <= MOST_INSTRUCTIONS, "{name}: {count} instructions");
    }
}

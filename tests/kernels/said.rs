//! What GetNode says of the machine.

use sabot_testkit::features::{feature, lacks, may_lack};
use sabot_testkit::{Daemon, DaemonOptions};

use crate::REFUSAL;

#[test]
fn every_feature_comes_with_what_was_found_or_with_the_reason_and_the_consequence() {
    let rig = crate::rig(0, &[]);
    let node = rig.client.node().expect("it answers");
    for feature in &node.features {
        println!("{}: {}, {}", feature.name, feature.available, feature.detail);
        assert!(!feature.detail.is_empty(), "{feature:?}");
        assert_eq!(feature.available, feature.consequence.is_empty(), "{feature:?}");
        // Neither a container runtime nor a cluster is part of the lab.
        let is_of_the_kernel = feature.name != "kubernetes";
        if feature.available || !is_of_the_kernel {
            continue;
        }
        if feature.name == "departures" {
            // Many kernels have no sch_fq, and nothing is refused for that.
            lacks(&feature.name, &feature.detail);
        } else {
            assert!(may_lack(&feature.name), "{feature:?}");
        }
    }
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("it is there");
    assert_eq!(node.kernel_release, release.trim());
}

#[test]
fn a_hook_that_is_missing_is_refused_with_its_reason_and_another_one_works() {
    let rig = crate::rig(0, &[]);
    let node = rig.client.node().expect("it answers");
    for hook in ["tcx", "clsact"] {
        let mut options = DaemonOptions::built()
            .expect("sabotd is built")
            .flags(&["--hook", hook]);
        options.netns = Some((**rig.lab.node()).clone());
        let feature = feature(&node, hook);
        let mut daemon = if feature.available {
            Daemon::start(options).unwrap_or_else(|error| panic!("{hook}: {error:#}"))
        } else {
            Daemon::spawn(options).expect("it can be started")
        };
        if feature.available {
            let status = daemon.terminate().expect("it ends");
            assert_eq!(status.code(), Some(0), "{}", daemon.log());
            continue;
        }
        let status = daemon.wait_end(REFUSAL).expect("it refuses");
        assert_ne!(status.code(), Some(0), "{}", daemon.log());
        let log = daemon.log();
        assert!(
            log.contains(&format!("--hook {hook}")) && log.contains(&feature.detail),
            "{log}"
        );
    }
}

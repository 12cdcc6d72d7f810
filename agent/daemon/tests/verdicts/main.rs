//! The classifier's verdicts, one crafted frame at a time: the fault object as the daemon loads it, run by the kernel
//! (`BPF_PROG_TEST_RUN`) without any device. Needs root.

mod actions;
mod chances;
mod choices;
mod control;
mod corruption;
mod crowds;
mod damage;
mod departures;
mod diversions;
mod filters;
mod frame;
mod lists;
mod matching;
mod model;
mod peers;
mod properties;
mod rig;
mod super_packets;

#[path = "../common/peer_set.rs"]
mod peer_set;

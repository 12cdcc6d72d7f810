//! Fixtures for the end-to-end tests and the demo.
//!
//! Everything that changes the machine is a guard: what it made goes when it is dropped, also on panic. Nothing here
//! touches the host's own network namespace. All of it needs root.

pub mod books;
mod bpf;
pub mod cri;
pub mod daemon;
pub mod dice;
pub mod exec;
pub mod features;
pub mod holdings;
pub mod http;
pub mod kube;
pub mod lab;
pub mod leaks;
mod maps;
pub mod metrics;
pub mod netns;
pub mod prediction;
pub mod programs;
pub mod prometheus;
mod qdisc;
pub mod remains;
pub mod rig;
pub mod snmp;
pub mod soak;
pub mod spec;
pub mod statistics;
pub mod traced;
pub mod traffic;
pub mod verified;
pub mod wait;
pub mod way;
pub mod wire;
pub mod witness;

pub use books::Books;
pub use daemon::{Daemon, DaemonOptions};
pub use lab::{Lab, LabPod};
pub use leaks::Leaks;
pub use netns::{Netns, NetnsRef};
pub use prometheus::Prometheus;
pub use remains::Remains;
pub use rig::Rig;
pub use spec::Spec;

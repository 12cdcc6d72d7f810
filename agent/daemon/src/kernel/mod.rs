//! The only users of aya, netlink, setns and ioctl: loader, netns guard, links, maps, sweep.
//!
//! [`Injector`] is the engine's door. Behind it: `loader` loads the fault object and keeps its gate; `tables` writes
//! rules, targets and peers; `equipment` gives a target what its faults need, from `hook` (attachments), `line` (the
//! delay line's TAP), `segmenter` and `departures` (the way to the departure queue), both of which are a `roundabout`; `losses`
//! are read from the devices; `entry` writes the programs that lead a packet through the gate. [`reaper`] and [`sweep`]
//! remove the filters of a daemon that was killed. [`trial`] runs the classifier on one frame without sending it.

mod accounts;
pub mod btf;
pub mod cgroups;
pub mod cost;
pub mod cri;
mod departures;
mod devices;
pub mod drops;
mod entry;
mod equipment;
pub mod features;
pub mod flows;
mod gate;
mod heartbeat;
mod hook;
mod injector;
mod line;
mod loader;
mod losses;
pub mod netns;
pub mod nsfs;
mod nsid;
pub mod object;
mod offload;
mod offsets;
pub mod probe;
pub mod queries;
pub mod reaper;
mod roundabout;
pub mod rtnl;
mod segmenter;
pub mod sweep;
mod sys;
pub mod syscalls;
mod tables;
mod tables_encode;
pub mod tcp;
pub mod trial;
mod verified;
mod watches;

pub use hook::HookKind;
pub use injector::{Injector, InjectorOptions, Taps, boot_time};
pub use loader::LoadError;

//! The cluster-wide client: real daemons, each reached through its pod by the real bridge.

mod bridge;
mod faults;
mod fleet;
mod live;
mod scene;

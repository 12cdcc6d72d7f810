//! The reconciler and the stores of desired and observed state.
//!
//! One task ([`Engine::run`]) owns both. Commands, changes of the world, ends of slow operations and the passage of time
//! all lead to the same pass: plan, do what is quick, hand what is slow to workers, and say how things stand.

mod book;
mod commands;
pub mod datapath;
mod guards;
pub mod handle;
mod heartbeat;
mod ledger;
mod needs;
mod node;
mod pass;
mod preview;
mod reconciler;
mod retries;
mod source;
mod store;
mod view;
mod waiters;
mod wanted;
mod workers;

pub use heartbeat::Heartbeat;
pub use node::ControlPlane;
pub use reconciler::{Control, Engine, LeftBehind, Options, Parts};
pub use source::WorldSource;

#[cfg(test)]
pub(crate) mod tests;

mod apply;
mod ending;
mod failures;
pub(crate) mod kernel;
mod ledgers;
mod origins;
pub(crate) mod rig;
mod world;

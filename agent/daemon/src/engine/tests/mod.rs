mod apply;
mod ending;
mod failures;
mod guards;
mod kernel;
mod ledgers;
mod rig;
mod world;

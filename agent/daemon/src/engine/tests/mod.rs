mod apply;
mod ending;
mod failures;
mod kernel;
mod ledgers;
mod rig;
mod services;
mod world;

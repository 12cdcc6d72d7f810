//! Tests of the crate's rules from outside: one binary, one module for each of its modules.

mod cluster;
mod fixtures;
mod guard;
mod manifest;
mod planner;
mod quick;
mod resolve;
mod select;
mod services;
mod validate;
mod workloads;

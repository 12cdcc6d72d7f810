//! Resources from the API server to the engine and back: the decisions alone, and whole nodes around one API server.

mod accounts;
mod decisions;
mod entries;
mod nodes;
mod rig;
mod times;

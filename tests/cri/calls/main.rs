//! The runtime's calls as the daemon sees them, held against what their client knows of them.

mod abbreviations;
mod counts;
mod failures;
mod flood;
mod names;
mod scene;
mod timeline;
mod told;

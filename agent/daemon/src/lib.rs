//! Sabot's daemon.

pub mod api;
pub mod app;
pub mod audit;
pub mod bridge;
pub mod config;
pub mod delayline;
pub mod engine;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod guards;
pub mod kernel;
pub mod logging;
pub mod metrics;
pub mod observe;
pub mod resources;
pub mod targets;

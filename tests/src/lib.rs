//! Fixtures for the end-to-end tests and the demo.

pub mod cri;

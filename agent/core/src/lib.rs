//! The rules of Sabot's domain: what a fault is, whom it means, and what the kernel must hold for it. No I/O.

pub mod model;
pub mod plan;
pub mod spec;

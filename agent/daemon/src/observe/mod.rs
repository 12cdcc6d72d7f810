//! Ring readers, decoding, enrichment.

pub mod event;

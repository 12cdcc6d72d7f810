//! Ring readers, decoding, enrichment.

pub mod event;
pub mod source;

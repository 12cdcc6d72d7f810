//! Ring readers, decoding, enrichment.

pub mod clock;
pub mod dns;
pub mod durations;
pub mod event;
pub mod identity;
pub mod names;
pub mod observers;
pub mod packets;
pub mod ring;
pub mod source;
pub mod syscalls;
#[cfg(test)]
pub(crate) mod testing;
pub mod timeline;

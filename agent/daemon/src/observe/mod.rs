//! Ring readers, decoding, enrichment.

pub mod clock;
pub mod dns;
pub mod durations;
pub mod event;
pub mod flows;
pub mod identity;
pub mod measures;
pub mod names;
pub mod observers;
pub mod packets;
pub mod ring;
pub mod source;
pub mod syscalls;
pub mod tcp;
#[cfg(test)]
pub(crate) mod testing;
pub mod timeline;

//! Ring readers, decoding, enrichment.

pub mod clock;
pub mod cri;
pub mod dns;
pub mod event;
pub mod names;
pub mod observers;
pub mod packets;
pub mod ring;
pub mod source;
pub mod syscalls;
#[cfg(test)]
pub(crate) mod testing;

//! Ring readers, decoding, enrichment.

pub mod clock;
pub mod dns;
pub mod drops;
pub mod event;
mod follow;
pub mod identity;
pub mod names;
pub mod observers;
pub mod packets;
pub mod queries;
pub mod ring;
pub mod source;
pub mod syscalls;
#[cfg(test)]
pub(crate) mod testing;

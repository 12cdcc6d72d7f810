//! Ring readers, decoding, enrichment.

mod audit;
pub mod clock;
pub mod cri;
pub mod dns;
pub mod drops;
pub mod durations;
pub mod event;
pub mod flows;
mod follow;
pub mod identity;
pub mod measurement;
pub mod measures;
pub mod names;
pub mod observers;
pub mod packets;
pub mod queries;
pub mod ring;
pub mod source;
pub mod syscalls;
pub mod tcp;
#[cfg(test)]
pub(crate) mod testing;
pub mod timeline;
pub mod udp;

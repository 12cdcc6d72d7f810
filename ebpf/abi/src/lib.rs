//! Layouts and constants that the eBPF programs and the daemon share.
//!
//! Everything here is `no_std`, `repr(C)`, of fixed width and without padding, so that a value has the same bytes on
//! both sides. Const assertions lock each layout; the daemon's tests round-trip the bytes.
#![no_std]

mod connection;
mod counters;
mod cri;
mod departures;
mod dns;
mod drops;
mod event;
mod flows;
mod histogram;
mod index;
mod offsets;
mod owner;
mod peer;
mod queries;
mod random;
mod rule;
mod syscalls;
mod tag;
mod target;
mod tcp;

pub use connection::*;
pub use counters::*;
pub use cri::*;
pub use departures::*;
pub use dns::*;
pub use drops::*;
pub use event::*;
pub use flows::*;
pub use histogram::*;
pub use index::*;
pub use offsets::*;
pub use owner::*;
pub use peer::*;
pub use queries::*;
pub use random::*;
pub use rule::*;
pub use syscalls::*;
pub use tag::*;
pub use target::*;
pub use tcp::*;

/// Declares that a type is plain data whose every byte is initialised and every bit pattern valid.
macro_rules! pod {
    ($($type:ty),+ $(,)?) => {$(
        // SAFETY: the type is `repr(C)`, made of integers and integer arrays, has no padding (asserted beside it) and
        // accepts every bit pattern.
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $type {}
    )+};
}
pub(crate) use pod;

/// Fails the build when a type's size or alignment moves.
macro_rules! assert_layout {
    ($type:ty, size = $size:expr, align = $align:expr) => {
        const _: () = assert!(core::mem::size_of::<$type>() == $size);
        const _: () = assert!(core::mem::align_of::<$type>() == $align);
    };
}
pub(crate) use assert_layout;

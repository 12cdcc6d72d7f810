//! The reconciler and the stores of desired and observed state.

pub mod datapath;
pub mod handle;

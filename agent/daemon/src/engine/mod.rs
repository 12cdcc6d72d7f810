//! The reconciler and the stores of desired and observed state.

pub mod handle;
pub mod datapath;

//! What must hold of everything that reads what others write, whatever bytes it is given.
//!
//! Each module has a `check` of one reader, which panics when it finds something. The fuzz targets call them with what
//! libFuzzer makes up, the test `fuzz` with the corpora and with what it makes of them.

pub mod abi;
pub mod classifier;
pub mod cri_calls;
pub mod cri_pods;
pub mod fault;
pub mod http;
pub mod manifest;
pub mod proto;

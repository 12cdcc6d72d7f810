//! What is shipped, made without a tool that isn't here: the container image, the packages for plain machines, and the
//! manifests that the chart renders to.
//!
//! For xtask and for the tests, which use the same image and the same manifests as a user does.

pub mod chart;
pub mod image;
pub mod libraries;
pub mod manifests;
pub mod oci;
pub mod package;

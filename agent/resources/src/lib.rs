//! Sabot's custom resources: what the API server is told of them, and what the daemons write back. No I/O.
//!
//! The spec is [`sabot_core::spec::FaultSpec`] for both kinds. [`definition`] makes a CustomResourceDefinition of it: the
//! schema follows from the types, and the rules that no type says stand beside it as CEL. The [`status`] is written by
//! many daemons, each its own part, and [`summary`] says what the parts come to.

mod definition;
mod kind;
mod rules;
mod schema;
pub mod status;
pub mod summary;

pub use definition::{definition, to_yaml};
pub use kind::{GROUP, Kind, VERSION};

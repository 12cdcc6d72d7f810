//! The rules of Sabot's domain: what a fault is, whom it means, and what the kernel must hold for it. No I/O.
//!
//! The way of a fault through this crate: [`manifest`] or [`quick`] read what a user writes into a [`spec`], [`validate`]
//! turns that into a [`model::Fault`], [`resolve`] says which devices and addresses it means in a [`model::World`], and
//! the [`planner`] compares all of that with [`plan::Observed`] and says which [`plan::Operation`]s close the gap.

pub mod action;
pub mod delay;
pub mod guard;
pub mod loss;
pub mod manifest;
pub mod model;
pub mod plan;
pub mod planner;
pub mod quick;
pub mod resolve;
pub mod select;
pub mod spec;
pub mod units;
pub mod validate;

pub use manifest::{ManifestError, parse_manifests, to_yaml};
pub use planner::{Plan, Planner, plan};
pub use resolve::{PodRef, RefusedTarget, Resolution, ResolvedTarget, equipment, peer_entries, resolve};
pub use validate::{Instants, Limits, ValidFault, Violation, validate, validate_at};

//! The whole loop on real pods: what a user asks for by `sabot`, on pods that a real containerd made through CRI.

mod actions;
mod comings;
mod connections;
mod lifecycle;
mod node;
mod observation;
mod partition;
mod reactions;
mod runtime;
mod selection;

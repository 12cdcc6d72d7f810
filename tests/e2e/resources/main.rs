//! Faults that are custom resources, from the API server to the pods' traffic and back: real daemons and namespaces, and a
//! scripted API server; needs root.

mod edits;
mod life;
mod nodes;
mod outages;
mod refusals;
mod restarts;
mod scene;
mod services;

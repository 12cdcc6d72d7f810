//! The scripted API server, seen by a client that isn't ours.

mod server;

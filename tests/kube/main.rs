//! The scripted API server: seen by a client that isn't ours, and by a running daemon, which needs root.

mod daemon;
mod server;

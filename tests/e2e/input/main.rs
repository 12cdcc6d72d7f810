//! Bad input and crippled machines: each is refused with a precise error, and nothing happens. With the real daemon and
//! client; needs root.

mod crippled;
mod daemons;
mod grpc;
mod launch;
mod manifests;
mod quick;
mod scene;
mod sockets;

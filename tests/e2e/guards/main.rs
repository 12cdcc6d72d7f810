//! Who may do what to whom: guards, roles by certificate, and the log of both. With the real daemon and client; needs root.

mod audit;
mod control_plane;
mod pki;
mod pods;
mod remote;
mod scene;

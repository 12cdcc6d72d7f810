//! The TCP observer on the running kernel, against the kernel's own counters and what applications saw. They need root.

mod classes;
mod connections;
mod daemon;
mod losses;
mod owners;
mod scene;
mod table;
mod timeline;
mod times;

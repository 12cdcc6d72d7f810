//! Figures beside those of strace and bpftrace, taken of the same calls.

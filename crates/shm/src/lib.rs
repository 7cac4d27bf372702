//! Shared memory for Heliostat: sealed memfds, mappings, descriptor passing, the write guard. All unsafe code of the reusable crates is here.
#![allow(unsafe_code)] // the one reusable crate that may hold unsafe code; every block says why it is sound

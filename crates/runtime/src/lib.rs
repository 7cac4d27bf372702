//! Ownership, submission and scheduling of Heliostat as pure state machines: events in, actions out. No clock, no
//! sockets, no threads, no napi.
#![forbid(unsafe_code)]

pub mod schedule;

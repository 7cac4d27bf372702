//! Ownership, submission and scheduling of Heliostat as pure state machines: events in, actions out.
#![forbid(unsafe_code)]

//! The node daemon of Heliostat: worker pool, leases, the store, logs.
#![forbid(unsafe_code)]

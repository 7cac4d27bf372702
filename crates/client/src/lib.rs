//! The side of Heliostat that lives in drivers and workers: submission, futures, owner tables.
#![forbid(unsafe_code)]

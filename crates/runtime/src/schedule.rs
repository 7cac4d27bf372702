//! The daemon's scheduler: which worker is leased to whom.

//! Checks that stand between any two changes of shared words: of copies, and of processes that stop or die there.

#[path = "../../tests/common/mod.rs"]
mod common;
mod recovery;
mod script;
mod stopped;

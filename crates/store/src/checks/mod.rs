//! Checks that stand between any two changes of shared words: of copies, and of processes that stop or die there.

mod recovery;
mod script;

//! Shared-memory object store: create, seal, get, pin, free; one segment per node, no IPC on the fast path.
#![forbid(unsafe_code)]

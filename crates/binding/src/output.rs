//! What a worker's lines come from: a marker line in its own output, which the daemon takes out again.

use std::io::{Write, stderr, stdout};
use std::sync::{Mutex, PoisonError};

use crate::raw::raw_functions;

/// What the daemon gave this worker to begin its marker lines with, and the name that the streams carry now.
static STREAMS: Mutex<(String, String)> = Mutex::new((String::new(), String::new()));

/// Says that the following output comes from `name`.
pub(crate) fn mark(name: &str) {
    let mut streams = STREAMS.lock().unwrap_or_else(PoisonError::into_inner);
    let (marker, current) = &mut *streams;
    if !marker.is_empty() && current != name {
        let line = format!("\u{1e}{marker} {}\n", name.replace(['\n', '\r'], " "));
        // A closed pipe means that the daemon is gone, and this process soon with it.
        let _ = stdout().write_all(line.as_bytes()).and_then(|()| stdout().flush());
        let _ = stderr().write_all(line.as_bytes());
        name.clone_into(current);
    }
}

raw_functions! {
    /// Sets what this worker's marker lines begin with.
    fn set_marker = c"setMarker" (marker) |scope| {
        STREAMS.lock().unwrap_or_else(PoisonError::into_inner).0 = scope.get_string(marker)?;
        Ok(scope.undefined())
    }
}

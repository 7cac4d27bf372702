//! What a worker's lines come from: a marker line in its own output, which the daemon takes out again.

use std::io::{Write, stderr, stdout};
use std::sync::{Mutex, PoisonError};

use crate::raw::raw_functions;

/// The name that the streams carry now.
static NAME: Mutex<String> = Mutex::new(String::new());

raw_functions! {
    /// Says that the following output comes from `name`; `marker` is what the daemon gave this worker.
    fn mark_output = c"markOutput" (marker, name) |scope| {
        let (marker, name) = (scope.get_string(marker)?, scope.get_string(name)?);
        let mut current = NAME.lock().unwrap_or_else(PoisonError::into_inner);
        if *current != name {
            let line = format!("\u{1e}{marker} {}\n", name.replace(['\n', '\r'], " "));
            // A closed pipe means that the daemon is gone, and this process soon with it.
            let _ = stdout().write_all(line.as_bytes()).and_then(|()| stdout().flush());
            let _ = stderr().write_all(line.as_bytes());
            *current = name;
        }
        Ok(scope.undefined())
    }
}

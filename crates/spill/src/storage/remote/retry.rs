//! How often and how long a request is tried.

use std::time::Duration;

use object_store::Error;

/// Bounds on the tries of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Tries altogether.
    pub tries: u32,
    /// Mean pause after the first try; twice as long after each further one.
    pub pause: Duration,
    /// A server that sends and takes nothing for so long does not answer any more.
    pub stall: Duration,
    /// A try that moves data may take longer by its bytes divided by this, in bytes per second.
    pub slowest: u64,
}

impl Default for Retry {
    fn default() -> Self {
        Self { tries: 6, pause: Duration::from_millis(200), stall: Duration::from_secs(30), slowest: 1 << 20 }
    }
}

/// Longest mean pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

impl Retry {
    /// Before the next try; between a half and one and a half of the mean, so that many who failed together don't come
    /// back together.
    pub(super) fn pause_after(&self, tries: u32) -> Duration {
        let mean = self.pause.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(LONGEST_PAUSE);
        let part = getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX));
        mean.mul_f64(0.5 + part)
    }

    /// How long one try that moves so many bytes may take.
    pub(super) fn time_for(&self, bytes: u64) -> Duration {
        self.stall + Duration::from_millis(bytes.saturating_mul(1000) / self.slowest.max(1))
    }
}

/// The status that the server answered with, if it came to an answer. The client keeps it in a private type, whose text
/// is all there is to read.
pub(super) fn status(error: &Error) -> Option<u16> {
    let text = error.to_string();
    let digits = text.split_once("status code: ")?.1.get(..3)?;
    digits.parse().ok()
}

/// Whether trying again could help.
pub(super) fn is_transient(error: &Error) -> bool {
    match error {
        Error::Generic { .. } => {
            status(error).is_none_or(|status| status >= 500 || matches!(status, 200..400 | 408 | 425 | 429))
        }
        _ => false,
    }
}

//! How much was spilled and restored, and how fast.

use std::time::{Duration, Instant};

/// One direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Objects that went through whole, or ranges of them.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that failed.
    pub failures: u64,
    /// Time during which at least one was on its way.
    pub busy: Duration,
}

impl Traffic {
    /// Bytes per second while busy; 0 before anything moved.
    pub fn throughput(&self) -> f64 {
        if self.busy.is_zero() { 0.0 } else { self.bytes as f64 / self.busy.as_secs_f64() }
    }
}

/// What an engine has done and holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// To storage.
    pub spilled: Traffic,
    /// Back.
    pub restored: Traffic,
    /// Bytes of living objects that compaction moved.
    pub compacted_bytes: u64,
    /// Segments that were deleted.
    pub deleted_segments: u64,
    /// Segments whose deletion failed and is tried again.
    pub undeleted_segments: u64,
    /// Objects that are stored now.
    pub objects: u64,
    /// Their bytes.
    pub object_bytes: u64,
    /// Segments now.
    pub segments: u64,
    /// Their bytes, those of freed objects and padding included.
    pub file_bytes: u64,
}

/// Measures a direction.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    pub(crate) traffic: Traffic,
    active: u32,
    since: Option<Instant>,
}

impl Meter {
    pub(crate) fn begin(&mut self) {
        if self.active == 0 {
            self.since = Some(Instant::now());
        }
        self.active += 1;
    }

    /// `done`: objects and bytes that went through. `failed`: objects that did not.
    pub(crate) fn end(&mut self, done: (u64, u64), failed: u64) {
        self.active -= 1;
        if self.active == 0 {
            self.traffic.busy += self.since.take().map_or(Duration::ZERO, |since| since.elapsed());
        }
        self.traffic.objects += done.0;
        self.traffic.bytes += done.1;
        self.traffic.failures += failed;
    }

    /// With the time that runs now.
    pub(crate) fn now(&self) -> Traffic {
        let running = self.since.map_or(Duration::ZERO, |since| since.elapsed());
        Traffic { busy: self.traffic.busy + running, ..self.traffic }
    }
}

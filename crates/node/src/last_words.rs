//! The last lines of a worker's standard error, which explain its end.

use std::collections::VecDeque;

/// Lines that a failure tells.
const LINES: usize = 20;

/// What a worker wrote last to its standard error.
#[derive(Debug, Default)]
pub(crate) struct LastWords {
    lines: VecDeque<String>,
    /// What wrote them.
    name: String,
    heap: Heap,
}

/// What V8 wrote of its heap.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(crate) struct Heap {
    /// It said that the heap is full, and that the process ends.
    pub(crate) full: bool,
    /// MB in use after the last collection that it tells of.
    pub(crate) in_use: Option<f64>,
}

impl LastWords {
    /// The next lines come from `name`: what another task wrote explains nothing about the one that runs.
    pub(crate) fn come_from(&mut self, name: &str) {
        if self.name != name {
            *self = Self { name: name.to_owned(), ..Self::default() };
        }
    }

    /// Keeps a line as one of the last.
    pub(crate) fn push(&mut self, line: String) {
        // What follows is the native stack of the collector, which says nothing about the program.
        if self.heap.full {
            return;
        }
        self.heap.full = line.contains("FATAL ERROR") && line.contains("JavaScript heap out of memory");
        self.heap.in_use = after_collection(&line).or(self.heap.in_use);
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    pub(crate) fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    pub(crate) fn heap(&self) -> Heap {
        self.heap
    }
}

/// MB in use after a collection, from V8's line about it: `… Mark-Compact 41.1 (47.3) -> 40.4 (48.3) MB, …`.
fn after_collection(line: &str) -> Option<f64> {
    let (_, after) = line.split_once(" -> ")?;
    let (used, rest) = after.split_once(" (")?;
    rest.split_once(") MB").and_then(|_| used.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(lines: &[&str]) -> LastWords {
        let mut words = LastWords::default();
        for line in lines {
            words.push((*line).to_owned());
        }
        words
    }

    #[test]
    fn a_full_heap_is_understood_and_its_native_stack_left_out() {
        let words = said(&[
            "<--- Last few GCs --->",
            "[7:0x1]  300 ms: Mark-Compact (reduce) 41.1 (47.3) -> 40.5 (48.3) MB, 12.1 / 0.0 ms allocation failure",
            "[7:0x1]  330 ms: Mark-Compact 41.3 (48.3) -> 40.75 (48.5) MB, pooled: 0 MB, 12.1 / 0.0 ms",
            "<--- JS stacktrace --->",
            "FATAL ERROR: Ineffective mark-compacts near heap limit Allocation failed - JavaScript heap out of memory",
            "----- Native stack trace -----",
            " 1: 0xb8e000 node::OOMErrorHandler",
        ]);
        assert_eq!(words.heap(), Heap { full: true, in_use: Some(40.75) });
        assert!(words.lines().last().unwrap().starts_with("FATAL ERROR"));
    }

    #[test]
    fn arrows_of_others_are_text() {
        assert_eq!(said(&["a -> b (c) MB", "x -> 3", "JavaScript heap out of memory"]).heap(), Heap::default());
    }

    #[test]
    fn the_last_lines_of_the_last_task_are_kept() {
        let mut words = said(&["old"]);
        words.come_from("task");
        for n in 0..30 {
            words.push(n.to_string());
        }
        words.come_from("task");
        let kept: Vec<&str> = words.lines().collect();
        assert_eq!((kept.len(), kept[0], kept[19]), (20, "10", "29"));
    }
}

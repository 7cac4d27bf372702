//! Lines that several workers write alike, folded: the first is shown at once, what follows within some seconds is counted
//! and shown as `(name pid=1) text [repeated 12x across workers]`.
//!
//! Each worker's lines keep their order, and nothing stays hidden: a line that is held back is shown at the latest when its
//! time is over, when its worker writes something else, or at the end.

use std::collections::{BTreeSet, HashMap};

/// Milliseconds for which a line that is written again is held back.
const WINDOW_MS: u64 = 5_000;
/// Longer lines are never held back.
const FOLDED_MAX: usize = 4 * 1024;
/// Different lines that are remembered.
const REMEMBERED_MAX: usize = 1_000;

/// What one worker wrote, without its line feed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Line {
    pub(crate) stream: u8,
    pub(crate) name: String,
    pub(crate) text: Vec<u8>,
}

/// A line to show: who wrote it (last), and how often it stands for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) line: Line,
    pub(crate) pid: u32,
    /// More than 1 when it was folded.
    pub(crate) count: u64,
}

/// A line that was shown, and how often it came since.
#[derive(Debug)]
struct Seen {
    /// Who wrote it when it was shown.
    pid: u32,
    /// Others wrote it, too.
    shared: bool,
    since: u64,
    count: u64,
    /// Who wrote it last.
    last: u32,
    /// Whose lines are held back in it.
    held: BTreeSet<u32>,
}

/// Decides what is shown when.
#[derive(Debug, Default)]
pub(crate) struct Folder {
    seen: HashMap<Line, Seen>,
    /// Lines that are held back, in the order of their first.
    held: Vec<Line>,
}

impl Folder {
    /// Takes a line, and gives what is to be shown now.
    pub(crate) fn push(&mut self, line: Line, pid: u32, now: u64) -> Vec<Shown> {
        let mut shown = self.tick(now);
        let folds = line.text.len() <= FOLDED_MAX && line.text.iter().any(|byte| !byte.is_ascii_whitespace());
        let repeated = folds && self.seen.get(&line).is_some_and(|seen| seen.shared || seen.pid != pid);
        if !repeated {
            // What was held back only once is no crowd: it keeps its place.
            let mut before = self
                .held
                .iter()
                .rposition(|held| self.seen.get(held).is_some_and(|seen| seen.count == 1 || seen.held.contains(&pid)));
            before = before.map(|last| last + 1);
            self.show_first(before.unwrap_or(0), now, &mut shown);
            if folds {
                self.remember(line.clone(), pid, now);
            }
            shown.push(Shown { line, pid, count: 1 });
            return shown;
        }
        // This worker's lines after an earlier one of this kind would come before them.
        if let Some(own) = self.held.iter().position(|held| *held == line) {
            let later =
                self.held.iter().rposition(|held| self.seen.get(held).is_some_and(|seen| seen.held.contains(&pid)));
            if let Some(later) = later.filter(|later| *later > own) {
                self.show_first(later + 1, now, &mut shown);
            }
        }
        if let Some(seen) = self.seen.get_mut(&line) {
            seen.shared = true;
            seen.count += 1;
            seen.last = pid;
            seen.held.insert(pid);
            if seen.count == 1 {
                self.held.push(line);
            }
        }
        shown
    }

    /// When to look again.
    pub(crate) fn due(&self) -> Option<u64> {
        self.held.iter().filter_map(|line| self.seen.get(line)).map(|seen| seen.since + WINDOW_MS).min()
    }

    /// Gives what was held back for long enough.
    pub(crate) fn tick(&mut self, now: u64) -> Vec<Shown> {
        let mut shown = Vec::new();
        let is_over = |line: &Line| self.seen.get(line).is_some_and(|seen| now >= seen.since + WINDOW_MS);
        if let Some(last) = self.held.iter().rposition(is_over) {
            self.show_first(last + 1, now, &mut shown);
        }
        self.seen.retain(|_, seen| seen.count > 0 || now < seen.since + WINDOW_MS);
        shown
    }

    /// Gives everything that is held back.
    pub(crate) fn finish(&mut self, now: u64) -> Vec<Shown> {
        let mut shown = Vec::new();
        self.show_first(self.held.len(), now, &mut shown);
        shown
    }

    fn show_first(&mut self, count: usize, now: u64, shown: &mut Vec<Shown>) {
        for line in self.held.drain(..count) {
            if let Some(seen) = self.seen.get_mut(&line) {
                shown.push(Shown { line, pid: seen.last, count: seen.count });
                seen.count = 0;
                seen.since = now;
                seen.held.clear();
            }
        }
    }

    fn remember(&mut self, line: Line, pid: u32, now: u64) {
        if self.seen.len() >= REMEMBERED_MAX {
            self.seen.retain(|_, seen| seen.count > 0);
        }
        let new = || Seen { pid, shared: false, since: now, count: 0, last: pid, held: BTreeSet::new() };
        self.seen.entry(line).or_insert_with(new).since = now;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(text: &str) -> Line {
        Line { stream: 1, name: "f".into(), text: text.into() }
    }

    fn push(folder: &mut Folder, pid: u32, text: &str, now: u64) -> Vec<String> {
        written(folder.push(line(text), pid, now))
    }

    fn written(shown: Vec<Shown>) -> Vec<String> {
        let text = |line: &Line| String::from_utf8(line.text.clone()).unwrap();
        shown.into_iter().map(|Shown { line, pid, count }| format!("{pid}:{}x{count}", text(&line))).collect()
    }

    #[test]
    fn what_others_repeat_is_counted_and_shown_in_the_end() {
        let mut folder = Folder::default();
        assert_eq!(push(&mut folder, 1, "a", 0), ["1:ax1"]);
        for pid in 2..=13 {
            assert!(push(&mut folder, pid, "a", 10).is_empty());
        }
        assert_eq!(folder.due(), Some(WINDOW_MS));
        assert!(folder.tick(WINDOW_MS - 1).is_empty());
        assert_eq!(written(folder.tick(WINDOW_MS)), ["13:ax12"]);
        assert!(push(&mut folder, 1, "a", WINDOW_MS + 1).is_empty(), "the next round of the same");
        assert_eq!(written(folder.finish(WINDOW_MS + 2)), ["1:ax1"]);
        assert_eq!(folder.due(), None);
    }

    #[test]
    fn one_worker_alone_is_never_folded_nor_are_empty_lines() {
        let mut folder = Folder::default();
        for _ in 0..5 {
            assert_eq!(push(&mut folder, 1, "a", 0), ["1:ax1"]);
        }
        for pid in 1..5 {
            assert_eq!(push(&mut folder, pid, " ", 0).len(), 1);
        }
    }

    #[test]
    fn what_came_twice_keeps_its_place() {
        let mut folder = Folder::default();
        push(&mut folder, 1, "a", 0);
        assert!(push(&mut folder, 2, "a", 0).is_empty());
        assert_eq!(push(&mut folder, 1, "b", 0), ["2:ax1", "1:bx1"]);
    }

    #[test]
    fn a_worker_that_writes_something_else_brings_its_lines_before_it() {
        let mut folder = Folder::default();
        push(&mut folder, 1, "a", 0);
        push(&mut folder, 2, "a", 0);
        push(&mut folder, 3, "a", 0);
        assert_eq!(push(&mut folder, 9, "other", 0), ["9:otherx1"], "a crowd may wait");
        assert_eq!(push(&mut folder, 2, "b", 0), ["3:ax2", "2:bx1"]);
    }

    #[test]
    fn streams_and_names_are_told_apart() {
        let mut folder = Folder::default();
        push(&mut folder, 1, "a", 0);
        assert_eq!(folder.push(Line { stream: 2, ..line("a") }, 2, 0).len(), 1);
        assert_eq!(folder.push(Line { name: "g".into(), ..line("a") }, 3, 0).len(), 1);
    }

    proptest! {
        #[test]
        fn every_line_is_counted_once_and_each_workers_lines_keep_their_order(
            events in proptest::collection::vec((0_u32..4, 0_usize..4, 0_u64..2000), 0..200),
        ) {
            let mut folder = Folder::default();
            let mut now = 0;
            // What each worker wrote and was not shown yet; whose lines are held back.
            let mut waiting: HashMap<u32, Vec<Line>> = HashMap::new();
            let mut held: HashMap<Line, Vec<u32>> = HashMap::new();
            let shows = |one: &Shown, pids: &[u32], waiting: &mut HashMap<u32, Vec<Line>>| {
                prop_assert_eq!(one.count, pids.len() as u64, "lost or shown twice");
                for pid in pids {
                    let first = waiting.get_mut(pid).filter(|lines| !lines.is_empty()).map(|lines| lines.remove(0));
                    prop_assert_eq!(first.as_ref(), Some(&one.line), "shown before an earlier line of its worker");
                }
                Ok(())
            };
            for (pid, text, pause) in events {
                now += pause;
                let line = line(["a", "b", "c", "d"][text]);
                waiting.entry(pid).or_default().push(line.clone());
                let mut shown = folder.push(line.clone(), pid, now);
                let direct = if folder.held.contains(&line) { None } else { shown.pop() };
                for one in shown {
                    shows(&one, &held.remove(&one.line).unwrap_or_default(), &mut waiting)?;
                }
                match direct {
                    Some(one) => shows(&one, &[pid], &mut waiting)?,
                    None => held.entry(line).or_default().push(pid),
                }
                prop_assert!(folder.due().is_none_or(|due| due > now), "held back for too long");
            }
            for one in folder.finish(now) {
                shows(&one, &held.remove(&one.line).unwrap_or_default(), &mut waiting)?;
            }
            prop_assert!(held.is_empty() && waiting.values().all(Vec::is_empty), "lost");
        }
    }
}

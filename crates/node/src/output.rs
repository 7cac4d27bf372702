//! What workers write, in lines: who wrote them, and to whom they go.

use std::collections::VecDeque;

use heliostat_proto::Bytes;
use heliostat_proto::WorkerId;
use heliostat_proto::message::FromDaemon;

use crate::daemon::Daemon;

/// Longest line that is passed on whole.
const LINE_MAX: usize = 64 * 1024;
/// First byte of a line that names what the following ones come from.
const MARKER_START: u8 = 0x1e;
/// Bytes after which a name ends even without a line feed.
const NAME_BYTES: usize = 4096;
/// Characters of a name that are kept.
const NAME_CHARS: usize = 200;
/// Characters of a line of standard error that a failure tells.
const LAST_LINE_CHARS: usize = 1000;
/// Bytes kept for the first driver while there is none.
const UNCLAIMED_MAX: usize = 1 << 20;

/// Which of a worker's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Stream {
    Out = 1,
    Err = 2,
}

/// Lines written under one name, each ending in a line feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) name: String,
    pub(crate) lines: Vec<u8>,
}

/// Makes lines of a stream's bytes, however they are cut.
#[derive(Debug)]
pub(crate) struct Splitter {
    marker: Vec<u8>,
    buffer: Vec<u8>,
    name: String,
    /// What comes next is a name, up to the line feed.
    naming: bool,
}

impl Splitter {
    pub(crate) fn new(marker: &[u8; 16]) -> Self {
        let mut bytes = vec![MARKER_START];
        bytes.extend_from_slice(heliostat_package::hex(marker).as_bytes());
        bytes.push(b' ');
        Self { marker: bytes, buffer: Vec::new(), name: String::new(), naming: false }
    }

    /// What the next lines come from.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Takes bytes and gives the lines that are whole by now.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<Piece> {
        self.buffer.extend_from_slice(bytes);
        let buffer = std::mem::take(&mut self.buffer);
        let mut pieces = Vec::new();
        let mut rest = &buffer[..];
        while let Some(used) = self.step(rest, &mut pieces) {
            rest = &rest[used..];
        }
        self.buffer = rest.to_vec();
        pieces
    }

    /// The stream ended: what is left is a line too.
    pub(crate) fn finish(&mut self) -> Vec<Piece> {
        let rest = std::mem::take(&mut self.buffer);
        let mut pieces = Vec::new();
        if !self.naming {
            self.emit(&rest, &mut pieces);
        }
        self.naming = false;
        pieces
    }

    /// Takes one line, name or piece from the front; `None` when more bytes are needed to tell.
    fn step(&mut self, rest: &[u8], pieces: &mut Vec<Piece>) -> Option<usize> {
        if self.naming {
            let window = &rest[..rest.len().min(NAME_BYTES)];
            let end = window.iter().position(|byte| *byte == b'\n');
            let used = match end {
                Some(end) => end + 1,
                None if window.len() == NAME_BYTES => NAME_BYTES,
                None => return None,
            };
            let text = String::from_utf8_lossy(&rest[..end.unwrap_or(used)]);
            self.name = text.chars().filter(|c| !is_commanding(*c)).take(NAME_CHARS).collect();
            self.naming = false;
            return Some(used);
        }
        // A marker that starts within the limit lies within this window as a whole.
        let window = &rest[..rest.len().min(LINE_MAX + self.marker.len())];
        let end = window.iter().position(|byte| *byte == b'\n');
        let line = &window[..end.unwrap_or(window.len())];
        let marker = line.windows(self.marker.len()).position(|part| part[0] == MARKER_START && part == self.marker);
        if let Some(at) = marker {
            self.emit(&line[..at], pieces);
            self.naming = true;
            return Some(at + self.marker.len());
        }
        if let Some(end) = end {
            if end == 0 {
                self.append(b"\n", pieces);
            } else {
                self.emit(line, pieces);
            }
            return Some(end + 1);
        }
        if window.len() < LINE_MAX + self.marker.len() {
            return None;
        }
        let cut = cut(window);
        self.emit(&window[..cut], pieces);
        Some(cut)
    }

    /// Adds a line without its line feed, in pieces when it is long; nothing when it is empty.
    fn emit(&self, mut line: &[u8], pieces: &mut Vec<Piece>) {
        while !line.is_empty() {
            let (piece, rest) = line.split_at(cut(line));
            self.append(piece, pieces);
            self.append(b"\n", pieces);
            line = rest;
        }
    }

    fn append(&self, bytes: &[u8], pieces: &mut Vec<Piece>) {
        match pieces.last_mut() {
            Some(last) if last.name == self.name => last.lines.extend_from_slice(bytes),
            _ => pieces.push(Piece { name: self.name.clone(), lines: bytes.to_vec() }),
        }
    }
}

/// Whether a character of a name could give orders to a terminal: control characters (escape sequences begin with one) and
/// those that change the direction of writing.
fn is_commanding(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Where a line is cut: at the limit, or up to three bytes before it, so that no character is torn.
fn cut(line: &[u8]) -> usize {
    if line.len() <= LINE_MAX {
        return line.len();
    }
    let back = line[LINE_MAX - 3..=LINE_MAX].iter().rev().take_while(|byte| **byte & 0xc0 == 0x80).count();
    if back > 3 { LINE_MAX } else { LINE_MAX - back }
}

/// Lines that came before the first driver did; the oldest go when there are too many.
#[derive(Debug, Default)]
pub(crate) struct Unclaimed {
    messages: VecDeque<(FromDaemon, usize)>,
    bytes: usize,
}

impl Unclaimed {
    fn push(&mut self, message: FromDaemon, bytes: usize) {
        self.messages.push_back((message, bytes));
        self.bytes += bytes;
        while self.bytes > UNCLAIMED_MAX {
            let Some((_, bytes)) = self.messages.pop_front() else { break };
            self.bytes -= bytes;
        }
    }
}

impl Daemon {
    /// Passes on what a worker wrote.
    pub(crate) fn deliver(&mut self, worker: WorkerId, stream: Stream, pieces: Vec<Piece>) {
        for piece in pieces {
            let Some(child) = self.children.get_mut(&worker) else { return };
            if stream == Stream::Err {
                child.last_words.come_from(&piece.name);
                for line in piece.lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    let text = String::from_utf8_lossy(line).chars().take(LAST_LINE_CHARS).collect();
                    child.last_words.push(text);
                }
            }
            let started = child.running.as_ref().map(|running| running.pid);
            let lines = Bytes::new(piece.lines);
            if let Some(pid) = started {
                self.logs.write(pid, stream, &lines, &mut child.unlogged);
            }
            if !self.config.log_to_driver {
                continue;
            }
            let connected = self.processes.get(&worker).map(|process| process.pid);
            let pid = connected.or(started).unwrap_or(0);
            let nobody_yet = child.driver.is_none() && !self.processes.values().any(|process| process.driver);
            let bytes = lines.len();
            let message = FromDaemon::Output { stream: stream as u8, name: piece.name, pid, lines };
            if let Some(driver) = self.reader_of(worker) {
                self.send(driver, message, Vec::new());
            } else if nobody_yet {
                self.unclaimed.push(message, bytes);
            }
        }
    }

    /// The driver that sees what this worker writes: the one it works for, or the only one.
    pub(crate) fn reader_of(&self, worker: WorkerId) -> Option<WorkerId> {
        let only = || {
            let mut drivers = self.processes.iter().filter(|(_, process)| process.driver);
            drivers.next().filter(|_| drivers.next().is_none()).map(|(id, _)| *id)
        };
        self.children.get(&worker)?.driver.or_else(only)
    }

    /// A driver came: lines that waited for one are its.
    pub(crate) fn claim_output(&mut self, driver: WorkerId) {
        for (message, _) in std::mem::take(&mut self.unclaimed).messages {
            self.send(driver, message, Vec::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MARKER: [u8; 16] = [0xab; 16];

    fn mark(name: &str) -> Vec<u8> {
        format!("\x1e{} {name}\n", "ab".repeat(16)).into_bytes()
    }

    fn split(parts: &[&[u8]]) -> Vec<(String, String)> {
        let mut splitter = Splitter::new(&MARKER);
        let mut pieces: Vec<Piece> = parts.iter().flat_map(|part| splitter.feed(part)).collect();
        pieces.extend(splitter.finish());
        let mut joined: Vec<(String, String)> = Vec::new();
        for piece in pieces {
            let text = String::from_utf8_lossy(&piece.lines).into_owned();
            match joined.last_mut() {
                Some((name, lines)) if *name == piece.name => lines.push_str(&text),
                _ => joined.push((piece.name, text)),
            }
        }
        joined
    }

    fn named(name: &str, lines: &str) -> (String, String) {
        (name.to_owned(), lines.to_owned())
    }

    #[test]
    fn lines_carry_the_name_that_was_announced_before_them() {
        let (echo, sum) = (mark("echo"), mark("sum"));
        let out = split(&[b"early\n", &echo, b"a\nb", b"c\n\n", &sum, b"tail"]);
        assert_eq!(out, [named("", "early\n"), named("echo", "a\nbc\n\n"), named("sum", "tail\n")]);
    }

    #[test]
    fn a_marker_ends_a_line_that_was_not_ended() {
        let mut bytes = b"progress...".to_vec();
        bytes.extend(mark("next"));
        assert_eq!(split(&[&bytes, b"x\n"]), [named("", "progress...\n"), named("next", "x\n")]);
    }

    #[test]
    fn another_marker_and_escape_sequences_are_text() {
        let text = "\x1e0123 not ours\n\x1b[31mred\x1b[0m\t!\n";
        assert_eq!(split(&[text.as_bytes()]), [named("", text)]);
    }

    #[test]
    fn names_lose_control_characters_and_length() {
        let bytes = mark(&format!("a\x1b[2J\u{9b}\u{202e}b{}", "x".repeat(5000)));
        let out = split(&[&bytes, b"line\n"]);
        assert_eq!(out.last().map(|(name, _)| name.chars().count()), Some(NAME_CHARS));
        assert!(out.last().unwrap().0.starts_with("a[2Jbxxx"), "{out:?}");
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let line = "é".repeat(LINE_MAX);
        let mut splitter = Splitter::new(&MARKER);
        let mut pieces = splitter.feed(line.as_bytes());
        pieces.extend(splitter.finish());
        let lines: Vec<u8> = pieces.into_iter().flat_map(|piece| piece.lines).collect();
        let text = String::from_utf8(lines).expect("no character is torn");
        assert!(text.lines().all(|part| part.len() <= LINE_MAX));
        assert_eq!(text.replace('\n', ""), line);
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_makes_no_difference(
            texts in proptest::collection::vec((0..4_u8, 0_usize..70_000), 1..12),
            cuts in proptest::collection::vec(1_usize..80_000, 1..40),
        ) {
            let mut bytes = Vec::new();
            for (kind, len) in texts {
                match kind {
                    0 => bytes.extend(mark(&"n".repeat(len % 50))),
                    1 => bytes.extend(std::iter::repeat_n(b'x', len)),
                    2 => bytes.extend(std::iter::repeat_n("ü".as_bytes(), len / 2).flatten()),
                    _ => bytes.push(b'\n'),
                }
            }
            let mut parts = Vec::new();
            let (mut rest, mut cuts) = (&bytes[..], cuts.into_iter().cycle());
            while !rest.is_empty() {
                let (part, after) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
                parts.push(part);
                rest = after;
            }
            prop_assert_eq!(split(&parts), split(&[&bytes]));
        }
    }
}

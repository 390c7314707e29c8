//! The newest lines that a plugin wrote, for `kiwispray plugin logs`. They live in memory, are bounded, and outlive a component
//! that is replaced.
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::hooks::LogLine;

const LINES_MAX: usize = 500;
/// What the lines of a plugin take together.
const LINES_MAX_BYTES: usize = 512 << 10;

/// The memory of one plugin.
#[derive(Default)]
pub(super) struct Journal {
    lines: Mutex<Newest<LogLine>>,
}

impl Journal {
    /// Keeps a line. Its number is at least its time, so that whoever follows a plugin goes on behind a restart of the server.
    pub(super) fn write(&self, line: LogLine) {
        let fields: usize = line.fields.iter().map(|(key, value)| key.len() + value.len()).sum();
        let size = size_of::<LogLine>() + line.call.len() + line.text.len() + fields;
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = lines.items.back().map_or(0, |(line, _)| line.number);
        let line = LogLine { number: line.at_ms.max(newest.saturating_add(1)), ..line };
        lines.push(line, size, LINES_MAX, LINES_MAX_BYTES);
    }

    pub(super) fn lines(&self) -> Vec<LogLine> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.items.iter().map(|(line, _)| line.clone()).collect()
    }
}

/// A list that forgets the oldest: it has a length and a size that it never exceeds.
struct Newest<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
}

impl<T> Default for Newest<T> {
    fn default() -> Self {
        Self { items: VecDeque::new(), bytes: 0 }
    }
}

impl<T> Newest<T> {
    fn push(&mut self, item: T, bytes: usize, most: usize, most_bytes: usize) {
        if bytes > most_bytes {
            return;
        }
        self.bytes += bytes;
        self.items.push_back((item, bytes));
        while self.items.len() > most || self.bytes > most_bytes {
            let Some((_, bytes)) = self.items.pop_front() else { return };
            self.bytes -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::LogLevel;

    #[test]
    fn numbers_grow_with_every_line_and_over_a_restart() {
        let line = |at_ms| LogLine {
            number: 0,
            at_ms,
            level: LogLevel::Info,
            hook: None,
            call: String::new(),
            text: String::new(),
            fields: Vec::new(),
        };
        let numbers = |times: &[u64]| {
            let journal = Journal::default();
            times.iter().for_each(|at_ms| journal.write(line(*at_ms)));
            journal.lines().iter().map(|line| line.number).collect::<Vec<_>>()
        };
        assert_eq!(numbers(&[1_000, 1_000, 900, 2_000]), [1_000, 1_001, 1_002, 2_000]);
        assert_eq!(numbers(&[3_000]), [3_000]);
    }

    #[test]
    fn the_oldest_is_forgotten_by_number_and_by_size() {
        let mut newest = Newest::default();
        for n in 0..5 {
            newest.push(n, 10, 3, 100);
        }
        assert_eq!(newest.items, [(2, 10), (3, 10), (4, 10)]);
        newest.push(5, 75, 3, 100);
        assert_eq!(newest.items, [(3, 10), (4, 10), (5, 75)]);
        newest.push(6, 95, 3, 100);
        assert_eq!((newest.items.len(), newest.bytes), (1, 95));
        newest.push(7, 101, 3, 100);
        assert_eq!(newest.items, [(6, 95)]);
    }
}

//! The serial console of a machine, as text that can be waited for.

use std::io::{Read, Write as _};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// What a machine printed. Firmware's cursor movements are left out, so that what remains can be searched.
#[derive(Clone)]
pub(crate) struct Console {
    machine: String,
    shared: Arc<(Mutex<Printed>, Condvar)>,
}

#[derive(Default)]
struct Printed {
    text: String,
    /// Everything before this was already waited for.
    seen: usize,
    closed: bool,
}

impl Console {
    pub(crate) fn new(machine: &str) -> Self {
        Console { machine: machine.to_owned(), shared: Arc::default() }
    }

    /// Reads until the machine is off, in a thread of its own.
    pub(crate) fn follow(&self, mut serial: impl Read + Send + 'static, watch: bool) {
        let console = self.clone();
        std::thread::spawn(move || {
            let mut plain = Plain::default();
            let mut line = String::new();
            let mut bytes = [0_u8; 4096];
            while let Ok(length @ 1..) = serial.read(&mut bytes) {
                let text = plain.push(bytes.get(..length).unwrap_or_default());
                if watch {
                    console.echo(&mut line, &text);
                }
                console.change(|printed| printed.text.push_str(&text));
            }
            console.change(|printed| printed.closed = true);
        });
    }

    /// Waits until the machine prints `text` after what was last waited for.
    pub(crate) fn wait_for(&self, text: &str, timeout: Duration) -> Result<()> {
        self.wait_for_any(&[text], timeout).map(drop)
    }

    /// Waits for the first of several texts, and says which one it was.
    pub(crate) fn wait_for_any<'a>(&self, texts: &[&'a str], timeout: Duration) -> Result<&'a str> {
        let begin = Instant::now();
        let (lock, changed) = &*self.shared;
        let mut printed = lock.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let new = printed.text.get(printed.seen..).unwrap_or_default();
            let found = texts.iter().filter_map(|text| Some((new.find(text)?, *text))).min();
            if let Some((at, text)) = found {
                printed.seen += at + text.len();
                return Ok(text);
            }
            let left = timeout.saturating_sub(begin.elapsed());
            if left.is_zero() || printed.closed {
                let why = if printed.closed { "the machine went off" } else { "it did not come in time" };
                let wanted = texts.join("\" or \"");
                bail!(
                    "{}: waited {} s for \"{wanted}\" on the console, but {why}. Its last lines:\n{}",
                    self.machine,
                    begin.elapsed().as_secs(),
                    last_lines(&printed.text, 40)
                );
            }
            printed = changed.wait_timeout(printed, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// How often a text was printed so far.
    pub(crate) fn count(&self, text: &str) -> usize {
        let printed = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        printed.text.matches(text).count()
    }

    fn change(&self, change: impl FnOnce(&mut Printed)) {
        let (lock, changed) = &*self.shared;
        change(&mut lock.lock().unwrap_or_else(PoisonError::into_inner));
        changed.notify_all();
    }

    fn echo(&self, line: &mut String, text: &str) {
        for part in text.split_inclusive('\n') {
            line.push_str(part);
            if part.ends_with('\n') {
                let _ = writeln!(std::io::stdout().lock(), "{:>6} | {}", self.machine, line.trim_end());
                line.clear();
            }
        }
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).rev().take(count).collect();
    lines.reverse();
    lines.join("\n")
}

/// Leaves out terminal escape sequences and other control characters, over any split of the stream.
#[derive(Default)]
struct Plain {
    state: Escape,
}

#[derive(Default, Clone, Copy)]
enum Escape {
    #[default]
    Text,
    Begun,
    Sequence,
}

impl Plain {
    fn push(&mut self, bytes: &[u8]) -> String {
        let mut text = String::new();
        for byte in bytes {
            self.state = match (self.state, byte) {
                (Escape::Text, 0x1b) => Escape::Begun,
                (Escape::Text, b'\n' | b'\t' | b' '..=b'~') => {
                    text.push(char::from(*byte));
                    Escape::Text
                }
                (Escape::Text, _) => Escape::Text,
                (Escape::Begun, b'[') => Escape::Sequence,
                (Escape::Begun, _) => Escape::Text,
                (Escape::Sequence, b'@'..=b'~') => Escape::Text,
                (Escape::Sequence, _) => Escape::Sequence,
            };
        }
        text
    }
}

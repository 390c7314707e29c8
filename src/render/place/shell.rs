//! Places in a POSIX shell script (and bash's common additions): a value brings its own single quotes, so it may stand only
//! where quotes begin a quoted word.

use super::Misplaced;

/// What encloses the current place, innermost last.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Frame {
    Double,
    Backtick,
    /// `${…}`
    Parameter,
    /// `$((…))`, with the parentheses opened within.
    Arithmetic(usize),
    /// `((…))`, bash's arithmetic or a subshell in a subshell, with the parentheses opened within.
    Doubled(usize),
    /// `$(…)`, with the parentheses opened within.
    Substitution(usize),
}

/// What the characters are part of.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mode {
    Code,
    Single,
    Comment,
    /// The word after `<<`.
    Delimiter,
    /// A here-document, with its current line so far.
    Body(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct HereDocument {
    delimiter: String,
    strips_tabs: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShellPlace {
    mode: Mode,
    frames: Vec<Frame>,
    /// Here-documents announced and not yet ended; the first is being read in `Mode::Body`.
    awaited: Vec<HereDocument>,
    escaped: bool,
    /// The last two characters, for `$(`, `$((`, `<<`, `<<<` and the beginning of words.
    last: [char; 2],
}

impl Default for ShellPlace {
    fn default() -> ShellPlace {
        ShellPlace { mode: Mode::Code, frames: Vec::new(), awaited: Vec::new(), escaped: false, last: ['\n'; 2] }
    }
}

impl ShellPlace {
    pub(super) fn text(&mut self, text: &str) {
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let next = chars.peek().copied();
            match &mut self.mode {
                Mode::Single => {
                    if c == '\'' {
                        self.mode = Mode::Code;
                    }
                }
                Mode::Comment => {
                    if c == '\n' {
                        self.newline();
                    }
                }
                Mode::Body(line) => {
                    if c == '\n' {
                        let line = std::mem::take(line);
                        self.body_line(&line);
                    } else {
                        line.push(c);
                    }
                }
                Mode::Delimiter => self.delimiter(c),
                Mode::Code => self.code(c, next),
            }
            self.last = [self.last[1], c];
        }
    }

    pub(super) fn value(&mut self) -> Result<(), Misplaced> {
        const UNQUOTED: &str = "take it out of the quotes, as it brings its own: `echo \"Host \"{{host.hostname}}`";
        let refuse = |what, remedy| Err(Misplaced { what, remedy });
        match self.mode {
            Mode::Single => return refuse("a value stands inside single quotes", UNQUOTED),
            Mode::Comment => {
                return refuse("a value stands in a comment, which its line breaks would leave", "remove it");
            }
            Mode::Delimiter | Mode::Body(_) => {
                return refuse(
                    "a value stands in a here-document, where the shell would expand it",
                    "write it with `printf '%s\\n' {{value}}` instead",
                );
            }
            Mode::Code => {}
        }
        if self.escaped || self.last[1] == '$' {
            return refuse(
                "a value follows a backslash or dollar sign, which changes its quotes",
                "remove that character",
            );
        }
        match self.frames.last() {
            None | Some(Frame::Substitution(_)) => {
                self.last = [self.last[1], 'v'];
                Ok(())
            }
            Some(Frame::Double) => refuse("a value stands inside double quotes", UNQUOTED),
            Some(Frame::Backtick) => refuse("a value stands inside backticks", "use $(…) instead of backticks"),
            Some(Frame::Parameter) => {
                refuse("a value stands inside ${…}", "assign it to a shell variable first: `x={{value}}`")
            }
            // bash runs what stands in brackets there, quoted or in a variable.
            Some(Frame::Arithmetic(_) | Frame::Doubled(_)) => refuse(
                "a value stands inside $((…)) or ((…)), which bash runs commands of",
                "assign it to a shell variable and let only digits through: `x={{value}}; case $x in *[!0-9]*) exit 1;; esac`",
            ),
        }
    }

    fn code(&mut self, c: char, next: Option<char>) {
        if self.escaped {
            self.escaped = false;
            return;
        }
        let after_dollar = self.last[1] == '$';
        let in_double = matches!(self.frames.last(), Some(Frame::Double));
        match c {
            '\\' => self.escaped = true,
            '"' if in_double => self.close(),
            '"' => self.frames.push(Frame::Double),
            '`' if matches!(self.frames.last(), Some(Frame::Backtick)) => self.close(),
            '`' => self.frames.push(Frame::Backtick),
            '{' if after_dollar => self.frames.push(Frame::Parameter),
            '}' if matches!(self.frames.last(), Some(Frame::Parameter)) => self.close(),
            // The second parenthesis of `$((` is then counted as one opened within.
            '(' if after_dollar && next == Some('(') => self.frames.push(Frame::Arithmetic(0)),
            '(' if after_dollar => self.frames.push(Frame::Substitution(0)),
            '(' if next == Some('(') && !in_double && self.at_word_start() => self.frames.push(Frame::Doubled(0)),
            '(' | ')' => self.parenthesis(c),
            _ if in_double => {}
            '\'' => self.mode = Mode::Single,
            '#' if self.at_word_start() && !self.in_expansion() => self.mode = Mode::Comment,
            '<' if self.last[1] == '<' && self.last[0] != '<' && next != Some('<') && !self.in_expansion() => {
                self.awaited.push(HereDocument { delimiter: String::new(), strips_tabs: false });
                self.mode = Mode::Delimiter;
            }
            '\n' => self.newline(),
            _ => {}
        }
    }

    fn close(&mut self) {
        self.frames.pop();
    }

    fn parenthesis(&mut self, c: char) {
        if let Some(Frame::Arithmetic(open) | Frame::Doubled(open) | Frame::Substitution(open)) = self.frames.last_mut()
        {
            match (c, *open) {
                ('(', _) => *open += 1,
                (_, 0) => self.close(),
                (_, _) => *open -= 1,
            }
        }
    }

    fn in_expansion(&self) -> bool {
        matches!(self.frames.last(), Some(Frame::Parameter | Frame::Arithmetic(_)))
    }

    fn at_word_start(&self) -> bool {
        self.last[1].is_whitespace() || matches!(self.last[1], ';' | '&' | '|' | '(' | ')')
    }

    fn newline(&mut self) {
        self.mode = if self.awaited.is_empty() { Mode::Code } else { Mode::Body(String::new()) };
    }

    fn delimiter(&mut self, c: char) {
        let Some(document) = self.awaited.last_mut() else {
            self.mode = Mode::Code;
            return;
        };
        // An open quote keeps blanks within the word; it is kept as the word's first character until it closes.
        let quote = document.delimiter.chars().next().filter(|q| matches!(q, '\'' | '"'));
        match c {
            '\n' => self.newline(),
            c if Some(c) == quote => {
                document.delimiter.remove(0);
                self.mode = Mode::Code;
            }
            '-' if document.delimiter.is_empty() && !document.strips_tabs => document.strips_tabs = true,
            '\\' => {}
            c if quote.is_none() && (c.is_whitespace() || matches!(c, ';' | '&' | '|' | ')' | '>')) => {
                if !document.delimiter.is_empty() {
                    self.mode = Mode::Code;
                }
            }
            c => document.delimiter.push(c),
        }
    }

    fn body_line(&mut self, line: &str) {
        let ended = self.awaited.first().is_some_and(|document| {
            let line = if document.strips_tabs { line.trim_start_matches('\t') } else { line };
            line == document.delimiter
        });
        if ended {
            self.awaited.remove(0);
        }
        self.newline();
    }
}

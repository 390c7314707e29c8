//! Shell scripts: every value is given to a shell variable at the beginning, where nothing can make code of it, and the
//! script reads that variable wherever the original put the value itself.
//!
//! The invariant: a value stands in the template only as the whole right side of an assignment. A mistake in following the
//! script's quotes could therefore show a `${…}` that is not expanded, but never run a value.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::placeholder::{Piece, Placeholder, all_in, metadata_path, pieces};

/// A script in the words of kiwispray.
#[derive(Debug)]
pub(super) struct Translated {
    pub(super) text: String,
    /// What a person should look at.
    pub(super) notes: Vec<String>,
}

/// Whether the first line says that a shell runs this.
pub(super) fn is_shell(text: &str) -> bool {
    let Some(line) = text.strip_prefix("#!").and_then(|rest| rest.lines().next()) else { return true };
    let words = line.split_whitespace().map(|word| word.rsplit('/').next().unwrap_or(word));
    let mut programs = words.filter(|word| *word != "env" && !word.starts_with('-'));
    programs.next().is_some_and(|name| matches!(name, "sh" | "bash" | "dash" | "ash" | "ksh" | "zsh"))
}

/// Translates a shell script.
pub(super) fn translate(text: &str, from: &str) -> Translated {
    let mut names = Names::default();
    let mut notes = Vec::new();
    let (shebang, body) = match text.split_once('\n') {
        Some((first, body)) if first.starts_with("#!") => (first.trim_end(), body),
        Some(_) | None => ("#!/bin/sh", text),
    };
    let body = Reader::default().script(body, &mut names, &mut notes);
    let mut out = format!("{{{{!-- Translated from KIWIspray's {from}. --}}}}\n{}\n", plain(shebang));
    if !names.0.is_empty() {
        out.push_str(
            "# What KIWIspray put into this script in place of @…@. Each is one word, whatever is in it: where several\n\
             # words are meant, take the quotes away.\n",
        );
        names.assignments(&mut out);
    }
    out.push_str(&body);
    Translated { text: out, notes }
}

/// Text of the original that handlebars must not read.
pub(super) fn plain(text: &str) -> String {
    text.replace("{{", "\\{{")
}

/// The shell variables that stand for values.
#[derive(Default)]
struct Names(BTreeMap<String, Placeholder>);

impl Names {
    fn of(&mut self, value: &Placeholder) -> String {
        let base = match value {
            Placeholder::Base => "ks_server".to_owned(),
            Placeholder::ServerIp => "ks_server_ip".to_owned(),
            Placeholder::ServerPort => "ks_server_port".to_owned(),
            Placeholder::Metadata(key) => {
                let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
                format!("ks_metadata_{}", key.chars().map(word).collect::<String>())
            }
            Placeholder::Id
            | Placeholder::Hostname
            | Placeholder::State
            | Placeholder::Macs
            | Placeholder::Serial
            | Placeholder::Uuid
            | Placeholder::BootId
            | Placeholder::HostData => format!("ks_{}", value.original().trim_matches('@').to_ascii_lowercase()),
        };
        // `a.b` and `a_b` are two keys.
        let mut name = base.clone();
        for number in 2..=self.0.len().saturating_add(2) {
            match self.0.get(&name) {
                Some(known) if known == value => return name,
                Some(_) => name = format!("{base}_{number}"),
                None => break,
            }
        }
        self.0.insert(name.clone(), value.clone());
        name
    }

    fn assignments(&self, out: &mut String) {
        let needs_address = self.0.values().any(|v| matches!(v, Placeholder::ServerIp | Placeholder::ServerPort));
        if needs_address {
            out.push_str(
                "ks_server_ip={{server.base}}\nks_server_ip=${ks_server_ip#*://}\nks_server_port=${ks_server_ip##*:}\n\
                 if [ \"$ks_server_port\" = \"$ks_server_ip\" ]; then ks_server_port=80; fi\n\
                 ks_server_ip=${ks_server_ip%:*}\n",
            );
        }
        for (name, value) in &self.0 {
            // Writing to a string cannot fail.
            let _ = match value {
                Placeholder::Base => writeln!(out, "{name}={{{{server.base}}}}"),
                Placeholder::ServerIp | Placeholder::ServerPort => Ok(()),
                Placeholder::Id => writeln!(out, "{name}={{{{host.id}}}}"),
                Placeholder::Hostname => {
                    writeln!(out, "{name}={{{{#if host.hostname}}}}{{{{host.hostname}}}}{{{{else}}}}not-set{{{{/if}}}}")
                }
                Placeholder::State => writeln!(out, "{name}={{{{host.state}}}}"),
                Placeholder::Macs => writeln!(
                    out,
                    "{name}=\n{{{{#each host.macs}}}}\n{name}=\"${{{name}:+${name} }}\"{{{{this}}}}\n{{{{/each}}}}\n\
                     {name}=$(printf %s \"${name}\" | tr a-f A-F)"
                ),
                Placeholder::Serial => writeln!(out, "{name}={{{{host.serial}}}}"),
                Placeholder::Uuid => {
                    writeln!(out, "{name}={{{{host.uuid}}}}\n{name}=$(printf %s \"${name}\" | tr a-f A-F)")
                }
                Placeholder::BootId => writeln!(out, "{name}={{{{bootid}}}}"),
                // Echoes for a console, which no script has asked for.
                Placeholder::HostData => writeln!(out, "{name}="),
                Placeholder::Metadata(key) => {
                    let (path, original) = (metadata_path(key), value.original());
                    writeln!(
                        out,
                        "{name}={{{{#if {path} includeZero=true}}}}{{{{{path}}}}}{{{{else}}}}'{original}'{{{{/if}}}}"
                    )
                }
            };
        }
    }
}

/// What encloses the current place, innermost last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Frame {
    Double,
    /// `$(…)` or a parenthesis within.
    Parenthesis,
    /// `${…}`
    Brace,
    /// `$((…))`
    Arithmetic,
}

/// A here-document that begins with the next line.
struct Awaited {
    delimiter: String,
    strips_tabs: bool,
    is_quoted: bool,
}

/// Follows quotes, so that it is known what a value must look like.
#[derive(Default)]
struct Reader {
    frames: Vec<Frame>,
    in_single: bool,
    awaited: Vec<Awaited>,
    /// Whether the line calculates with a value.
    calculates: bool,
}

impl Reader {
    fn script(mut self, text: &str, names: &mut Names, notes: &mut Vec<String>) -> String {
        let mut out = String::with_capacity(text.len());
        let mut lines = text.split_inclusive('\n').enumerate();
        while let Some((number, line)) = lines.next() {
            let begun = out.len();
            self.line(line, names, &mut out);
            if std::mem::take(&mut self.calculates) {
                notes.push(format!(
                    "line {}: it calculates with a value, and bash runs what stands in brackets there: let only digits through",
                    number + 2
                ));
            }
            for document in std::mem::take(&mut self.awaited) {
                let mut body = Vec::new();
                for (_, line) in lines.by_ref() {
                    body.push(line);
                    if document.ends_with(line) {
                        break;
                    }
                }
                let has_values = body.iter().any(|line| !all_in(line).is_empty());
                if document.is_quoted && has_values {
                    // Nothing is put into what a quoted here-document holds.
                    let announced = unquoted(&out.split_off(begun), &document);
                    out.push_str(&announced);
                    notes.push(format!(
                        "line {}: the here-document {} was quoted and holds values: its $, ` and \\ are escaped now",
                        number + 2,
                        document.delimiter
                    ));
                }
                for line in body {
                    body_line(line, &document, document.is_quoted && has_values, names, &mut out);
                }
            }
        }
        out
    }

    fn line(&mut self, line: &str, names: &mut Names, out: &mut String) {
        let mut before = '\n';
        let mut in_comment = false;
        // What is gone through word by word is meant to be several.
        let is_list = line.trim_start().starts_with("for ");
        for piece in pieces(line) {
            match piece {
                Piece::Value(value) if in_comment => out.push_str(&value.original()),
                Piece::Value(value) if self.in_single => {
                    let _ = write!(out, "'\"${{{}}}\"'", names.of(&value));
                    before = 'v';
                }
                Piece::Value(value) => {
                    // `\@id@` was `@id@` with a backslash that meant nothing.
                    if before == '\\' && out.ends_with('\\') {
                        out.pop();
                    }
                    let is_code = matches!(self.frames.last(), None | Some(Frame::Parenthesis));
                    self.calculates |= self.frames.last() == Some(&Frame::Arithmetic);
                    let _ = match (is_code, is_list || value == Placeholder::Macs) {
                        (true, false) => write!(out, "\"${{{}}}\"", names.of(&value)),
                        (false, _) | (true, true) => write!(out, "${{{}}}", names.of(&value)),
                    };
                    before = 'v';
                }
                Piece::Text(text) if in_comment => out.push_str(&plain(text)),
                Piece::Text(text) => {
                    in_comment = self.text(text, &mut before);
                    out.push_str(&plain(text));
                }
            }
        }
    }

    /// Follows text; whether it ends in a comment.
    fn text(&mut self, text: &str, before: &mut char) -> bool {
        let mut rest = text.char_indices();
        while let Some((at, c)) = rest.next() {
            let last = std::mem::replace(before, c);
            if self.in_single {
                self.in_single = c != '\'';
                continue;
            }
            let tail = text.get(at..).unwrap_or_default();
            let frame = self.frames.last().copied();
            let in_double = frame == Some(Frame::Double);
            match c {
                '\\' if rest.next().is_some() => *before = 'x',
                '"' if in_double => self.pop(),
                '"' => self.frames.push(Frame::Double),
                '$' if tail.starts_with("$((") => {
                    self.frames.push(Frame::Arithmetic);
                    rest.nth(1);
                }
                '$' if tail.starts_with("$(") => {
                    self.frames.push(Frame::Parenthesis);
                    rest.next();
                    *before = '(';
                }
                '$' if tail.starts_with("${") => {
                    self.frames.push(Frame::Brace);
                    rest.next();
                }
                '}' if frame == Some(Frame::Brace) => self.pop(),
                ')' if frame == Some(Frame::Arithmetic) && tail.starts_with("))") => {
                    self.pop();
                    rest.next();
                }
                '(' if frame == Some(Frame::Parenthesis) => self.frames.push(Frame::Parenthesis),
                ')' if frame == Some(Frame::Parenthesis) => self.pop(),
                _ if in_double => {}
                '\'' if frame != Some(Frame::Arithmetic) => self.in_single = true,
                '#' if matches!(frame, None | Some(Frame::Parenthesis))
                    && (last.is_whitespace() || matches!(last, ';' | '&' | '|' | '(')) =>
                {
                    return true;
                }
                '<' if matches!(frame, None | Some(Frame::Parenthesis)) && tail.starts_with("<<") => {
                    let skipped = if tail.starts_with("<<<") { 3 } else { self.here_document(tail) };
                    for _ in 1..skipped {
                        rest.next();
                    }
                    *before = 'x';
                }
                _ => {}
            }
        }
        false
    }

    fn pop(&mut self) {
        self.frames.pop();
    }

    /// Notes the here-document that a text begins with, and returns how many characters announce it.
    fn here_document(&mut self, tail: &str) -> usize {
        let after = tail.get(2..).unwrap_or_default();
        let strips_tabs = after.starts_with('-');
        let after = after.strip_prefix('-').unwrap_or(after);
        let word = after.trim_start_matches([' ', '\t']);
        let blanks = after.len() - word.len();
        let quote = word.chars().next().filter(|c| matches!(c, '\'' | '"'));
        let (delimiter, length) = match quote {
            Some(quote) => {
                let inner = word.get(1..).and_then(|inner| inner.split(quote).next()).unwrap_or_default();
                (inner.to_owned(), inner.chars().count() + 2)
            }
            None => {
                let ends = |c: char| c.is_whitespace() || matches!(c, ';' | '&' | '|' | ')' | '>' | '<');
                let inner = word.split(ends).next().unwrap_or_default();
                (inner.replace('\\', ""), inner.chars().count())
            }
        };
        let is_quoted = quote.is_some() || word.starts_with('\\');
        if !delimiter.is_empty() {
            self.awaited.push(Awaited { delimiter, strips_tabs, is_quoted });
        }
        2 + usize::from(strips_tabs) + blanks + length
    }
}

impl Awaited {
    fn ends_with(&self, line: &str) -> bool {
        let bare = line.trim_end_matches(['\n', '\r']);
        self.delimiter == if self.strips_tabs { bare.trim_start_matches('\t') } else { bare }
    }

    /// A delimiter that needs no quotes.
    fn unquoted(&self) -> &str {
        let is_plain = self.delimiter.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if is_plain { &self.delimiter } else { "end_of_here_document" }
    }
}

/// A line of a here-document, with shell variables in place of values.
fn body_line(line: &str, document: &Awaited, escapes: bool, names: &mut Names, out: &mut String) {
    if escapes && document.ends_with(line) {
        out.push_str(&line.replace(&document.delimiter, document.unquoted()));
        return;
    }
    for piece in pieces(line) {
        match piece {
            Piece::Text(text) if escapes => {
                let text = text.replace('\\', "\\\\").replace('$', "\\$").replace('`', "\\`");
                out.push_str(&plain(&text));
            }
            Piece::Text(text) => out.push_str(&plain(text)),
            Piece::Value(value) => {
                // Writing to a string cannot fail.
                let _ = write!(out, "${{{}}}", names.of(&value));
            }
        }
    }
}

/// The line that announces a here-document, with its delimiter unquoted.
fn unquoted(line: &str, document: &Awaited) -> String {
    let delimiter = &document.delimiter;
    let quoted = [format!("'{delimiter}'"), format!("\"{delimiter}\""), format!("\\{delimiter}")];
    match quoted.iter().find(|quoted| line.contains(quoted.as_str())) {
        Some(quoted) => line.replacen(quoted.as_str(), document.unquoted(), 1),
        None => line.to_owned(),
    }
}

//! The manual and the READMEs as data: blocks, inline code, headings, links, and the remarks that only tests read.
//!
//! The convention, which `docs/README.md` tells authors: the first word after a fence is the language; the words after it,
//! which no reader sees, say what a test makes of the block. A remark `<!-- test: … -->` is what happens between two blocks.

use std::fs;
use std::path::{Path, PathBuf};

/// One page of Markdown.
#[derive(Debug)]
pub(crate) struct Page {
    /// Where it is, from the root of the checkout.
    pub(crate) path: PathBuf,
    /// What stands on it, in order.
    pub(crate) parts: Vec<Part>,
}

/// A piece of a page.
#[derive(Debug)]
pub(crate) enum Part {
    Block(Block),
    /// A line of text, with its number, from 1.
    Line(usize, String),
    /// `<!-- test: … -->`, with the number of its line.
    Remark(usize, String),
}

/// Text between two fences.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    /// The line of the first fence, from 1.
    pub(crate) line: usize,
    /// The first word after the fence, or nothing.
    pub(crate) language: String,
    /// The other words after the fence.
    pub(crate) words: Vec<String>,
    pub(crate) text: String,
}

/// A command of a block, and what is shown of what it prints.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) line: usize,
    pub(crate) command: String,
    pub(crate) output: Vec<String>,
}

/// The root of the checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every page of the manual, by path.
pub(crate) fn manual() -> Vec<Page> {
    let mut paths = Vec::new();
    pages_below(&root().join("docs"), &mut paths);
    paths.sort();
    paths.iter().map(|path| Page::read(path)).collect()
}

/// Every page that a newcomer may read: the manual, and the READMEs of what ships.
pub(crate) fn all() -> Vec<Page> {
    let mut paths = Vec::new();
    for folder in ["docs", "images", "plugins", "sdk", "examples"] {
        pages_below(&root().join(folder), &mut paths);
    }
    paths.extend(["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(|name| root().join(name)));
    paths.sort();
    paths.iter().map(|path| Page::read(path)).collect()
}

fn pages_below(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() && !["node_modules", "target"].contains(&name.as_str()) && !name.starts_with('.') {
            pages_below(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            into.push(path);
        }
    }
}

impl Page {
    /// Reads a page by its path.
    pub(crate) fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self::parse(path.strip_prefix(root()).unwrap_or(path), &text)
    }

    pub(crate) fn parse(path: &Path, text: &str) -> Self {
        let mut parts = Vec::new();
        let mut open: Option<(Block, usize)> = None;
        for (number, line) in (1..).zip(text.lines()) {
            let bare = line.trim_start();
            match &mut open {
                Some(_) if bare.trim_end() == "```" => parts.extend(open.take().map(|(block, _)| Part::Block(block))),
                Some((block, indent)) => {
                    // A block in a list is as far to the right as its fence.
                    let kept =
                        line.char_indices().find(|(at, c)| at == indent || *c != ' ').map_or(line.len(), |(at, _)| at);
                    block.text.push_str(&line[kept..]);
                    block.text.push('\n');
                }
                None => match bare.strip_prefix("```") {
                    Some(info) => {
                        let mut words = info.split_whitespace().map(str::to_owned);
                        let language = words.next().unwrap_or_default();
                        let block = Block { line: number, language, words: words.collect(), text: String::new() };
                        open = Some((block, line.len() - bare.len()));
                    }
                    None => {
                        let remark = bare.strip_prefix("<!-- test: ").and_then(|rest| rest.strip_suffix(" -->"));
                        parts.push(match remark {
                            Some(remark) => Part::Remark(number, remark.to_owned()),
                            None => Part::Line(number, line.to_owned()),
                        });
                    }
                },
            }
        }
        assert!(open.is_none(), "{}: a block is not closed", path.display());
        Self { path: path.to_owned(), parts }
    }

    pub(crate) fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.parts.iter().filter_map(|part| match part {
            Part::Block(block) => Some(block),
            Part::Line(..) | Part::Remark(..) => None,
        })
    }

    /// Lines of text with their numbers.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.parts.iter().filter_map(|part| match part {
            Part::Line(number, line) => Some((*number, line.as_str())),
            Part::Block(_) | Part::Remark(..) => None,
        })
    }

    /// Inline code, with the number of the line on which it begins. A span may go over two lines.
    pub(crate) fn spans(&self) -> Vec<(usize, String)> {
        let mut spans = Vec::new();
        let mut open: Option<(usize, String)> = None;
        for (number, line) in self.lines() {
            // A span ends with its paragraph at the latest.
            if line.trim().is_empty() {
                open = None;
                continue;
            }
            for (index, piece) in line.split('`').enumerate() {
                if index > 0 {
                    match open.take() {
                        Some(span) => spans.push(span),
                        None => open = Some((number, String::new())),
                    }
                }
                if let Some((_, text)) = &mut open {
                    text.push_str(piece);
                }
            }
            if let Some((_, text)) = &mut open {
                text.push(' ');
            }
        }
        spans
    }

    /// The anchors of its headings, as mdBook and most forges make them.
    pub(crate) fn anchors(&self) -> Vec<String> {
        let headings = self.lines().filter_map(|(_, line)| {
            let text = line.trim_start_matches('#');
            (text.len() < line.len()).then(|| text.strip_prefix(' ')).flatten()
        });
        headings.map(anchor).collect()
    }

    /// The targets of its links, with the numbers of their lines.
    pub(crate) fn links(&self) -> Vec<(usize, String)> {
        let mut links = Vec::new();
        for (number, line) in self.lines() {
            // What stands in code is no link.
            let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
            links.extend(
                prose.split("](").skip(1).filter_map(|rest| Some((number, rest.split_once(')')?.0.to_owned()))),
            );
        }
        links
    }
}

fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

impl Block {
    pub(crate) fn has(&self, word: &str) -> bool {
        self.words.iter().any(|known| known == word)
    }

    /// What stands after `key:` among its words.
    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        self.words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix(':'))
    }

    /// The commands of a `console` block: what stands after `$ ` or `# `, over as many lines as end with a backslash.
    pub(crate) fn shown(&self) -> Vec<Shown> {
        let mut all: Vec<Shown> = Vec::new();
        let mut goes_on = false;
        for (number, line) in (self.line + 1..).zip(self.text.lines()) {
            let begun = line.strip_prefix("$ ").or_else(|| line.strip_prefix("# "));
            match (all.last_mut(), begun) {
                (Some(last), _) if goes_on => {
                    last.command.push('\n');
                    last.command.push_str(line.trim());
                }
                (_, Some(command)) => {
                    all.push(Shown { line: number, command: command.to_owned(), output: Vec::new() });
                }
                (Some(last), None) => last.output.push(line.to_owned()),
                (None, None) => panic!("line {number}: output before any command"),
            }
            goes_on = all.last().is_some_and(|last| last.output.is_empty() && last.command.ends_with('\\'));
        }
        all
    }
}

/// Whether what was printed is what is shown. Numbers and blanks may differ, `…` and `...` stand for anything, and on a line
/// of their own for any lines.
pub(crate) fn is_as_shown(shown: &[String], printed: &str) -> bool {
    let shown: Vec<String> = shown.iter().map(|line| plain(line)).filter(|line| !line.is_empty()).collect();
    let printed: Vec<String> = printed.lines().map(plain).filter(|line| !line.is_empty()).collect();
    if shown.is_empty() {
        return true;
    }
    lines_match(&shown, &printed)
}

fn lines_match(shown: &[String], printed: &[String]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((first, rest)) if first == "…" => {
            (0..=printed.len()).any(|skipped| lines_match(rest, &printed[skipped..]))
        }
        Some((first, rest)) => match printed.split_first() {
            Some((line, others)) => line_matches(first, line) && lines_match(rest, others),
            None => false,
        },
    }
}

/// Whether a printed line is one that is shown.
pub(crate) fn line_matches(shown: &str, printed: &str) -> bool {
    let (shown, mut rest) = (plain(shown), &*plain(printed));
    let mut pieces = shown.split('…').map(str::trim);
    let Some(first) = pieces.next() else { return false };
    let Some(after) = rest.strip_prefix(first) else { return false };
    rest = after;
    let pieces: Vec<&str> = pieces.collect();
    for (index, piece) in pieces.iter().enumerate() {
        if index + 1 == pieces.len() {
            return rest.ends_with(piece);
        }
        match rest.split_once(piece) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.is_empty()
}

/// A line with single blanks, and every number as `0`.
fn plain(line: &str) -> String {
    let mut plain = String::new();
    for word in line.replace("...", "…").split_whitespace() {
        if !plain.is_empty() {
            plain.push(' ');
        }
        for c in word.chars() {
            let digit = if c.is_ascii_digit() { '0' } else { c };
            if digit != '0' || !plain.ends_with('0') {
                plain.push(digit);
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# The `first` page\n\nSee [there](a.md#x), not `[here](b.md)`, `one\ntwo`.\n<!-- test: machine 1 asks -->\n\
        1. In a list:\n\n   ```console hardware as:file\n   # kiwispray serve \\\n   --init\n   out 3 s ago\n   \n   $ true\n   ```\n";

    #[test]
    fn a_page_is_read_as_its_author_meant_it() {
        let page = Page::parse(Path::new("page.md"), PAGE);
        assert_eq!(page.anchors(), ["the-first-page"]);
        assert_eq!(page.links(), [(3, "a.md#x".to_owned())]);
        let spans: Vec<String> = page.spans().into_iter().map(|(_, span)| span).collect();
        assert_eq!(spans, ["first", "[here](b.md)", "one two"]);
        assert!(page.parts.iter().any(|part| matches!(part, Part::Remark(5, remark) if remark == "machine 1 asks")));
        let block = page.blocks().next().unwrap();
        assert!(block.has("hardware") && block.value("as") == Some("file"));
        let shown = block.shown();
        assert_eq!(shown[0].command, "kiwispray serve \\\n--init");
        assert_eq!((shown[0].output.join("|"), shown[1].command.as_str()), ("out 3 s ago|".to_owned(), "true"));
    }

    #[test]
    fn what_is_printed_may_differ_in_numbers_and_blanks_only() {
        let is = |shown: &[&str], printed: &str| {
            is_as_shown(&shown.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>(), printed)
        };
        assert!(is(&["1   new  3 s ago"], "12 new 140 s ago\n"));
        assert!(is(&["a … z", "…", "end"], "a b c z\nmore\nlines\nend\n"));
        assert!(is(&[], "anything"));
        for (shown, printed) in
            [(&["new"][..], "newer"), (&["a", "b"], "a"), (&["a"], "a\nb"), (&["a … z"], "a b"), (&["x…"], "y")]
        {
            assert!(!is(shown, printed), "{shown:?} {printed:?}");
        }
    }
}

//! What the manual promises is so: its commands exist and do what is shown, its links lead somewhere, its settings are
//! accepted, and nothing that a reader could need is missing from it.
//!
//! `docs/README.md` tells authors the convention. `walk` runs the commands of every page; the tests here read.

mod holds;
mod reference;
mod walk;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use clap::error::ErrorKind;

use crate::support::book::{Block, Page, all, manual, root};
use crate::support::server::command;
use crate::support::{Run, Site};

/// Words after a fence that say why a block is not run here.
const NOT_RUN: [&str; 4] = ["hardware", "root", "qemu", "elsewhere"];

/// Languages whose lines are commands.
const SHELLS: [&str; 3] = ["sh", "bash", "console"];

/// The pages that a reader of the book has, and the first one of the repository.
fn book() -> Vec<Page> {
    let mut pages = manual();
    pages.push(Page::read(&root().join("README.md")));
    pages
}

/// Commands of a block, with comments, prompts and the ends of continued lines left out.
fn command_lines(block: &Block) -> Vec<(usize, String)> {
    if block.language == "console" {
        let joined = |command: &str| command.replace("\\\n", " ");
        return block.shown().iter().map(|shown| (shown.line, joined(&shown.command))).collect();
    }
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut goes_on = false;
    for (number, line) in (block.line + 1..).zip(block.text.lines()) {
        let line = line.trim();
        let (text, more) = line.strip_suffix('\\').map_or((line, false), |text| (text, true));
        match lines.last_mut() {
            Some((_, last)) if goes_on => last.push_str(text),
            _ => lines.push((number, text.to_owned())),
        }
        goes_on = more;
    }
    let start = |line: &str| line.strip_prefix("ExecStart=").map(str::to_owned);
    match &*block.language {
        "sh" | "bash" => lines,
        "ini" => lines.iter().filter_map(|(number, line)| Some((*number, start(line)?))).collect(),
        _ => Vec::new(),
    }
}

/// The calls of kiwispray in a line of shell, as words. What a shell would do itself (quotes, pipes, comments, settings of
/// variables) is done as far as a manual needs it.
fn calls(line: &str) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, '|' | ';' | '&' | '(' | ')') => {
                words.extend(word.take());
                all.push(std::mem::take(&mut words));
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    all.push(words);
    all.into_iter().filter_map(|words| call(&words)).collect()
}

/// The call of kiwispray that these words are, if they are one.
fn call(words: &[String]) -> Option<Vec<String>> {
    let is_before = |word: &&String| word.contains('=') || ["sudo", "time", "then", "do", "!"].contains(&word.as_str());
    let mut words: Vec<String> = words.iter().skip_while(is_before).cloned().collect();
    if words.starts_with(&["cargo".into(), "run".into()]) {
        let program = words.iter().position(|word| word == "--")?;
        words.drain(..=program);
        words.insert(0, "kiwispray".into());
    }
    let is_ours = words.first()?.rsplit('/').next()? == "kiwispray";
    // A redirection is the shell's.
    let end = words.iter().position(|word| word.starts_with('>') || word.starts_with("2>")).unwrap_or(words.len());
    words.truncate(end);
    is_ours.then_some(words)
}

/// What clap says to a call; help and version are fine.
fn complaint(words: &[String]) -> Option<(ErrorKind, String)> {
    let error = kiwispray::cli::command().try_get_matches_from(words).err()?;
    let kind = error.kind();
    let is_fine = matches!(kind, ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    (!is_fine).then(|| (kind, error.to_string()))
}

/// Fails with everything that was found, if anything was.
#[track_caller]
fn none_of(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn every_command_in_a_block_can_be_typed() {
    let mut problems = Vec::new();
    let mut seen = 0;
    for page in all() {
        for block in page.blocks() {
            for (number, line) in command_lines(block) {
                for words in calls(&line) {
                    seen += 1;
                    if let Some((_, why)) = complaint(&words) {
                        problems.push(format!("{}:{number}: {line}\n{why}", page.path.display()));
                    }
                }
            }
            let is_hidden = |line: &str| line.starts_with("$ kiwispray ") || line.starts_with("# kiwispray ");
            if !SHELLS.contains(&&*block.language) && block.text.lines().any(is_hidden) {
                problems.push(format!("{}:{}: commands belong in a console block", page.path.display(), block.line));
            }
        }
    }
    none_of(&problems);
    assert!(seen > 50, "{seen} commands: are the blocks still read?");
}

/// In a sentence a command may lack arguments, and `a | b` or `a|b` stands for several.
#[test]
fn every_command_in_a_sentence_exists() {
    let mut problems = Vec::new();
    let mut seen = 0;
    for page in all() {
        for (number, span) in page.spans() {
            let words: Vec<String> = span.split_whitespace().map(|word| word.replace(['\'', '"'], "")).collect();
            if words.first().is_none_or(|first| first != "kiwispray") || words.len() < 2 {
                continue;
            }
            seen += 1;
            let variants = words.iter().find(|word| word.contains('|')).map_or(vec![words.clone()], |several| {
                let one = |choice: &str| {
                    words.iter().map(|word| if word == several { choice.to_owned() } else { word.clone() }).collect()
                };
                several.split('|').map(one).collect()
            });
            let is_wrong = |kind| {
                !matches!(
                    kind,
                    ErrorKind::MissingRequiredArgument
                        | ErrorKind::MissingSubcommand
                        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                        | ErrorKind::InvalidValue
                        | ErrorKind::ValueValidation
                )
            };
            let complaints = variants.iter().filter_map(|words| complaint(words)).filter(|(kind, _)| is_wrong(*kind));
            problems.extend(complaints.map(|(_, why)| format!("{}:{number}: {span}\n{why}", page.path.display())));
        }
    }
    none_of(&problems);
    assert!(seen > 50, "{seen} commands: are the sentences still read?");
}

#[test]
fn every_command_of_the_program_is_in_the_manual() {
    let mut told: BTreeSet<Vec<String>> = BTreeSet::new();
    // The reference is made of the program, so it does not count.
    for page in manual().iter().filter(|page| !page.path.ends_with("cli.md")) {
        let blocks = page.blocks().flat_map(command_lines).flat_map(|(_, line)| calls(&line));
        let spans = page.spans().into_iter().map(|(_, span)| span.split_whitespace().map(str::to_owned).collect());
        for words in blocks.chain(spans) {
            told.extend((2..=words.len()).map(|count| words[..count].to_vec()));
        }
    }
    let mut missing = Vec::new();
    let program = kiwispray::cli::command();
    for path in reference::paths(&program) {
        if !told.contains(&path) {
            missing.push(format!("the manual never says `{}`", path.join(" ")));
        }
    }
    none_of(&missing);
}

#[test]
fn every_link_leads_somewhere() {
    let mut problems = Vec::new();
    for page in all() {
        let folder = root().join(page.path.parent().unwrap());
        for (number, target) in page.links() {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = target.split_once('#').map_or((&*target, None), |(file, anchor)| (file, Some(anchor)));
            let path = if file.is_empty() { root().join(&page.path) } else { folder.join(file) };
            let place = format!("{}:{number}", page.path.display());
            if !path.exists() {
                problems.push(format!("{place}: there is no {target}"));
                continue;
            }
            let whole = fs::canonicalize(&path).unwrap();
            if page.path.starts_with("docs/src") && !whole.starts_with(root().join("docs/src")) {
                problems.push(format!("{place}: {target} is not in the book, whose readers may have nothing else"));
            }
            if let Some(anchor) = anchor
                && !Page::read(&whole).anchors().iter().any(|known| known == anchor)
            {
                problems.push(format!("{place}: {file} has no heading #{anchor}"));
            }
        }
    }
    none_of(&problems);
}

#[test]
fn every_chapter_is_in_the_table_of_contents_once() {
    let source = root().join("docs/src");
    let listed: Vec<PathBuf> =
        Page::read(&source.join("SUMMARY.md")).links().into_iter().map(|(_, target)| source.join(target)).collect();
    let distinct: BTreeSet<PathBuf> = listed.iter().cloned().collect();
    assert_eq!(listed.len(), distinct.len(), "a chapter is listed twice");
    let chapters: BTreeSet<PathBuf> = manual()
        .iter()
        .map(|page| root().join(&page.path))
        .filter(|path| path.starts_with(&source) && !path.ends_with("SUMMARY.md"))
        .collect();
    assert_eq!(distinct, chapters);
}

#[test]
fn every_setting_that_is_shown_is_accepted() {
    let mut problems = Vec::new();
    let mut seen = 0;
    for page in book() {
        // What is no configuration says so: an image's manifest, a plugin's own file.
        for block in page.blocks().filter(|block| block.language == "toml" && block.words.is_empty()) {
            seen += 1;
            let site = Site::new();
            fs::write(site.path("shown.toml"), &block.text).unwrap();
            let mut check = command(&site);
            check.args(["config", "check", "shown.toml", "--json", "--data-dir", "data", "--init"]);
            check.args(["--images-dir", "images", "--plugins-dir", "plugins"]);
            let run = Run::of(check);
            let document: serde_json::Value = serde_json::from_str(&run.out).unwrap_or_else(|_| panic!("{run:?}"));
            // Whether the files that it names are here is another question.
            let wrong = document["findings"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|finding| finding["check"] == "config" && finding["verdict"] == "fail");
            problems.extend(wrong.map(|finding| format!("{}:{}: {finding}", page.path.display(), block.line)));
        }
    }
    none_of(&problems);
    assert!(seen >= 3, "{seen} blocks of settings: are they still read?");
}

#[test]
fn every_built_in_template_is_in_the_manual() {
    let told: Vec<String> =
        Page::read(&root().join("docs/src/templates.md")).spans().into_iter().map(|(_, span)| span).collect();
    let files = fs::read_dir(root().join("templates")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().to_string_lossy().trim_end_matches(".hbs").to_owned());
    // A name that begins with a line is a part of others.
    let missing: Vec<String> = names.filter(|name| !name.starts_with('_') && !told.contains(name)).collect();
    assert!(missing.is_empty(), "docs/src/templates.md does not tell {}", missing.join(", "));
}

#[test]
fn words_after_a_fence_are_known() {
    let mut problems = Vec::new();
    for page in book() {
        for block in page.blocks() {
            let known = |word: &&String| {
                NOT_RUN.contains(&word.as_str())
                    || ["fails", "image", "plugin"].contains(&word.as_str())
                    || word.starts_with("as:")
            };
            problems.extend(
                block
                    .words
                    .iter()
                    .filter(|word| !known(word))
                    .map(|word| format!("{}:{}: {word} is not in docs/README.md", page.path.display(), block.line)),
            );
        }
    }
    none_of(&problems);
}

#[test]
fn lines_of_shell_are_split_as_a_shell_would() {
    let line =
        "KIWISPRAY_JSON=true sudo kiwispray host set 3 -m '{\"a\": 1}' | jq . ; (true && bin/kiwispray fsck) >x # why";
    let found: Vec<String> = calls(line).iter().map(|words| words.join("·")).collect();
    assert_eq!(found, ["kiwispray·host·set·3·-m·{\"a\": 1}", "bin/kiwispray·fsck"]);
    assert_eq!(calls("cargo run --release -- serve --init")[0], ["kiwispray", "serve", "--init"]);
    assert!(complaint(&["kiwispray".into(), "host".into(), "lsit".into()]).is_some());
}

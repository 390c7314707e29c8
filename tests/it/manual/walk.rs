//! Runs what the manual shows: the `console` blocks of a page in order, in an empty folder, against a server of its own, and
//! compares what they print with what is shown. Machines, and whatever else a reader is assumed to have, come from remarks.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use crate::migrate::Original;
use crate::support::book::{Block, Page, Part, Shown, all, is_as_shown, root};
use crate::support::shell::typed;
use crate::support::{Machine, Run, Server, Site, archive};

use super::NOT_RUN;

/// Set by authors who want to see what is printed.
const SHOWS: &str = "SHOW_PRINTED";

/// One page, being followed.
struct Walk {
    server: Server,
    machines: BTreeMap<u32, Machine>,
}

impl Walk {
    fn new() -> Self {
        Self { server: Site::new().serve(), machines: BTreeMap::new() }
    }

    fn follow(&mut self, page: &Page) {
        for part in &page.parts {
            match part {
                Part::Block(block) => self.block(page, block),
                Part::Remark(line, remark) => self.remark(remark, &format!("{}:{line}", page.path.display())),
                Part::Line(..) => {}
            }
        }
    }

    fn block(&self, page: &Page, block: &Block) {
        if let Some(name) = block.value("as") {
            fs::write(self.server.site.path(name), &block.text).unwrap();
        }
        if block.language == "console" && is_run(block) {
            for shown in block.shown() {
                self.command(&shown, block.has("fails"), &format!("{}:{}", page.path.display(), shown.line));
            }
        }
    }

    fn command(&self, shown: &Shown, fails: bool, place: &str) {
        let (succeeded, printed) = typed(shown, self.server.site.root());
        if std::env::var_os(SHOWS).is_some() {
            eprintln!("{place}: $ {}\n{printed}", shown.command);
        }
        assert_eq!(!succeeded, fails, "{place}: {} has ended otherwise:\n{printed}", shown.command);
        assert!(
            is_as_shown(&shown.output, &printed),
            "{place}: {} is shown to print\n\n{}\n\nand printed\n\n{printed}",
            shown.command,
            shown.output.join("\n")
        );
    }

    /// Something that happens between two blocks; `docs/README.md` lists them.
    fn remark(&mut self, remark: &str, place: &str) {
        let words: Vec<&str> = remark.split_whitespace().collect();
        match words.as_slice() {
            ["machine", number, rest @ ..] => {
                let number: u32 = number.parse().unwrap_or_else(|_| panic!("{place}: {number} is no number"));
                self.machine(number, rest, place);
            }
            ["machines", range, "ask"] => {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let numbers = first.parse::<u32>().unwrap()..=last.parse().unwrap();
                numbers.for_each(|number| self.machine(number, &["asks"], place));
            }
            ["image", name] => self.server.site.add_kiwi(name),
            ["archive", file] => fs::write(self.server.site.path(file), archive::kiwi(&[7; 8192])).unwrap(),
            ["original", folder] => {
                let to = self.server.site.path(folder);
                fs::create_dir_all(&to).unwrap();
                let original = Original::full();
                let mut copy = Command::new("cp");
                copy.arg("-a").arg(original.path(".")).arg(&to);
                Run::of(copy).done();
            }
            ["description", folder] => {
                fs::create_dir_all(self.server.site.path(folder)).unwrap();
                let shipped = root().join("tests/e2e/kiwi/description/config.xml");
                fs::copy(shipped, self.server.site.path(folder).join("config.xml")).unwrap();
            }
            ["server", "stops"] => drop(self.server.terminate()),
            ["server", "starts"] => self.server.restart(),
            // Those of blocks that are run with QEMU only.
            ["terminals", "close"] => {}
            ["in", "the", "checkout", name] => {
                std::os::unix::fs::symlink(root().join(name), self.server.site.path(name)).unwrap();
            }
            _ => panic!("{place}: nobody knows how to do: {remark}"),
        }
    }

    fn machine(&mut self, number: u32, what: &[&str], place: &str) {
        let server = &self.server;
        let machine = self.machines.entry(number).or_insert_with(|| Machine::new(number));
        match what {
            ["asks"] => drop(machine.boot(server)),
            ["installs"] => machine.boots(server).install(server),
            ["begins"] => machine.boots(server).load(server),
            ["fetches", "everything"] => machine.boots(server).fetch_all(server),
            ["fails", reason] => {
                let boot = machine.boots(server);
                boot.load(server);
                server.get(&format!("{}&reason={reason}", boot.call("fail"))).expect(200);
            }
            ["boots", "its", "disk"] => drop(machine.boots_its_disk(server)),
            ["waits"] => drop(machine.holds(server, "")),
            ["has", name, value] => *machine = machine.clone().but(name, value),
            _ => panic!("{place}: a machine cannot do: {}", what.join(" ")),
        }
    }
}

fn is_run(block: &Block) -> bool {
    !block.words.iter().any(|word| NOT_RUN.contains(&word.as_str()))
}

/// Pages that have something to run.
fn pages() -> Vec<Page> {
    let runs = |page: &Page| page.blocks().any(|block| block.language == "console" && is_run(block));
    all().into_iter().filter(runs).collect()
}

#[test]
fn what_the_manual_shows_is_what_comes() {
    let pages = pages();
    // Each page is a story of its own; side by side they take as long as the longest.
    let failed: Vec<String> = std::thread::scope(|scope| {
        let follow = |page| move || Walk::new().follow(page);
        let running: Vec<_> = pages.iter().map(|page| (page, scope.spawn(follow(page)))).collect();
        let ended = running.into_iter().map(|(page, thread)| (page, thread.join()));
        ended.filter(|(_, end)| end.is_err()).map(|(page, _)| page.path.display().to_string()).collect()
    });
    assert!(failed.is_empty(), "see above: {}", failed.join(", "));
    assert!(pages.len() >= 3, "only {} pages show anything", pages.len());
}

//! A newcomer follows the manual's first chapter: its `qemu` blocks are typed as they stand there, in order, in an empty
//! folder beside a checkout.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::book::{Block, Page, Part, Shown, is_as_shown, root};
use crate::console::Console;
use crate::payload;
use crate::shell::{newcomer, typed};

const CHAPTER: &str = "docs/src/first-deploy.md";
/// From one line that is shown to the next; firmware and kernel start without KVM.
const PATIENCE: Duration = Duration::from_secs(240);
/// How long a command that shows a state may be repeated: a machine's console and the server's answer are not one moment.
const SETTLES: Duration = Duration::from_secs(20);

/// What runs in a terminal until it is closed.
struct Terminal {
    console: Console,
    child: Child,
}

struct Newcomer {
    home: PathBuf,
    /// Where the terminal of the present block is.
    folder: PathBuf,
    terminals: Vec<Terminal>,
    watch: bool,
    begin: Instant,
    typed: u32,
}

pub(crate) fn run(dir: &Path, watch: bool) -> Result<u32> {
    let home = dir.join("home");
    fs::create_dir(&home)?;
    symlink(root(), home.join("kiwispray"))?;
    let folder = home.clone();
    let mut newcomer = Newcomer { home, folder, terminals: Vec::new(), watch, begin: Instant::now(), typed: 0 };
    for part in &Page::read(&root().join(CHAPTER)).parts {
        match part {
            Part::Block(block) if block.has("qemu") => {
                newcomer.block(block).with_context(|| format!("{CHAPTER}, the block at line {}", block.line))?;
            }
            Part::Remark(_, remark) if remark == "terminals close" => newcomer.terminals.clear(),
            Part::Block(_) | Part::Line(..) | Part::Remark(..) => {}
        }
    }
    ensure!(newcomer.typed > 10, "only {} commands: are the blocks still marked?", newcomer.typed);
    Ok(newcomer.typed)
}

impl Newcomer {
    fn block(&mut self, block: &Block) -> Result<()> {
        self.folder = self.home.clone();
        if block.language == "text" {
            let machine = self.terminals.last().context("no machine runs")?;
            return wait_for(&machine.console, block.text.lines());
        }
        block.shown().iter().try_for_each(|shown| self.command(shown))
    }

    fn command(&mut self, shown: &Shown) -> Result<()> {
        let runs_on = ["kiwispray serve ", "qemu-system-"].iter().any(|begin| shown.command.starts_with(begin));
        if let Some(folder) = shown.command.strip_prefix("cd ").or(shown.command.strip_prefix("mkdir try && cd ")) {
            self.folder = self.home.join(folder);
            fs::create_dir_all(&self.folder)?;
        } else if runs_on {
            self.open(shown)?;
        } else {
            self.type_in(shown)?;
        }
        self.typed += 1;
        println!("ok {:4} s: {}", self.begin.elapsed().as_secs(), shown.command.replace("\\\n", ""));
        Ok(())
    }

    fn open(&mut self, shown: &Shown) -> Result<()> {
        let mut shell = newcomer(&format!("exec 2>&1\nexec {}", shown.command), &self.folder);
        let mut child = shell.stdout(Stdio::piped()).spawn()?;
        let name = shown.command.split(['-', ' ']).next().unwrap_or_default();
        let console = Console::new(name);
        console.follow(child.stdout.take().context("no output")?, self.watch);
        self.terminals.push(Terminal { console: console.clone(), child });
        wait_for(&console, shown.output.iter().map(String::as_str))
    }

    fn type_in(&self, shown: &Shown) -> Result<()> {
        let tree = payload::kernel_tree()?;
        let command = format!("export KERNEL_TREE='{}'; {}", tree.display(), shown.command);
        let begin = Instant::now();
        loop {
            let (succeeded, printed) = typed(&Shown { command: command.clone(), ..shown.clone() }, &self.folder);
            ensure!(succeeded, "`{}` failed:\n{printed}", shown.command);
            if is_as_shown(&shown.output, &printed) {
                return Ok(());
            }
            let only_looks = shown.command.contains("host list") || shown.command.contains("host events");
            if !only_looks || begin.elapsed() > SETTLES {
                bail!(
                    "`{}` is shown to print\n\n{}\n\nand printed\n\n{printed}",
                    shown.command,
                    shown.output.join("\n")
                );
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

/// Waits for lines in this order; of a line with a gap, for its longest part.
fn wait_for<'l>(console: &Console, lines: impl Iterator<Item = &'l str>) -> Result<()> {
    for line in lines {
        let longest = line.split('…').map(str::trim).max_by_key(|part| part.len()).unwrap_or_default();
        if !longest.is_empty() {
            console.wait_for(longest, PATIENCE)?;
        }
    }
    Ok(())
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Politely: dnsmasq is the server's to end.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = rustix::process::Pid::from_raw(pid)
                .map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::TERM));
        }
        let _ = self.child.wait();
    }
}

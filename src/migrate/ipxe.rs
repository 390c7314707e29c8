//! iPXE scripts: what they boot, and the same script in the words of kiwispray.
//!
//! The invariant: how an image is fetched is never taken over as it was written. Kernel and initrd come from below the boot
//! of one host, and the command line is the server's, with the image's own arguments behind it; so that what is fetched is
//! counted, and an installation is not carried out twice.

use std::collections::BTreeMap;

use super::placeholder::{Piece, Placeholder, metadata_path, pieces};
use super::shell::plain;

/// What the script that boots an image says.
#[derive(Debug, Default)]
pub(super) struct BootScript {
    /// The file that is loaded as the kernel.
    pub(super) kernel: Option<String>,
    /// The file that is loaded first beside it.
    pub(super) initrd: Option<String>,
    /// The disk image that KIWI's installer is told of.
    pub(super) payload: Option<String>,
    /// Whether KIWI's installer is booted.
    pub(super) is_kiwi: bool,
    /// The disk that the command line names.
    pub(super) device: Option<String>,
    /// Kernel arguments that are the same for every host.
    pub(super) append: String,
    /// Whether it says nothing that the manifest and the built-in script would not say, too.
    pub(super) is_plain: bool,
    /// The script in the words of kiwispray.
    pub(super) text: String,
    /// What a person should look at.
    pub(super) notes: Vec<String>,
}

/// Which variables a script has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variables {
    /// Of a boot of an image.
    Image,
    /// Of a state that is booted by a template.
    State,
    /// Of the scripts for machines that wait.
    Waiting,
    /// Of the script that leads to the local disk: the host may be unknown, and there is no server.
    Local,
}

/// Where the original serves the files of an image, as it is written in its templates.
const IMAGES: &str = "http://@SERVER_IP@:@SERVER_PORT@/images/";
/// Longest text after settings were put in: they may name each other.
const LONGEST_LINE: usize = 8 * 1024;
/// Arguments that the server adds by itself.
const OWN_WORDS: [&str; 8] = [
    "rd.kiwi.install.pxe",
    "rd.kiwi.install.image",
    "rd.kiwi.install.pass.bootparam",
    "rd.kiwi.oem.installdevice",
    "rd.kiwi.oem.smallest_disk",
    "BOOTIF",
    "razorurl",
    "initrd",
];

/// Reads the script that boots an image.
pub(super) fn boot_script(text: &str, state: &str) -> BootScript {
    let mut reader = Reader { state, settings: BTreeMap::new(), script: BootScript::default() };
    let frees = text.lines().any(|line| line.trim().starts_with("imgfree"));
    let mut lines = Vec::new();
    let mut is_plain = true;
    let mut dynamic = false;
    for (at, line) in text.lines().enumerate() {
        let command = line.split_whitespace().next().unwrap_or_default();
        match command {
            "#!ipxe" => {
                lines.push("#!ipxe".to_owned());
                if !frees {
                    lines.push("# Kernels from 5.7 on are handed every image still in memory, and panic.".to_owned());
                    lines.push("imgfree".to_owned());
                }
            }
            "set" => {
                reader.set(line);
                lines.extend(reader.line(line, at + 1));
            }
            "kernel" | "imgload" | "imgselect" => {
                let (line, has_more) = reader.kernel(line);
                dynamic |= has_more;
                lines.push(line);
            }
            "initrd" | "imgfetch" | "module" => lines.extend(reader.initrd(line, at + 1)),
            _ => {
                is_plain &= is_usual(line.trim());
                lines.extend(reader.line(line, at + 1));
            }
        }
    }
    let mut script = reader.script;
    script.is_plain = is_plain && !dynamic && script.kernel.is_some();
    script.text = lines.join("\n") + "\n";
    script
}

/// Translates a script that boots no image of its own.
pub(super) fn plain_script(text: &str, variables: Variables) -> (String, Vec<String>) {
    let mut notes = Vec::new();
    let mut lines = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if variables == Variables::Waiting && is_waiting(line) {
            notes.push(format!("line {}: machines that wait ask again in seconds now, from here on", at + 1));
            lines.push("{{> _wait}}".to_owned());
            break;
        }
        match inline(&exits(line), variables, false) {
            Ok(line) => lines.push(line),
            Err(what) => {
                notes.push(format!("line {}: {what}", at + 1));
                lines.push(format!("# Left out, see `kiwispray migrate`: line {} of the original.", at + 1));
            }
        }
    }
    if variables == Variables::Waiting && !lines.iter().any(|line| line == "{{> _wait}}") {
        lines.push("{{> _wait}}".to_owned());
    }
    if variables == Variables::Local && !lines.iter().any(|line| line == "exit 1") {
        lines.push("exit 1".to_owned());
    }
    (lines.join("\n") + "\n", notes)
}

/// What the original's own scripts say beside what they boot.
fn is_usual(line: &str) -> bool {
    let words = line.strip_prefix("echo").unwrap_or("-").trim_start();
    let echoes = ["KIWIspray node", "Installation ", "Kernel args:", "kernel ", "initrd "];
    line.is_empty()
        || line.starts_with('#')
        || words.is_empty()
        || echoes.iter().any(|usual| words.starts_with(usual))
        || line.starts_with("sleep ")
        || line == "boot"
        || line == ":error"
        || line == "imgfree"
        || (line.starts_with("prompt ") && line.contains("iPXE shell"))
}

/// Whether a line of a script for machines without an order is where they stay.
fn is_waiting(line: &str) -> bool {
    let line = line.trim();
    line.starts_with("prompt") || line.starts_with("sleep") || line.starts_with("reboot") || line == "shell"
}

/// `exit` and `exit 0` end in the setup of some firmware.
fn exits(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    if words.first().is_none_or(|first| first.starts_with('#') || *first == "echo") {
        return line.to_owned();
    }
    let joins = |word: Option<&&str>| word.is_none_or(|word| matches!(*word, "||" | "&&") || word.starts_with('#'));
    let mut out: Vec<&str> = Vec::new();
    let mut at = 0;
    while let Some(word) = words.get(at) {
        at += 1;
        let begins = joins(out.last());
        out.push(word);
        if begins && *word == "exit" {
            if words.get(at) == Some(&"0") && joins(words.get(at + 1)) {
                at += 1;
                out.push("1");
            } else if joins(words.get(at)) {
                out.push("1");
            }
        }
    }
    if out == words { line.to_owned() } else { out.join(" ") }
}

struct Reader<'a> {
    state: &'a str,
    settings: BTreeMap<String, String>,
    script: BootScript,
}

impl Reader<'_> {
    fn set(&mut self, line: &str) {
        let mut words = line.trim_start().splitn(3, char::is_whitespace);
        let name = words.nth(1).unwrap_or_default();
        let value = self.expanded(words.next().unwrap_or_default().trim());
        self.settings.insert(name.split(':').next().unwrap_or(name).to_owned(), value);
    }

    /// The text with the script's own settings in it; those that iPXE knows stay.
    fn expanded(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for _ in 0..8 {
            let mut out = String::with_capacity(text.len());
            let mut rest = text.as_str();
            while let Some((before, after)) = rest.split_once("${") {
                out.push_str(before);
                match after.split_once('}') {
                    Some((name, behind)) => {
                        match self.settings.get(name) {
                            Some(value) => out.push_str(value),
                            None => out.push_str(&format!("${{{name}}}")),
                        }
                        rest = behind;
                    }
                    None => {
                        out.push_str("${");
                        rest = after;
                    }
                }
            }
            out.push_str(rest);
            if out == text || out.len() > LONGEST_LINE {
                break;
            }
            text = out;
        }
        text
    }

    /// The name of an image's file, if this is its URL.
    fn file<'t>(&self, url: &'t str) -> Option<&'t str> {
        let rest = url.strip_prefix(IMAGES)?;
        let rest = rest.strip_prefix("@state@").or_else(|| rest.strip_prefix(self.state))?;
        let name = rest.trim_start_matches('/');
        (rest.starts_with('/') && !name.is_empty() && !name.contains('/')).then_some(name)
    }

    fn line(&mut self, line: &str, number: usize) -> Option<String> {
        // Files of the image are fetched as those of the boot, however the script puts their URL together.
        let line = if line.trim_start().starts_with("echo") || line.trim_start().starts_with("set") {
            line.to_owned()
        } else {
            let whole = self.expanded(line);
            if whole.contains(IMAGES) { whole } else { line.to_owned() }
        };
        let line = exits(&line);
        match self.rendered(&line, false) {
            Ok(line) => Some(line),
            Err(what) => {
                self.script.notes.push(format!("line {number}: {what}"));
                None
            }
        }
    }

    fn rendered(&self, text: &str, as_argument: bool) -> Result<String, String> {
        let own = format!("{IMAGES}{}/", self.state);
        let of_state = format!("{IMAGES}@state@/");
        let parts = text.split(&of_state).flat_map(|part| part.split(&own).map(str::to_owned).collect::<Vec<_>>());
        let parts: Result<Vec<String>, String> =
            parts.map(|part| inline(&part, Variables::Image, as_argument)).collect();
        Ok(parts?.join("{{url boot.files}}"))
    }

    /// The kernel line of kiwispray, and whether it has arguments that differ from host to host.
    fn kernel(&mut self, line: &str) -> (String, bool) {
        let (command, tail) = cut(line);
        let whole = self.expanded(command);
        let mut words = whole.split_whitespace().skip(1).peekable();
        while words.next_if(|word| word.starts_with('-')).is_some() {
            // `--name NAME`
            words.next_if(|word| !word.contains("://"));
        }
        let url = words.next().unwrap_or_default();
        if self.script.kernel.is_some() {
            self.script.notes.push("it loads two kernels: only the first was taken".to_owned());
        }
        self.script.kernel = self.script.kernel.take().or_else(|| self.file(url).map(str::to_owned));
        let (mut fixed, mut by_host) = (Vec::new(), Vec::new());
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            match key {
                "rd.kiwi.install.image" => {
                    self.script.is_kiwi = true;
                    self.script.payload = self.file(value).filter(|name| !name.contains('@')).map(str::to_owned);
                }
                "rd.kiwi.install.pxe" => self.script.is_kiwi = true,
                "rd.kiwi.oem.installdevice" if !value.contains(['@', '$']) => {
                    self.script.device = Some(value.to_owned());
                }
                "rd.kiwi.oem.smallest_disk" => self.script.device = Some("smallest".to_owned()),
                "rd.kiwi.oem.installdevice" => {
                    let what = format!("{word}: name the disk of a host by its metadata install_device");
                    self.script.notes.push(what);
                }
                _ if OWN_WORDS.contains(&key) => {}
                _ if pieces(word).iter().any(|piece| matches!(piece, Piece::Value(_))) || word.contains("${") => {
                    match self.rendered(word, true) {
                        Ok(word) => by_host.push(word),
                        Err(what) => self.script.notes.push(format!("the argument {word} was left out: {what}")),
                    }
                }
                _ if word.parse::<crate::images::KernelArgs>().is_ok() => fixed.push(word),
                _ => self.script.notes.push(format!("the argument {word} was left out: it cannot pass a boot script")),
            }
        }
        self.script.append = fixed.join(" ");
        let more = by_host.iter().map(|word| format!(" {word}")).collect::<String>();
        let tail = inline(&exits(tail), Variables::Image, false).unwrap_or_default();
        (format!("kernel {{{{url boot.files}}}}{{{{boot.kernel}}}} {{{{cmdline}}}}{more}{tail}"), !by_host.is_empty())
    }

    fn initrd(&mut self, line: &str, number: usize) -> Option<String> {
        let (command, tail) = cut(line);
        let whole = self.expanded(command);
        let url = whole.split_whitespace().find(|word| word.contains("://")).unwrap_or_default();
        let file = self.file(url).map(str::to_owned);
        if self.script.initrd.is_some() || file.is_none() {
            self.script.notes.push(format!("line {number}: look at this second or foreign file: {}", line.trim()));
            return self.line(line, number);
        }
        self.script.initrd = file;
        let tail = inline(&exits(tail), Variables::Image, false).unwrap_or_default();
        Some(format!("initrd --name initrd {{{{url boot.files}}}}{{{{boot.initrd}}}}{tail}"))
    }
}

/// A command and what is done when it succeeds or fails.
fn cut(line: &str) -> (&str, &str) {
    let at = [" ||", " &&"].into_iter().filter_map(|end| line.find(end)).min().unwrap_or(line.len());
    line.split_at(at)
}

/// A text with its placeholders in handlebars, or what has no counterpart.
fn inline(text: &str, variables: Variables, as_argument: bool) -> Result<String, String> {
    // In a comment nothing is needed, and a value would only be in the way.
    if text.trim_start().starts_with('#') {
        return Ok(plain(text));
    }
    let mut out = String::new();
    for piece in pieces(text) {
        match piece {
            Piece::Text(text) => out.push_str(&plain(text)),
            Piece::Value(value) => out.push_str(&expression(&value, variables, as_argument)?),
        }
    }
    Ok(out)
}

fn expression(value: &Placeholder, variables: Variables, as_argument: bool) -> Result<String, String> {
    let helper = if as_argument { "arg " } else { "" };
    let nothing = || Err(format!("{} has no counterpart here: that line was left out", value.original()));
    let or = |path: &str, otherwise: &str| {
        format!("{{{{#if {path} includeZero=true}}}}{{{{{helper}{path}}}}}{{{{else}}}}{otherwise}{{{{/if}}}}")
    };
    let of_host = |path: &str| {
        if variables == Variables::Local { or(path, "unknown") } else { format!("{{{{{helper}{path}}}}}") }
    };
    Ok(match value {
        Placeholder::Base if variables == Variables::Local => return nothing(),
        Placeholder::Base => "{{url server.base}}".to_owned(),
        Placeholder::ServerIp | Placeholder::ServerPort => return nothing(),
        Placeholder::Id => of_host("host.id"),
        Placeholder::Hostname => or("host.hostname", "not-set"),
        Placeholder::State => of_host("host.state"),
        Placeholder::Serial => of_host("host.serial"),
        Placeholder::Uuid => of_host("host.uuid"),
        Placeholder::Macs => "{{#each host.macs}}{{this}}{{#unless @last}} {{/unless}}{{/each}}".to_owned(),
        Placeholder::BootId => match variables {
            Variables::Image => "{{boot.bootid}}".to_owned(),
            Variables::State => "{{bootid}}".to_owned(),
            Variables::Waiting | Variables::Local => return nothing(),
        },
        Placeholder::HostData => {
            let shown = ["id", "hostname", "state", "serial", "uuid"];
            let lines = shown.map(|name| format!("echo * {name}: \"{{{{host.{name}}}}}\"\n"));
            let lines = lines.concat() + "{{#each host.macs}}\necho * mac: \"{{this}}\"\n{{/each}}";
            if variables == Variables::Local { format!("{{{{#if host}}}}\n{lines}\n{{{{/if}}}}") } else { lines }
        }
        Placeholder::Metadata(key) => or(&metadata_path(key), &value.original()),
    })
}

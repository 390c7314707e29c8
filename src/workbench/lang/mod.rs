//! Plugins in languages that bring their own engine: a tool of the language makes the component of the plugin's folder, and of
//! a world with nothing but what plugin.toml names.
//!
//! Invariants: the tool is the pinned version, in a folder of its own below the user's cache; what it made imports nothing of
//! WASI and nothing that plugin.toml does not name, or it is refused.
mod js;
mod python;
mod world;

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::component::{Inspected, NotAComponent, inspect};
use super::manifest::{Lang, Manifest};
use world::{WORLD, world};

/// The folder in the plugin's own for what is generated.
const WORK: &str = ".kiwispray";
const CONTRACT: &str = include_str!("../../../sdk/wit/0.1.0/plugin.wit");
/// Marks a tool that was installed whole.
const INSTALLED: &str = ".installed";
/// Lines of what a tool said that are worth showing.
const SAID_MAX_LINES: usize = 20;

/// Why a plugin was not built.
#[derive(Debug, thiserror::Error)]
pub enum LangError {
    /// There is no such program.
    #[error("cannot run {program}: {error}. {remedy}")]
    NoProgram {
        /// Its name.
        program: String,
        /// Why.
        error: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// The tool could not be fetched.
    #[error("{tool} cannot be installed, which needs the network once:\n{said}")]
    NotInstalled {
        /// With its version.
        tool: String,
        /// What the installer said.
        said: String,
    },
    /// The tool found something in the plugin.
    #[error("the plugin was not built:\n{0}")]
    NotBuilt(String),
    /// The tool made something else.
    #[error("{tool} made no component: {error}")]
    NoComponent {
        /// With its version.
        tool: String,
        /// Why not.
        error: NotAComponent,
    },
    /// The component would want what it cannot get.
    #[error("the component imports `{0}`, which plugin.toml does not name: this should not happen, please report it")]
    Import(String),
    /// There is no folder for tools.
    #[error("no home directory, and XDG_CACHE_HOME is not set: there is no place for the tools of plugins")]
    NoHome,
    /// A file.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// A program that makes components, in one version.
struct Tool {
    /// Its package.
    package: &'static str,
    version: &'static str,
    /// Commands that install it into an empty folder, one after the other.
    install: fn(folder: &Path) -> Vec<Command>,
    /// What to do where their programs are missing.
    remedy: &'static str,
}

/// Makes the component of a plugin's folder. For Rust, whose compiler needs none of this, there is nothing to call.
pub(super) fn build(folder: &Path, manifest: &Manifest, make: Make) -> Result<Vec<u8>, LangError> {
    let work = folder.join(WORK);
    write(&work.join("wit/world.wit"), &world(&manifest.hooks, &manifest.imports))?;
    write(&work.join("wit/deps/kiwispray/plugin.wit"), CONTRACT)?;
    let out = work.join("component.wasm");
    let tool = make.tool;
    let at = tool.installed(&tools()?)?;
    let mut command = (make.command)(&at, folder, manifest, &out)?;
    // What it prints about itself is noise, so only a failure is shown.
    let output = run(&mut command, tool.remedy)?;
    if !output.status.success() {
        return Err(LangError::NotBuilt((make.said)(&said(&output))));
    }
    let bytes = fs::read(&out).map_err(|error| LangError::File { path: out, error })?;
    let component = inspect(&bytes).map_err(|error| LangError::NoComponent { tool: tool.name(), error })?;
    only_what_is_named(&component, manifest)?;
    Ok(bytes)
}

/// How a language's components are made.
pub(super) struct Make {
    tool: Tool,
    command: fn(tool: &Path, folder: &Path, manifest: &Manifest, out: &Path) -> Result<Command, LangError>,
    /// What the tool said, without its own affairs.
    said: fn(&str) -> String,
}

/// How the components of a language are made; Rust's are by `cargo` alone.
pub(super) fn make(lang: Lang) -> Option<Make> {
    match lang {
        Lang::Rust => None,
        Lang::Js => Some(js::MAKE),
        Lang::Python => Some(python::MAKE),
    }
}

fn only_what_is_named(component: &Inspected, manifest: &Manifest) -> Result<(), LangError> {
    let named: Vec<_> = manifest.imports.iter().map(ToString::to_string).collect();
    let own = component.imports.iter().map(|(name, _)| name).filter(|name| !named.contains(name));
    match component.foreign.iter().chain(own).next() {
        Some(name) => Err(LangError::Import(name.clone())),
        None => Ok(()),
    }
}

impl Tool {
    fn name(&self) -> String {
        format!("{} {}", self.package, self.version)
    }

    /// The folder it is installed in; installs it at its first use.
    fn installed(&self, tools: &Path) -> Result<PathBuf, LangError> {
        let folder = tools.join(format!("{}-{}", self.package, self.version));
        let file = |path: &Path, error| LangError::File { path: path.to_owned(), error };
        fs::create_dir_all(tools).map_err(|error| file(tools, error))?;
        let lock_path = tools.join(".lock");
        let lock = fs::File::create(&lock_path).map_err(|error| file(&lock_path, error))?;
        // Two builds at once install once; the lock ends with the file.
        lock.lock().map_err(|error| file(&lock_path, error))?;
        if folder.join(INSTALLED).is_file() {
            return Ok(folder);
        }
        // What an interrupted installation left is in the way of the next.
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(file(&folder, error)),
            _ => fs::create_dir_all(&folder).map_err(|error| file(&folder, error))?,
        }
        for mut command in (self.install)(&folder) {
            let output = run(&mut command, self.remedy)?;
            if !output.status.success() {
                return Err(LangError::NotInstalled { tool: self.name(), said: said(&output) });
            }
        }
        write(&folder.join(INSTALLED), "")?;
        Ok(folder)
    }
}

/// Where tools are kept.
fn tools() -> Result<PathBuf, LangError> {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = cache.or_else(|| Some(env::home_dir()?.join(".cache"))).ok_or(LangError::NoHome)?;
    Ok(cache.join("kiwispray/tools"))
}

fn program(name: impl AsRef<OsStr>, folder: &Path) -> Command {
    let mut command = Command::new(name);
    // Backtraces of a tool tell nothing about the plugin.
    command.current_dir(folder).env("RUST_BACKTRACE", "0").env("RUST_LIB_BACKTRACE", "0");
    command
}

fn run(command: &mut Command, remedy: &'static str) -> Result<Output, LangError> {
    command.output().map_err(|error| LangError::NoProgram {
        program: command.get_program().to_string_lossy().into_owned(),
        error,
        remedy,
    })
}

/// The last of what a program said.
fn said(output: &Output) -> String {
    let both = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
    let text = both.join("\n");
    let lines: Vec<_> = text.lines().collect();
    let from = lines.len().saturating_sub(SAID_MAX_LINES * 2);
    lines.get(from..).unwrap_or_default().join("\n")
}

fn write(path: &Path, text: &str) -> Result<(), LangError> {
    let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, text));
    written.map_err(|error| LangError::File { path: path.to_owned(), error })
}

/// A path as an argument of a program that runs elsewhere.
fn absolute(path: &Path) -> Result<PathBuf, LangError> {
    std::path::absolute(path).map_err(|error| LangError::File { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(imports: &str) -> Manifest {
        toml::from_str(&format!("name = \"x\"\nhooks = [\"boot\"]\nimports = {imports}\n")).unwrap()
    }

    fn importing(imports: &[&str], foreign: &[&str]) -> Inspected {
        Inspected {
            bytes: 0,
            digest: String::new(),
            imports: imports.iter().map(|&name| (name.to_owned(), Vec::new())).collect(),
            foreign: foreign.iter().map(|&name| name.to_owned()).collect(),
            hooks: Vec::new(),
        }
    }

    #[test]
    fn a_component_that_imports_more_than_is_named_is_refused() {
        only_what_is_named(&importing(&["kv"], &[]), &manifest("[\"kv\"]")).unwrap();
        let refused = |component, manifest| only_what_is_named(&component, &manifest).unwrap_err().to_string();
        assert!(refused(importing(&["http"], &[]), manifest("[\"kv\"]")).contains("`http`"));
        assert!(
            refused(importing(&[], &["wasi:cli/stdout@0.2.6"]), manifest("[]")).contains("`wasi:cli/stdout@0.2.6`")
        );
    }

    fn tool(install: fn(&Path) -> Vec<Command>) -> Tool {
        Tool { package: "thing", version: "1.2", install, remedy: "Install things." }
    }

    #[test]
    fn a_tool_is_installed_once_and_only_whole() {
        let tools = tempfile::tempdir().unwrap();
        let touching = |folder: &Path| {
            let mut touch = program("sh", folder);
            touch.args(["-c", "echo once >> log; echo no network; exit $(wc -l < log | grep -c 9)"]);
            vec![touch]
        };
        let at = tool(touching).installed(tools.path()).unwrap();
        assert_eq!(at, tools.path().join("thing-1.2"));
        tool(touching).installed(tools.path()).unwrap();
        assert_eq!(fs::read_to_string(at.join("log")).unwrap(), "once\n");
    }

    #[test]
    fn a_tool_that_cannot_be_installed_says_why_and_is_tried_again() {
        let tools = tempfile::tempdir().unwrap();
        let failing = |folder: &Path| {
            let mut fail = program("sh", folder);
            fail.args(["-c", "echo no network >&2; exit 1"]);
            vec![fail]
        };
        for _ in 0..2 {
            let error = tool(failing).installed(tools.path()).unwrap_err().to_string();
            assert!(error.contains("thing 1.2") && error.contains("no network"), "{error}");
        }
        let missing = tool(|folder| vec![program("no-such-program", folder)]);
        let error = missing.installed(tools.path()).unwrap_err().to_string();
        assert!(error.contains("cannot run no-such-program") && error.contains("Install things."), "{error}");
    }
}

//! From a plugin's folder to a component. Rust needs nothing but its own compiler: `wit-component` makes components of core
//! modules. The other languages are in `lang`. Panic messages hold no paths of this machine, so that a plugin is the same
//! wherever it is built.
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::component::{Inspected, NotAComponent, inspect};
use super::lang::{self, LangError};
use super::manifest::{Manifest, ManifestError};

/// What plugins are compiled for.
const TARGET: &str = "wasm32-unknown-unknown";
/// Flags from this machine, which must not reach a plugin.
const FLAGS: [&str; 4] =
    ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS"];

/// A built plugin.
#[derive(Clone, Debug)]
pub struct Built {
    /// The component's file.
    pub path: PathBuf,
    /// What it is.
    pub component: Inspected,
}

/// Why a plugin was not built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The folder is no plugin's.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The compiler cannot be run.
    #[error("cannot run {program}: {error}. {remedy}")]
    NoCompiler {
        /// Its name.
        program: &'static str,
        /// Why.
        error: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// Rust is there, but cannot compile for plugins.
    #[error(
        "Rust cannot compile for {TARGET} here: `rustup target add {TARGET}` installs it. (Without rustup, on Debian: the \
         packages rustc-web, cargo-web, rust-web-src and lld-19, see the SDK's README)"
    )]
    NoTarget,
    /// The compiler found something, and has told it.
    #[error("{0} did not compile the plugin: see above")]
    Compiler(&'static str),
    /// The compiler made no library.
    #[error("cargo built no `cdylib`: Cargo.toml needs `[lib] crate-type = [\"cdylib\", \"rlib\"]`")]
    NoLibrary,
    /// The module is no component's.
    #[error("the module cannot become a component: {0}")]
    Encoding(String),
    /// The component cannot be looked into.
    #[error(transparent)]
    Component(#[from] NotAComponent),
    /// A plugin in JavaScript or Python.
    #[error(transparent)]
    Lang(#[from] LangError),
    /// A file.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Builds the plugin of a folder and writes `NAME.wasm` beside its `plugin.toml`. What compilers say goes to standard
/// error.
///
/// # Errors
/// Why it was not built.
pub fn build(folder: &Path) -> Result<Built, BuildError> {
    let manifest = Manifest::read(folder)?;
    let bytes = match lang::make(manifest.lang) {
        Some(make) => lang::build(folder, &manifest, make)?,
        None => rust(folder)?,
    };
    let component = inspect(&bytes)?;
    let path = manifest.component(folder);
    // An unchanged component keeps its file's time, so that nothing that watches it starts over.
    if fs::read(&path).ok().as_deref() != Some(&bytes) {
        fs::write(&path, &bytes).map_err(|error| BuildError::File { path: path.clone(), error })?;
    }
    Ok(Built { path, component })
}

fn rust(folder: &Path) -> Result<Vec<u8>, BuildError> {
    let folder = folder.canonicalize().map_err(|error| BuildError::File { path: folder.to_owned(), error })?;
    if !has_target(&folder)? {
        return Err(BuildError::NoTarget);
    }
    // The registry's folders must exist before their paths can be mapped away.
    let fetched = run(cargo(&folder).args(["fetch", "--quiet", "--target", TARGET]))?;
    if !fetched {
        return Err(BuildError::Compiler("cargo"));
    }
    let mut build = cargo(&folder);
    build
        .args(["build", "--release", "--quiet", "--target", TARGET, "--message-format", "json-render-diagnostics"])
        .arg("--config")
        .arg(format!("target.{TARGET}.rustflags={}", serde_json::json!(path_remaps(&folder))))
        .stderr(Stdio::inherit());
    let output = build.output().map_err(no_cargo)?;
    if !output.status.success() {
        return Err(BuildError::Compiler("cargo"));
    }
    let module = library(&folder, &String::from_utf8_lossy(&output.stdout)).ok_or(BuildError::NoLibrary)?;
    let module = fs::read(&module).map_err(|error| BuildError::File { path: module, error })?;
    let encode = || wit_component::ComponentEncoder::default().validate(true).module(&module)?.encode();
    encode().map_err(|error| BuildError::Encoding(format!("{error:#}")))
}

/// Cargo in the plugin's folder, where `.cargo/config.toml` sets the stack.
fn cargo(folder: &Path) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(folder);
    for flags in FLAGS {
        cargo.env_remove(flags);
    }
    cargo
}

fn run(command: &mut Command) -> Result<bool, BuildError> {
    Ok(command.status().map_err(no_cargo)?.success())
}

fn no_cargo(error: io::Error) -> BuildError {
    BuildError::NoCompiler { program: "cargo", error, remedy: "Install Rust: https://rustup.rs" }
}

fn has_target(folder: &Path) -> Result<bool, BuildError> {
    let rustc =
        Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).current_dir(folder).output();
    let libraries = String::from_utf8_lossy(&rustc.map_err(no_cargo)?.stdout).trim().to_owned();
    Ok(!libraries.is_empty() && Path::new(&libraries).is_dir())
}

/// What cargo says about a thing it built.
#[derive(Deserialize)]
struct Artifact {
    manifest_path: PathBuf,
    target: ArtifactTarget,
    filenames: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct ArtifactTarget {
    crate_types: Vec<String>,
}

/// The plugin's own module, among what cargo built.
fn library(folder: &Path, messages: &str) -> Option<PathBuf> {
    let artifacts = messages.lines().filter_map(|line| serde_json::from_str::<Artifact>(line).ok());
    let mut own = artifacts.filter(|artifact| {
        artifact.manifest_path == folder.join("Cargo.toml")
            && artifact.target.crate_types.iter().any(|kind| kind == "cdylib")
    });
    own.find_map(|artifact| artifact.filenames.into_iter().find(|file| file.extension().is_some_and(|e| e == "wasm")))
}

/// Flags that take this machine's paths out of panic messages.
fn path_remaps(folder: &Path) -> Vec<String> {
    let mut remaps = vec![format!("--remap-path-prefix={}=/plugin", folder.display())];
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
    // One folder per registry, named after its address: a mirror must not show.
    let registries = cargo_home.and_then(|home| fs::read_dir(home.join("registry/src")).ok());
    for registry in registries.into_iter().flatten().flatten() {
        remaps.push(format!("--remap-path-prefix={}=/crates", registry.path().display()));
    }
    remaps.sort();
    remaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plugins_own_module_is_found_among_what_cargo_built() {
        let messages = r#"
{"reason":"compiler-artifact","manifest_path":"/p/sdk/rust/Cargo.toml","target":{"crate_types":["lib"]},"filenames":["/t/libsdk.rlib"]}
{"reason":"compiler-artifact","manifest_path":"/p/Cargo.toml","target":{"crate_types":["cdylib","rlib"]},"filenames":["/t/libracks.rlib","/t/racks.wasm"]}
{"reason":"build-finished","success":true}"#;
        assert_eq!(library(Path::new("/p"), messages), Some(PathBuf::from("/t/racks.wasm")));
        assert_eq!(library(Path::new("/other"), messages), None);
    }
}

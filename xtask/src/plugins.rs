//! The shipped plugins stand in the tree as built components, so that the server builds without the WebAssembly target.
//!
//! Beside each component stands a record of what it was built from. `check` recomputes the record, so a component that does
//! not belong to its source cannot be committed unseen; where the target is installed it also builds again and compares
//! bytes, which paths of this machine must not enter: hence the remapping.
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command as Process;

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

const TARGET: &str = "wasm32-unknown-unknown";
/// Part of the record: another encoder writes other bytes. Follows `wit-component` in Cargo.toml.
const ENCODER: &str = "wit-component 0.263";

/// Build the shipped plugins, or check that they are built from what stands beside them.
#[derive(Clone, Copy, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Build every plugin, and write component and record beside its source. Needs the target wasm32-unknown-unknown.
    Build,
    /// Compare every record with the tree; with the target installed also build again and compare bytes.
    Check,
}

pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    let tree = Tree::here()?;
    match command {
        Command::Build => build(&tree),
        Command::Check => {
            check_records(&tree)?;
            check_bytes(&tree)
        }
    }
}

fn build(tree: &Tree) -> anyhow::Result<()> {
    for plugin in tree.plugins()? {
        let component = tree.component(&plugin)?;
        let record = tree.record(&plugin, &component)?;
        fs::write(tree.component_path(&plugin), &component)?;
        fs::write(tree.record_path(&plugin), format!("{}\n", serde_json::to_string_pretty(&record)?))?;
        println!("plugins/{plugin}/{plugin}.wasm: {} bytes, {}", component.len(), record.component);
    }
    Ok(())
}

/// Fails, naming what changed, when a component is not the one its record was written for.
fn check_records(tree: &Tree) -> anyhow::Result<()> {
    for plugin in tree.plugins()? {
        let read = |path: PathBuf| fs::read(&path).with_context(|| format!("{}: not built yet", path.display()));
        let component = read(tree.component_path(&plugin))?;
        let recorded: Record = serde_json::from_slice(&read(tree.record_path(&plugin))?)?;
        let stale = recorded.differences(&tree.record(&plugin, &component)?);
        ensure!(
            stale.is_empty(),
            "plugins/{plugin}/{plugin}.wasm is not what its record says: {} changed. Run `cargo xtask plugins build`.",
            stale.join(", ")
        );
        println!("plugins/{plugin}/{plugin}.wasm belongs to its source");
    }
    Ok(())
}

fn check_bytes(tree: &Tree) -> anyhow::Result<()> {
    if !target_is_installed()? {
        println!("{TARGET} is not installed: components are not built again");
        return Ok(());
    }
    for plugin in tree.plugins()? {
        let shipped = fs::read(tree.component_path(&plugin))?;
        if tree.component(&plugin)? != shipped {
            bail!("plugins/{plugin}/{plugin}.wasm: building it again gives other bytes");
        }
        println!("plugins/{plugin}/{plugin}.wasm: built again, same bytes");
    }
    Ok(())
}

/// What a component was built from, each as `sha256:<hex>` or a version.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Record {
    /// The plugin's own manifest and source.
    plugin_source: String,
    /// The contract and the SDK.
    sdk: String,
    /// Manifest, lock file and build settings of the plugins' workspace.
    workspace: String,
    compiler: String,
    encoder: String,
    component: String,
}

impl Record {
    fn differences(&self, now: &Self) -> Vec<&'static str> {
        [
            ("the plugin's source", self.plugin_source == now.plugin_source),
            ("the SDK or the contract", self.sdk == now.sdk),
            ("the plugins' workspace", self.workspace == now.workspace),
            ("the compiler", self.compiler == now.compiler),
            ("the encoder", self.encoder == now.encoder),
            ("the component itself", self.component == now.component),
        ]
        .into_iter()
        .filter_map(|(what, same)| (!same).then_some(what))
        .collect()
    }
}

/// The checkout.
struct Tree {
    root: PathBuf,
}

impl Tree {
    fn here() -> anyhow::Result<Self> {
        let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
        Ok(Self { root: xtask.parent().context("xtask stands in the checkout")?.to_owned() })
    }

    /// The folders of `plugins/` that are packages, in order; not the link to the SDK.
    fn plugins(&self) -> anyhow::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.root.join("plugins"))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() && entry.path().join("Cargo.toml").is_file() {
                names.push(entry.file_name().into_string().ok().context("a plugin's name is UTF-8")?);
            }
        }
        names.sort();
        Ok(names)
    }

    fn component_path(&self, plugin: &str) -> PathBuf {
        self.root.join("plugins").join(plugin).join(format!("{plugin}.wasm"))
    }

    fn record_path(&self, plugin: &str) -> PathBuf {
        self.root.join("plugins").join(plugin).join(format!("{plugin}.wasm.json"))
    }

    fn record(&self, plugin: &str, component: &[u8]) -> anyhow::Result<Record> {
        let own = format!("plugins/{plugin}");
        Ok(Record {
            plugin_source: self.digest(&[&format!("{own}/Cargo.toml"), &format!("{own}/src")])?,
            sdk: self.digest(&["sdk/wit", "sdk/rust/Cargo.toml", "sdk/rust/src"])?,
            workspace: self.digest(&["plugins/Cargo.toml", "plugins/Cargo.lock", "plugins/.cargo/config.toml"])?,
            compiler: output(Process::new("rustc").arg("--version").current_dir(&self.root))?,
            encoder: ENCODER.to_owned(),
            component: sha256(component),
        })
    }

    /// One digest over files and folders, with their paths and lengths, so that none can be moved into another.
    fn digest(&self, parts: &[&str]) -> anyhow::Result<String> {
        let mut files = Vec::new();
        for part in parts {
            collect_files(&self.root.join(part), &mut files)?;
        }
        files.sort();
        let mut all = Vec::new();
        for file in files {
            let content = fs::read(&file)?;
            let name = file.strip_prefix(&self.root)?.to_string_lossy().replace('\\', "/");
            all.extend_from_slice(format!("{name} {}\n", content.len()).as_bytes());
            all.extend_from_slice(&content);
        }
        Ok(sha256(&all))
    }

    /// Builds one plugin and encodes it as a component.
    fn component(&self, plugin: &str) -> anyhow::Result<Vec<u8>> {
        let target_dir =
            env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.root.join("target"), PathBuf::from).join("guests");
        let package = format!("kiwispray-{plugin}");
        // The registry's folders must exist before their paths can be mapped away.
        succeed(self.cargo().args(["fetch", "--quiet", "--locked", "--target", TARGET]))?;
        succeed(
            self.cargo()
                .args(["build", "--quiet", "--locked", "--release", "--target", TARGET, "--package", &package])
                .arg("--target-dir")
                .arg(&target_dir)
                .arg("--config")
                .arg(format!("target.{TARGET}.rustflags={}", serde_json::to_string(&self.path_remaps()?)?)),
        )
        .context(format!("building for {TARGET}; `rustup target add {TARGET}` installs it"))?;
        let module = target_dir.join(TARGET).join("release").join(format!("{}.wasm", package.replace('-', "_")));
        let module = fs::read(&module).with_context(|| module.display().to_string())?;
        wit_component::ComponentEncoder::default().validate(true).module(&module)?.encode()
    }

    /// Cargo in the plugins' workspace, where `.cargo/config.toml` sets the stack, without flags from this machine.
    fn cargo(&self) -> Process {
        let mut cargo = Process::new("cargo");
        cargo.current_dir(self.root.join("plugins"));
        // An incremental build cuts the code into other units, and so gives other bytes.
        cargo.env("CARGO_INCREMENTAL", "0");
        for flags in [
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_RUSTFLAGS",
            "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS",
        ] {
            cargo.env_remove(flags);
        }
        cargo
    }

    /// Panic messages hold paths: these make them the same on every machine.
    fn path_remaps(&self) -> anyhow::Result<Vec<String>> {
        let mut remaps = vec![format!("--remap-path-prefix={}=/kiwispray", self.root.display())];
        let cargo_home = match env::var_os("CARGO_HOME") {
            Some(home) => PathBuf::from(home),
            None => env::home_dir().context("no home directory, and CARGO_HOME is not set")?.join(".cargo"),
        };
        // One folder per registry, named after its address: a mirror must not show.
        if let Ok(registries) = fs::read_dir(cargo_home.join("registry/src")) {
            for registry in registries {
                remaps.push(format!("--remap-path-prefix={}=/crates", registry?.path().display()));
            }
        }
        remaps.sort();
        Ok(remaps)
    }
}

fn collect_files(path: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            collect_files(&entry?.path(), files)?;
        }
    } else {
        ensure!(path.is_file(), "{} is missing", path.display());
        files.push(path.to_owned());
    }
    Ok(())
}

fn target_is_installed() -> anyhow::Result<bool> {
    let sysroot = output(Process::new("rustc").args(["--print", "sysroot"]))?;
    Ok(Path::new(&sysroot).join("lib/rustlib").join(TARGET).is_dir())
}

fn sha256(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn succeed(process: &mut Process) -> anyhow::Result<()> {
    let status = process.status().with_context(|| format!("{process:?}"))?;
    ensure!(status.success(), "{process:?}: {status}");
    Ok(())
}

fn output(process: &mut Process) -> anyhow::Result<String> {
    let output = process.output().with_context(|| format!("{process:?}"))?;
    ensure!(output.status.success(), "{process:?}: {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_components_belong_to_their_source() {
        check_records(&Tree::here().unwrap()).unwrap();
    }

    #[test]
    fn the_frozen_contract_is_what_plugins_were_built_for() {
        let contract = fs::read(Tree::here().unwrap().root.join("sdk/wit/0.1.0/plugin.wit")).unwrap();
        assert_eq!(sha256(&contract), "sha256:179eac5cdcb892c5c041faeb9e739dac7bc582757a7e10e96c2505eefc9f2b5e");
    }

    #[test]
    fn a_record_names_what_changed() {
        let tree = Tree::here().unwrap();
        let record = tree.record("default", b"one").unwrap();
        let other = tree.record("default", b"two").unwrap();
        assert_eq!(record.differences(&other), ["the component itself"]);
        assert_eq!(record.differences(&record), Vec::<&str>::new());
    }
}

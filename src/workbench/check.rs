//! `plugin check`: whether a server would take the plugin, and whether `plugin.toml` says what it is.
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::component::{Inspected, NotAComponent, inspect};
use super::manifest::Manifest;
use super::run::{Bench, BenchError};
use crate::hooks::Hook;
use crate::plugin_host::{Interface, LoadError, schema_problems};

/// What was found out.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The component's file.
    pub path: PathBuf,
    /// The component.
    pub component: Inspected,
    /// What is wrong, each with what to do about it. Empty: a server would take it.
    pub problems: Vec<String>,
    /// What is odd and no fault.
    pub remarks: Vec<String>,
}

/// Why nothing could be found out.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The plugin cannot be put on the bench.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// The file is no component.
    #[error(transparent)]
    Component(#[from] NotAComponent),
}

/// Checks the plugin of a folder: imports against grants, hooks, whether it loads, its example of a configuration.
///
/// # Errors
/// It is not built, or no component at all.
pub async fn check(folder: &Path) -> Result<Checked, CheckError> {
    let bench = Bench::new(folder)?;
    let component = inspect(bench.bytes())?;
    let mut checked = Checked { path: bench.path().to_owned(), component, problems: Vec::new(), remarks: Vec::new() };
    let mut granted = BTreeSet::new();
    if let Some(manifest) = bench.manifest() {
        checked.against(manifest);
        granted = manifest.grant.interfaces();
    }
    checked.load(&bench, granted).await;
    Ok(checked)
}

/// Checks a component without a folder, as if it had every grant.
///
/// # Errors
/// It cannot be read, or is no component.
pub async fn check_file(path: &Path) -> Result<Checked, CheckError> {
    let bench = Bench::of_file(path)?;
    let component = inspect(bench.bytes())?;
    let mut checked = Checked { path: bench.path().to_owned(), component, problems: Vec::new(), remarks: Vec::new() };
    checked.load(&bench, ALL.into()).await;
    Ok(checked)
}

const ALL: [Interface; 5] = [Interface::Catalog, Interface::Hosts, Interface::Kv, Interface::Http, Interface::Signing];

impl Checked {
    /// What `plugin.toml` says against what the component is.
    fn against(&mut self, manifest: &Manifest) {
        let said = |names: Vec<String>| names.into_iter().collect::<BTreeSet<_>>();
        let hooks = said(manifest.hooks.iter().map(Hook::to_string).collect());
        let imports = said(manifest.imports.iter().map(Interface::to_string).collect());
        let granted = said(manifest.grant.interfaces().iter().map(Interface::to_string).collect());
        let is_hooks = said(self.component.hooks.clone());
        let is_imports = said(self.component.imports.iter().map(|(name, _)| name.clone()).collect());
        for hook in is_hooks.difference(&hooks) {
            self.problems.push(format!("it exports the hook `{hook}`: add it to `hooks` in plugin.toml"));
        }
        for hook in hooks.difference(&is_hooks) {
            self.problems.push(format!(
                "plugin.toml names the hook `{hook}`, which it does not export: name it in `plugin!` too, or take it out"
            ));
        }
        for import in is_imports.difference(&imports) {
            self.problems.push(format!("it imports `{import}`: add it to `imports` in plugin.toml"));
        }
        for import in imports.difference(&is_imports) {
            self.problems.push(format!("plugin.toml names the import `{import}`, which it does not use: take it out"));
        }
        for import in is_imports.difference(&granted) {
            self.problems
                .push(format!("it imports `{import}`, which needs a grant: write {} in plugin.toml", grant(import)));
        }
        for import in granted.difference(&is_imports) {
            self.remarks.push(format!("[grant] wants `{import}`, which it does not import"));
        }
    }

    async fn load(&mut self, bench: &Bench, grants: BTreeSet<Interface>) {
        for foreign in &self.component.foreign {
            self.problems.push(format!(
                "it imports `{foreign}`, which no server offers: plugins reach nothing but the contract, \
                 so no files, clocks, randomness or sockets of their own"
            ));
        }
        let is_granted = |name: &str| grants.iter().any(|interface| interface.to_string() == name);
        if !self.component.foreign.is_empty() || !self.component.imports.iter().all(|(name, _)| is_granted(name)) {
            return;
        }
        match bench.load_granted(None, grants, &BTreeMap::new()).await {
            Ok(plugin) => {
                let schema = plugin.about().config_schema;
                self.against_schema(&schema, &bench.example());
            }
            Err(LoadError::Config(why)) if bench.manifest().is_none() => {
                self.remarks.push(format!("it does not take an empty configuration: {why}"));
            }
            Err(LoadError::Config(why)) => {
                self.problems.push(format!("it refuses the example in [config] of plugin.toml: {why}"));
            }
            Err(error) => self.problems.push(format!("no server would take it: it {error}")),
        }
    }

    fn against_schema(&mut self, schema: &Value, example: &Value) {
        match schema_problems(schema, example) {
            Ok(problems) => self.problems.extend(
                problems.iter().map(|problem| format!("[config] of plugin.toml does not fit its schema: {problem}")),
            ),
            Err(bad) => self.problems.push(bad.to_string()),
        }
    }
}

/// How a grant is written.
fn grant(import: &str) -> &'static str {
    match import {
        "catalog" => "`catalog = true` below [grant]",
        "kv" => "`kv = true` below [grant]",
        "hosts" => "`hosts = [\"read\"]` and what it changes below [grant]",
        "http" => "[[grant.http]] with the `url` that it may reach",
        "signing" => "[grant.signing] with the names of its secrets",
        _ => "it below [grant]",
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    async fn check_standard(manifest: &str) -> Checked {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("plugin.toml"), format!("name = \"standard\"\n{manifest}")).unwrap();
        fs::copy("plugins/default/default.wasm", folder.path().join("standard.wasm")).unwrap();
        check(folder.path()).await.unwrap()
    }

    #[tokio::test]
    async fn a_manifest_that_says_what_the_plugin_is_has_no_problems() {
        let checked = check_standard(
            "hooks = [\"boot\", \"discovery\"]\nimports = [\"catalog\"]\n[grant]\ncatalog = true\nkv = true\n",
        )
        .await;
        assert_eq!(checked.problems, Vec::<String>::new());
        assert_eq!(checked.remarks, ["[grant] wants `kv`, which it does not import"]);
    }

    #[tokio::test]
    async fn every_difference_is_told_with_what_to_do() {
        let checked = check_standard("hooks = [\"boot\", \"render\"]\nimports = [\"hosts\"]\n").await;
        insta::assert_snapshot!(checked.problems.join("\n"), @r"
        it exports the hook `discovery`: add it to `hooks` in plugin.toml
        plugin.toml names the hook `render`, which it does not export: name it in `plugin!` too, or take it out
        it imports `catalog`: add it to `imports` in plugin.toml
        plugin.toml names the import `hosts`, which it does not use: take it out
        it imports `catalog`, which needs a grant: write `catalog = true` below [grant] in plugin.toml
        ");
    }

    #[tokio::test]
    async fn an_example_that_the_plugin_refuses_is_a_problem_in_the_words_of_the_field() {
        let checked = check_standard(
            "hooks = [\"boot\", \"discovery\"]\nimports = [\"catalog\"]\n[grant]\ncatalog = true\n[config]\ndicsover = 1\n",
        )
        .await;
        let told = checked.problems.join("\n");
        assert!(told.contains("[config]") && told.contains("dicsover"), "{told}");
    }

    #[tokio::test]
    async fn a_file_alone_is_checked_as_if_it_had_every_grant() {
        let checked = check_file(Path::new("plugins/default/default.wasm")).await.unwrap();
        assert_eq!(checked.problems, Vec::<String>::new());
        assert!(check_file(Path::new("Cargo.toml")).await.is_err());
    }
}

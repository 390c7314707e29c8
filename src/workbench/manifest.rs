//! `plugin.toml`: what a plugin's folder says about the plugin, for its author's tools and for `kiwispray plugin install`.
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;

use crate::config::PluginName;
use crate::hooks::{Grant, Grants, Hook};
use crate::plugin_host::Interface;
use crate::plugin_host::egress::Rule;

/// The file's name.
pub(super) const MANIFEST: &str = "plugin.toml";

/// What the file says.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The plugin's name; the component beside the file is `NAME.wasm`.
    pub name: PluginName,
    /// What it is written in.
    #[serde(default)]
    pub lang: Lang,
    /// The hooks it exports.
    pub hooks: BTreeSet<Hook>,
    /// The interfaces it imports, without `types`, `call` and `log`, which are free.
    #[serde(default)]
    pub imports: BTreeSet<Interface>,
    /// What it wants to be granted.
    #[serde(default)]
    pub grant: WantedGrant,
    /// An example of its configuration; checked, and used by cases that bring none.
    #[serde(default)]
    pub config: toml::Table,
}

/// What a plugin wants to be granted, written as a `[plugin.grant]` of the server's configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WantedGrant {
    /// What it may read and change of hosts.
    pub hosts: BTreeSet<Grant>,
    /// Orders of one run.
    pub max_orders_per_run: u32,
    /// Whether it has a store of its own.
    pub kv: bool,
    /// Whether it may ask for the names of images and templates.
    pub catalog: bool,
    /// The servers that it may reach.
    pub http: Vec<toml::Table>,
    /// Names of secrets that it may sign with.
    pub signing: toml::Table,
}

impl Default for WantedGrant {
    fn default() -> Self {
        Self {
            hosts: BTreeSet::new(),
            max_orders_per_run: 5,
            kv: false,
            catalog: false,
            http: Vec::new(),
            signing: toml::Table::new(),
        }
    }
}

impl WantedGrant {
    /// The interfaces that it opens.
    #[must_use]
    pub fn interfaces(&self) -> BTreeSet<Interface> {
        let opens = [
            (Interface::Catalog, self.catalog),
            (Interface::Hosts, !self.hosts.is_empty()),
            (Interface::Kv, self.kv),
            (Interface::Http, !self.http.is_empty()),
            (Interface::Signing, !self.signing.is_empty()),
        ];
        opens.into_iter().filter(|(_, opened)| *opened).map(|(interface, _)| interface).collect()
    }

    /// The rules for http, without what only the server has: secrets and certificates.
    ///
    /// # Errors
    /// A rule is none.
    pub fn rules(&self) -> Result<Vec<Rule>, String> {
        let rule = |table: &toml::Table| {
            let mut table = table.clone();
            table.remove("headers");
            table.remove("ca_file");
            table.try_into().map_err(|error: toml::de::Error| error.message().to_owned())
        };
        self.http.iter().map(rule).collect()
    }

    /// What the core checks.
    #[must_use]
    pub fn core(&self) -> Grants {
        Grants { hosts: self.hosts.clone(), kv: self.kv, max_orders_per_run: self.max_orders_per_run }
    }
}

/// A language that plugins are written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lang {
    /// Rust, for `wasm32-unknown-unknown`.
    #[default]
    Rust,
    /// JavaScript, by componentize-qjs.
    Js,
    /// Python, by componentize-py.
    Python,
}

/// Why a folder cannot be read as a plugin's.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// There is no file.
    #[error(
        "{}: there is no plugin.toml: is this a plugin's folder? `kiwispray plugin new NAME` makes one",
        .0.display()
    )]
    Missing(PathBuf),
    /// It cannot be read.
    #[error("{} cannot be read: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It says something else.
    #[error("{}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// With the line.
        problem: String,
    },
}

impl Manifest {
    /// Reads the file of a folder.
    ///
    /// # Errors
    /// It is missing, or says something else.
    pub fn read(folder: &Path) -> Result<Self, ManifestError> {
        let path = folder.join(MANIFEST);
        match fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text)
                .map_err(|error| ManifestError::Malformed { path, problem: error.to_string().trim_end().to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ManifestError::Missing(folder.to_owned())),
            Err(error) => Err(ManifestError::Unreadable { path, error }),
        }
    }

    /// Where the component stands.
    #[must_use]
    pub fn component(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.wasm", self.name))
    }
}

impl FromStr for Lang {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Rust, Self::Js, Self::Python]
            .into_iter()
            .find(|lang| lang.to_string() == text)
            .ok_or_else(|| "plugins are written in rust, js or python".to_owned())
    }
}

impl fmt::Display for Lang {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rust => "rust",
            Self::Js => "js",
            Self::Python => "python",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_says_what_is_wrong_with_it_and_where() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Manifest::read(folder.path()).unwrap_err().to_string().contains("kiwispray plugin new"));
        fs::write(folder.path().join(MANIFEST), "name = \"racks\"\nhook = [\"boot\"]\n").unwrap();
        let error = Manifest::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("`hook`"), "{error}");
        fs::write(folder.path().join(MANIFEST), "name = \"racks\"\nhooks = [\"boot\"]\n[grant]\nkv = true\n").unwrap();
        let manifest = Manifest::read(folder.path()).unwrap();
        assert_eq!((manifest.lang, manifest.grant.kv), (Lang::Rust, true));
    }
}

//! The configuration files as they are written: `kiwispray.toml`, then `conf.d/*.toml` beside it, later ones winning.
//!
//! The invariant: a file is read whole or not at all, and every key in it means something. A mistyped key would otherwise
//! be a setting that silently does not hold.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use super::{Problem, Where};

/// Largest configuration file in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// How alike a known key must be to be suggested, from 0 to 1.
const SUGGESTION_LIKENESS: f64 = 0.8;
/// The keys whose values are paths; relative ones are meant from the file's own folder.
const PATH_KEYS: [&str; 5] = ["data_dir", "images_dir", "templates_dir", "plugins_dir", "ipxe_dir"];

/// Every key and section, for suggestions. A test holds it against [`Raw`].
pub(super) const KEYS: &[&str] = &[
    "data_dir",
    "images_dir",
    "templates_dir",
    "plugins_dir",
    "ipxe_dir",
    "listen",
    "public_url",
    "discover",
    "boot.open_state",
    "boot.open_hosts",
    "boot.attempts",
    "boot.again_s_min",
    "boot.again_s_max",
    "boot.header_timeout_s",
    "boot.idle_timeout_s",
    "boot.local",
    "boot.drain_s",
    "identity.ignore",
    "limits.new_hosts_per_minute",
    "limits.reinstalls_per_hour",
    "store.cache_mb",
    "store.free_space_floor_mb",
    "admin.group",
    "dnsmasq.interface",
    "dnsmasq.range",
    "dnsmasq.proxy",
    "boot",
    "identity",
    "limits",
    "store",
    "admin",
    "dnsmasq",
    "plugin",
];

/// All files together, each value as written.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Raw {
    pub(super) data_dir: Option<PathBuf>,
    pub(super) images_dir: Option<PathBuf>,
    pub(super) templates_dir: Option<PathBuf>,
    pub(super) plugins_dir: Option<PathBuf>,
    pub(super) ipxe_dir: Option<PathBuf>,
    pub(super) listen: Option<SocketAddr>,
    pub(super) public_url: Option<String>,
    pub(super) discover: Option<bool>,
    pub(super) boot: RawBoot,
    pub(super) identity: RawIdentity,
    pub(super) limits: RawLimits,
    pub(super) store: RawStore,
    pub(super) admin: RawAdmin,
    pub(super) dnsmasq: RawDnsmasq,
    /// The bindings of plugins, which `plugin` reads.
    pub(super) plugin: Vec<Table>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawBoot {
    pub(super) open_state: Option<bool>,
    pub(super) open_hosts: Option<bool>,
    pub(super) attempts: Option<u64>,
    pub(super) again_s_min: Option<u64>,
    pub(super) again_s_max: Option<u64>,
    pub(super) header_timeout_s: Option<u64>,
    pub(super) idle_timeout_s: Option<u64>,
    pub(super) local: Option<crate::images::LocalBoot>,
    pub(super) drain_s: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawIdentity {
    pub(super) ignore: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawLimits {
    pub(super) new_hosts_per_minute: Option<u64>,
    pub(super) reinstalls_per_hour: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawStore {
    pub(super) cache_mb: Option<u64>,
    pub(super) free_space_floor_mb: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawAdmin {
    pub(super) group: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawDnsmasq {
    pub(super) interface: Option<String>,
    pub(super) range: Option<String>,
    pub(super) proxy: Option<bool>,
}

/// Some files, read.
#[derive(Default)]
pub(super) struct Files {
    /// In reading order.
    pub(super) read: Vec<(PathBuf, Table)>,
    pub(super) raw: Raw,
    /// Bindings of plugins that were installed, one file each.
    pub(super) installed: Vec<(PathBuf, Table)>,
}

impl Files {
    /// Reads the main file, if there is one, and `conf.d/*.toml` in the folder.
    pub(super) fn read(main: Option<&Path>, folder: Option<&Path>) -> Result<Files, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut paths: Vec<PathBuf> = main.map(Path::to_owned).into_iter().collect();
        match folder.map(|folder| fragments(&folder.join("conf.d"))).transpose() {
            Ok(fragments) => paths.extend(fragments.unwrap_or_default()),
            Err(problem) => problems.push(problem),
        }
        let mut files = Files::default();
        for path in paths {
            match read_file(&path) {
                Ok(table) => files.read.push((path, table)),
                Err(found) => problems.extend(found),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut all = Table::new();
        for (_, table) in &files.read {
            merge(&mut all, table.clone());
        }
        // Each file alone was of the right types, so together they are.
        files.raw = all.try_into().map_err(|error: toml::de::Error| {
            vec![Problem { at: Where::Defaults, what: error.message().to_owned() }]
        })?;
        Ok(files)
    }

    /// Reads `*.toml` of these folders, in which nothing but `[[plugin]]` stands.
    pub(super) fn read_installed(&mut self, folders: &[PathBuf]) -> Vec<Problem> {
        let mut problems = Vec::new();
        for folder in folders {
            let paths = fragments(folder).unwrap_or_else(|problem| {
                problems.push(problem);
                Vec::new()
            });
            for path in paths {
                match read_file(&path) {
                    Ok(table) => {
                        problems.extend(table.keys().filter(|key| *key != "plugin").map(|key| Problem {
                            at: Where::File { file: path.clone(), key: key.clone() },
                            what: "nothing but [[plugin]] stands in a file of plugins.d".to_owned(),
                        }));
                        self.installed.push((path, table));
                    }
                    Err(found) => problems.extend(found),
                }
            }
        }
        problems
    }

    /// Which file has the last word on a key.
    pub(super) fn place_of(&self, key: &str) -> Where {
        let has = |table: &Table| match key.split_once('.') {
            Some((section, key)) => table.get(section).is_some_and(|section| section.get(key).is_some()),
            None => table.contains_key(key),
        };
        let path = self.read.iter().rev().find(|(_, table)| has(table)).map(|(path, _)| path.clone());
        path.map_or(Where::Defaults, |file| Where::File { file, key: key.to_owned() })
    }
}

/// `*.toml` of a folder by name; none if there is no such folder.
fn fragments(folder: &Path) -> Result<Vec<PathBuf>, Problem> {
    let unreadable = |error: std::io::Error| Problem {
        at: Where::Whole { file: folder.to_owned() },
        what: format!("the folder cannot be read ({error})"),
    };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        // Neither is there anything below what is no folder: whoever needs that says so.
        Err(_) if std::fs::symlink_metadata(folder).is_err_and(|error| is_missing(&error)) => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn is_missing(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

fn read_file(path: &Path) -> Result<Table, Vec<Problem>> {
    let whole = |what: String| vec![Problem { at: Where::Whole { file: path.to_owned() }, what }];
    let text = match std::fs::metadata(path) {
        Ok(data) if data.len() > FILE_BYTES_MAX => return Err(whole("the file is larger than 1 MiB".to_owned())),
        Ok(_) => std::fs::read_to_string(path).map_err(|error| whole(format!("the file cannot be read ({error})")))?,
        Err(error) => return Err(whole(format!("the file cannot be read ({error})"))),
    };
    let wrong = |error: toml::de::Error| {
        let line = error.span().map_or(1, |span| 1 + text.bytes().take(span.start).filter(|b| *b == b'\n').count());
        let what = error.message().lines().collect::<Vec<_>>().join(", ");
        vec![Problem { at: Where::Line { file: path.to_owned(), line }, what }]
    };
    let mut unknown = Vec::new();
    let reader = toml::Deserializer::parse(&text).map_err(wrong)?;
    serde_ignored::deserialize::<_, _, Raw>(reader, |key| unknown.push(key.to_string())).map_err(wrong)?;
    if !unknown.is_empty() {
        let problem = |key: String| Problem {
            what: match suggestion(&key) {
                Some(known) => format!("there is no such key; is {known} meant?"),
                None => "there is no such key".to_owned(),
            },
            at: Where::File { file: path.to_owned(), key },
        };
        return Err(unknown.into_iter().map(problem).collect());
    }
    let mut table: Table = toml::from_str(&text).map_err(wrong)?;
    for key in PATH_KEYS {
        if let (Some(Value::String(value)), Some(folder)) = (table.get_mut(key), path.parent()) {
            *value = folder.join(&*value).display().to_string();
        }
    }
    Ok(table)
}

/// The known key that looks most like this one: as a whole, or its last part, as it may stand in the wrong section.
fn suggestion(key: &str) -> Option<&'static str> {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let likeness = |known: &str| {
        let whole = strsim::normalized_damerau_levenshtein(key, known);
        whole.max(strsim::normalized_damerau_levenshtein(&last(key), &last(known)))
    };
    let best = KEYS.iter().copied().map(|known| (likeness(known), known)).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= SUGGESTION_LIKENESS).then_some(best.1)
}

/// Later values win, tables are merged, lists of tables (`[[plugin]]`) are joined.
fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(into)), Value::Table(from)) => merge(into, from),
            (Some(Value::Array(into)), Value::Array(from)) if key == "plugin" => into.extend(from),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

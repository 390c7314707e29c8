//! `plugin replay`: a recorded call, run again with the answers that it got, and nothing else.
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::component::sha256;
use super::run::{Bench, BenchError};
use crate::plugin_host::{LoadError, RECORDING_FORMAT, Recording};

/// What came of a replay.
#[derive(Clone, Debug)]
pub struct Replay {
    /// The plugin that was recorded.
    pub plugin: String,
    /// The hook.
    pub hook: String,
    /// So many questions were recorded.
    pub questions: usize,
    /// Whether the component is the one that was recorded.
    pub is_same_component: bool,
    /// Where it did something else. Empty: it did the same, byte for byte.
    pub differences: Vec<String>,
    /// What it noted.
    pub notes: Vec<String>,
}

/// Why nothing was replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The recording cannot be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file holds something else.
    #[error("{}: this is no recording of `kiwispray plugin record`: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// There is no component to run.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// It cannot be run.
    #[error("the component {0}")]
    Load(#[from] LoadError),
}

/// Reads a recording.
///
/// # Errors
/// It is none, or of another version.
fn read(path: &Path) -> Result<Recording, ReplayError> {
    let text = fs::read_to_string(path).map_err(|error| ReplayError::Unreadable { path: path.to_owned(), error })?;
    let malformed = |problem: String| ReplayError::Malformed { path: path.to_owned(), problem };
    let recording: Recording = serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?;
    if recording.format != RECORDING_FORMAT {
        return Err(malformed(format!(
            "its format is {}, and this version reads {RECORDING_FORMAT}",
            recording.format
        )));
    }
    Ok(recording)
}

/// Replays a recording with a plugin: its folder, or its component.
///
/// # Errors
/// The recording or the plugin cannot be used.
pub async fn replay(recording: &Path, plugin: &Path) -> Result<Replay, ReplayError> {
    let recording = read(recording)?;
    let bench = if plugin.is_file() { Bench::of_file(plugin)? } else { Bench::new(plugin)? };
    let replayed = bench.host().replay(bench.bytes().to_vec(), &recording).await?;
    Ok(Replay {
        differences: replayed.differences(&recording),
        notes: replayed.notes,
        is_same_component: sha256(bench.bytes()) == recording.digest,
        questions: recording.imports.len(),
        plugin: recording.plugin,
        hook: recording.hook,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PLUGIN: &str = "plugins/default/default.wasm";

    /// The default plugin boots the image `web`, as it was recorded.
    fn recording() -> serde_json::Value {
        json!({
            "format": 1, "plugin": "default", "digest": "sha256:00", "hook": "boot", "config": "{}",
            "call": {"id": "b", "attempt": 1, "now-ms": 5, "budget-ms": 200, "dry-run": false},
            "request": {
                "host": {
                    "id": 7, "revision": 3, "hostname": null, "serial": "S7", "uuid": "", "macs": [], "states": ["web"],
                    "attempts": 0, "metadata": "{}", "more": "{}"
                },
                "facts": [["platform", "efi"]]
            },
            "imports": [{"import": "catalog.has-image", "arguments": ["web"], "answer": {"Ok": true}}],
            "answer": {"answered": {"Ok": {
                "verdict": {"Boot": {"Image": {"image": "web", "append": [], "vars": []}}},
                "patch": null, "reason": "its state names this image"
            }}}
        })
    }

    async fn replayed(recording: &serde_json::Value) -> Result<Replay, ReplayError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), recording.to_string()).unwrap();
        replay(file.path(), Path::new(PLUGIN)).await
    }

    #[tokio::test]
    async fn a_recording_of_this_version_replays_and_another_component_is_noticed() {
        let replay = replayed(&recording()).await.unwrap();
        assert_eq!((replay.differences, replay.questions), (Vec::<String>::new(), 1));
        assert!(!replay.is_same_component);
    }

    #[tokio::test]
    async fn another_format_and_what_is_no_recording_are_refused() {
        let mut other = recording();
        other["format"] = json!(2);
        assert!(replayed(&other).await.unwrap_err().to_string().contains("its format is 2"));
        assert!(replayed(&json!({"hook": "boot"})).await.unwrap_err().to_string().contains("no recording"));
    }
}

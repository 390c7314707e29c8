//! Components that worked, kept by their digest, and what is remembered of each plugin.
//!
//! Invariant: what stands under a digest has that digest; a file is there whole or not at all, also after a power cut.
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::{Digest, PluginName};
use crate::hooks::HookSet;

/// Components that are remembered of each plugin.
const HISTORY_MAX: usize = 10;
/// A component's file; a Python guest has 18 MB.
const COMPONENT_MAX_BYTES: u64 = 64 << 20;

/// `<data-dir>/plugins`
#[derive(Debug)]
pub(super) struct Library {
    folder: PathBuf,
}

/// What is remembered of a plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    /// Components that worked, newest last; none twice.
    pub(super) history: Vec<Ran>,
    /// The component that an operator went back to.
    pub(super) rolled_back_to: Option<String>,
    /// Whether an operator switched it off.
    pub(super) disabled: bool,
}

/// A component that worked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ran {
    pub(super) digest: String,
    pub(super) version: String,
    pub(super) at: Timestamp,
    /// The hooks that it exports; none in records that were written before this was kept.
    #[serde(default)]
    pub(super) hooks: Option<HookSet>,
    /// The file of its binding when another component took its place; only of installed ones.
    #[serde(default)]
    pub(super) binding: Option<String>,
}

impl Record {
    /// Takes note of a component that works now; `at` of one that is the newest already stays.
    pub(super) fn ran(&mut self, digest: &Digest, version: &str, hooks: HookSet, at: Timestamp) {
        let digest = digest.to_string();
        let binding = self.history.iter().find(|ran| ran.digest == digest).and_then(|ran| ran.binding.clone());
        let at = self.history.last().filter(|last| last.digest == digest).map_or(at, |last| last.at);
        self.history.retain(|ran| ran.digest != digest);
        self.history.push(Ran { digest, version: version.to_owned(), at, hooks: Some(hooks), binding });
        let surplus = self.history.len().saturating_sub(HISTORY_MAX);
        self.history.drain(..surplus);
    }

    /// The component before this one; of none, the newest.
    pub(super) fn before(&self, digest: Option<&str>) -> Option<Digest> {
        let place = digest.and_then(|digest| self.history.iter().position(|ran| ran.digest == digest));
        let before = match place {
            Some(place) => self.history.get(..place)?.last()?,
            None => self.history.last()?,
        };
        before.digest.parse().ok()
    }

    /// The file of the binding that a component had.
    pub(super) fn text(&self, digest: &Digest) -> Option<String> {
        self.history.iter().find(|ran| ran.digest == digest.to_string())?.binding.clone()
    }

    /// Keeps the file of the binding that a component has.
    pub(super) fn keep_text(&mut self, digest: Option<&str>, text: String) {
        if let Some(ran) = self.history.iter_mut().find(|ran| Some(ran.digest.as_str()) == digest) {
            ran.binding = Some(text);
        }
    }

    /// The component that should run, if it is known: whatever takes its place must guard what it guards.
    pub(super) fn standing(&self) -> Option<&Ran> {
        let back = self.rolled_back_to.as_ref();
        let back = back.and_then(|back| self.history.iter().find(|ran| ran.digest == *back));
        back.or_else(|| self.history.last())
    }

    pub(super) fn rolled_back_to(&self) -> Option<Digest> {
        self.rolled_back_to.as_ref()?.parse().ok()
    }
}

impl Library {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self { folder: data_dir.join("plugins") }
    }

    /// Where a component is, or would be.
    pub(super) fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(format!("{}.wasm", digest.hex()))
    }

    /// A component, if it is there and still what it was.
    pub(super) fn component(&self, digest: &Digest) -> io::Result<Vec<u8>> {
        let bytes = read_component(&self.path(digest))?;
        if Digest::of(&bytes) == *digest {
            return Ok(bytes);
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "it is not what it was any more: the disk may be broken"))
    }

    /// Keeps a component.
    pub(super) fn keep(&self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        if self.component(digest).is_ok() {
            return Ok(());
        }
        self.make()?;
        write_whole(&self.path(digest), bytes, 0o640)
    }

    /// What is remembered of a plugin; of a new one, nothing.
    ///
    /// # Errors
    /// It cannot be read. Nobody knows then whether the plugin was switched off or rolled back, so nothing may be written over it.
    pub(super) fn record(&self, name: &PluginName) -> io::Result<Record> {
        match fs::read(self.record_path(name)) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Record::default()),
            Err(error) => Err(error),
        }
    }

    pub(super) fn remember(&self, name: &PluginName, record: &Record) -> io::Result<()> {
        self.make()?;
        write_whole(&self.record_path(name), serde_json::to_string_pretty(record)?.as_bytes(), 0o640)
    }

    pub(super) fn forget(&self, name: &PluginName) -> io::Result<()> {
        remove_whole(&self.record_path(name))
    }

    /// Removes components that nobody remembers and no binding names.
    pub(super) fn sweep(&self, named: &BTreeSet<Digest>) -> io::Result<()> {
        let paths: Vec<PathBuf> =
            fs::read_dir(&self.folder)?.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
        let is = |path: &Path, extension: &str| path.extension().is_some_and(|found| found == extension);
        let mut kept: BTreeSet<PathBuf> = named.iter().map(|digest| self.path(digest)).collect();
        for path in paths.iter().filter(|path| is(path, "json")) {
            // Of one that cannot be read nobody knows what it names, so nothing is removed.
            let record: Record = serde_json::from_slice(&fs::read(path)?)?;
            let digests = record.history.iter().map(|ran| &ran.digest).chain(&record.rolled_back_to);
            kept.extend(digests.filter_map(|digest| digest.parse().ok()).map(|digest| self.path(&digest)));
        }
        for path in paths.iter().filter(|path| is(path, "wasm") && !kept.contains(*path)) {
            fs::remove_file(path)?;
        }
        Ok(())
    }

    /// Where what is remembered of a plugin stands.
    pub(super) fn record_path(&self, name: &PluginName) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }

    fn make(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o750).create(&self.folder)
    }
}

/// Reads a component's file.
pub(super) fn read_component(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(COMPONENT_MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > COMPONENT_MAX_BYTES {
        let text = format!("it has more than {} MiB", COMPONENT_MAX_BYTES >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

/// Writes a file that is there whole, and durably, or not at all.
pub(super) fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut nascent = tempfile::Builder::new()
        .prefix(".nascent-")
        .permissions(fs::Permissions::from_mode(mode))
        .tempfile_in(folder)?;
    nascent.write_all(bytes)?;
    nascent.as_file().sync_all()?;
    nascent.persist(path).map_err(|error| error.error)?;
    fs::File::open(folder)?.sync_all()
}

/// Removes a file, durably; one that is not there is gone already.
pub(super) fn remove_whole(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::Hook;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_history_is_bounded_and_knows_what_was_before() {
        let mut record = Record::default();
        let digests: Vec<Digest> = (0..12_u8).map(|byte| Digest::of(&[byte])).collect();
        for (second, digest) in digests.iter().enumerate() {
            record.ran(digest, "1", HookSet::new(), at(second as i64));
        }
        assert_eq!(record.history.len(), HISTORY_MAX);
        let newest = digests[11].to_string();
        assert_eq!(record.before(Some(&newest)), Some(digests[10]));
        assert_eq!(record.before(None), Some(digests[11]));
        assert_eq!(record.before(Some(&digests[2].to_string())), None);
        record.ran(&digests[5], "1", HookSet::new(), at(99));
        assert_eq!((record.history.len(), record.before(None)), (HISTORY_MAX, Some(digests[5])));
    }

    #[test]
    fn components_are_kept_checked_and_swept() {
        let folder = tempfile::tempdir().unwrap();
        let library = Library::new(folder.path());
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
        library.keep(&one, b"one").unwrap();
        library.keep(&two, b"two").unwrap();
        let name: PluginName = "racks".parse().unwrap();
        let mut record = Record::default();
        record.ran(&one, "1", HookSet::from([Hook::Boot]), at(0));
        library.remember(&name, &record).unwrap();
        assert_eq!(library.record(&name).unwrap(), record);
        library.sweep(&BTreeSet::new()).unwrap();
        assert_eq!(library.component(&one).unwrap(), b"one");
        assert!(library.component(&two).is_err());
        fs::write(library.path(&one), "another").unwrap();
        assert_eq!(library.component(&one).unwrap_err().kind(), io::ErrorKind::InvalidData);
        library.forget(&name).unwrap();
        library.forget(&name).unwrap();
        assert_eq!(library.record(&name).unwrap(), Record::default());
    }

    #[test]
    fn what_cannot_be_read_is_an_error_and_keeps_all_components() {
        let folder = tempfile::tempdir().unwrap();
        let library = Library::new(folder.path());
        let name: PluginName = "racks".parse().unwrap();
        library.keep(&Digest::of(b"one"), b"one").unwrap();
        for bad in ["", "{", "{\"disabled\": 1}"] {
            fs::write(library.record_path(&name), bad).unwrap();
            assert!(library.record(&name).is_err(), "{bad:?}");
            assert!(library.sweep(&BTreeSet::new()).is_err(), "{bad:?}");
        }
        assert_eq!(library.component(&Digest::of(b"one")).unwrap(), b"one");
    }
}

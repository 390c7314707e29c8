//! Notices that something of a plugin's folder has changed, by the times and sizes of its files.
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Folders that are made by building, or too large to be looked at all the time.
const NOT_WATCHED: [&str; 6] = ["target", "node_modules", ".git", ".venv", ".kiwispray", "__pycache__"];

/// Looks at a folder now and then.
#[derive(Debug)]
pub struct Watch {
    folder: PathBuf,
    seen: BTreeMap<PathBuf, (Option<SystemTime>, u64)>,
}

impl Watch {
    /// Knows the folder as it is now.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        let mut watch = Self { folder: folder.to_owned(), seen: BTreeMap::new() };
        watch.has_changed();
        watch
    }

    /// Whether it is another one than at the last look.
    pub fn has_changed(&mut self) -> bool {
        let mut now = BTreeMap::new();
        look(&self.folder, &mut now);
        let changed = now != self.seen;
        self.seen = now;
        changed
    }
}

/// What cannot be read is not there: an editor may be in the middle of replacing it.
fn look(folder: &Path, into: &mut BTreeMap<PathBuf, (Option<SystemTime>, u64)>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(about) = entry.metadata() else { continue };
        if about.is_dir() {
            if !NOT_WATCHED.iter().any(|name| entry.file_name() == *name) {
                look(&path, into);
            }
        // The component and the lock file are written by building.
        } else if !path.extension().is_some_and(|extension| extension == "wasm" || extension == "lock") {
            into.insert(path, (about.modified().ok(), about.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_noticed_and_what_building_writes_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("src/lib.rs", "a");
        let mut watch = Watch::new(folder.path());
        assert!(!watch.has_changed());
        write("src/lib.rs", "ab");
        assert!(watch.has_changed());
        write("cases/new.json", "{}");
        assert!(watch.has_changed());
        write("racks.wasm", "x");
        write("target/release/x", "x");
        assert!(!watch.has_changed());
        fs::remove_file(folder.path().join("cases/new.json")).unwrap();
        assert!(watch.has_changed());
    }
}

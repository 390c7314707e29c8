//! Compiled components on disk: compiling a guest takes as long as a thousand calls of it, reading its code again does not.
//!
//! Invariant: what is read is what this server wrote (`trusted` checks that), for this very content and this very engine (both
//! stand in the name). Whatever is missing, foreign or damaged is compiled again: the cache never makes a plugin fail.
use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use wasmtime::Engine;
use wasmtime::component::Component;

mod trusted;

/// Compiled components that are kept. More than anybody has plugins, with some to go back to.
const KEPT_MAX: usize = 128;
const EXTENSION: &str = "cwasm";

/// A folder with compiled components, which only this server writes.
#[derive(Clone, Debug)]
pub(super) struct CodeCache {
    folder: PathBuf,
    /// Names the engine's version and settings.
    engine: String,
}

impl CodeCache {
    /// Makes the folder if there is none.
    ///
    /// # Errors
    /// It cannot be made, or belongs to others too.
    pub(super) fn open(folder: &Path, engine: &Engine) -> io::Result<Self> {
        if let Some(parent) = folder.parent() {
            fs::create_dir_all(parent)?;
        }
        match fs::DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        trusted::check_folder(folder)?;
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self { folder: folder.to_owned(), engine: format!("{:016x}", hasher.finish()) })
    }

    /// The component with these bytes, whose SHA-256 in hexadecimal is `digest`: from the cache, or compiled and kept.
    ///
    /// # Errors
    /// It does not compile.
    pub(super) fn component(&self, engine: &Engine, digest: &str, bytes: &[u8]) -> wasmtime::Result<Component> {
        let path = self.folder.join(format!("{digest}-{}.{EXTENSION}", self.engine));
        match trusted::load(engine, &self.folder, &path) {
            Ok(component) => return Ok(component),
            Err(trusted::Unusable::Missing) => {}
            Err(trusted::Unusable::Distrusted(why)) => {
                tracing::warn!(path = %path.display(), why, "compiled code is not used, and written anew");
            }
        }
        let component = Component::from_binary(engine, bytes)?;
        let kept = component.serialize().map_err(io::Error::other).and_then(|code| self.keep(&path, &code));
        if let Err(error) = kept {
            tracing::warn!(path = %path.display(), %error, "compiled code cannot be kept: loading it again takes longer");
        }
        Ok(component)
    }

    /// Writes a file that is there whole or not at all, also after a power loss.
    fn keep(&self, path: &Path, code: &[u8]) -> io::Result<()> {
        self.make_room()?;
        // Made for its owner only, as the folder is.
        let mut file = tempfile::Builder::new().prefix(".writing-").tempfile_in(&self.folder)?;
        file.write_all(code)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    }

    /// Removes the oldest, and what a crash left half written.
    fn make_room(&self) -> io::Result<()> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let Ok(about) = entry.metadata() else { continue };
            let written = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let is_code = entry.path().extension().is_some_and(|extension| extension == EXTENSION);
            // A file that is being written by another load is younger than this.
            let is_left_over = written.elapsed().is_ok_and(|age| age.as_secs() > 3_600);
            if is_code {
                kept.push((written, entry.path()));
            } else if is_left_over && about.is_file() {
                fs::remove_file(entry.path())?;
            }
        }
        kept.sort();
        let surplus = kept.len().saturating_sub(KEPT_MAX - 1);
        kept.iter().take(surplus).try_for_each(|(_, path)| fs::remove_file(path))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const EMPTY: &str = "(component)";
    const DIGEST: &str = "00ff";

    fn opened() -> (tempfile::TempDir, CodeCache, Engine) {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let cache = CodeCache::open(&dir.path().join("data/code"), &engine).unwrap();
        (dir, cache, engine)
    }

    fn files(cache: &CodeCache) -> Vec<PathBuf> {
        fs::read_dir(&cache.folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn a_component_is_compiled_once() {
        let (_dir, cache, engine) = opened();
        let bytes = wat::parse_str(EMPTY).unwrap();
        cache.component(&engine, DIGEST, &bytes).unwrap();
        let [file] = files(&cache).try_into().unwrap();
        assert!(file.file_name().unwrap().to_str().unwrap().starts_with("00ff-"));
        // Were it compiled, it would fail.
        cache.component(&engine, DIGEST, b"no component").unwrap();
        assert!(cache.component(&engine, "01", b"no component").is_err());
    }

    #[test]
    fn code_of_another_engine_is_not_found() {
        let (_dir, cache, engine) = opened();
        cache.component(&engine, DIGEST, &wat::parse_str(EMPTY).unwrap()).unwrap();
        let mut config = wasmtime::Config::new();
        config.epoch_interruption(true);
        let engine = Engine::new(&config).unwrap();
        let cache = CodeCache::open(&cache.folder, &engine).unwrap();
        assert!(cache.component(&engine, DIGEST, b"no component").is_err());
    }

    #[test]
    fn a_file_that_others_may_write_or_that_is_damaged_is_written_anew() {
        let (_dir, cache, engine) = opened();
        let bytes = wat::parse_str(EMPTY).unwrap();
        cache.component(&engine, DIGEST, &bytes).unwrap();
        let file = files(&cache).remove(0);
        let good = fs::read(&file).unwrap();
        type Spoil<'a> = &'a dyn Fn();
        let writable: Spoil = &|| fs::set_permissions(&file, fs::Permissions::from_mode(0o620)).unwrap();
        let empty: Spoil = &|| fs::write(&file, "").unwrap();
        let cut: Spoil = &|| fs::write(&file, &good[..good.len() / 2]).unwrap();
        let foreign: Spoil = &|| {
            let elsewhere = cache.folder.with_extension("elsewhere");
            fs::write(&elsewhere, &good).unwrap();
            fs::remove_file(&file).unwrap();
            std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
        };
        for spoil in [writable, empty, cut, foreign] {
            spoil();
            assert!(cache.component(&engine, DIGEST, b"no component").is_err(), "it was used");
            cache.component(&engine, DIGEST, &bytes).unwrap();
            cache.component(&engine, DIGEST, b"no component").unwrap();
        }
    }

    #[test]
    fn a_folder_that_others_may_write_is_not_used() {
        let (_dir, cache, engine) = opened();
        fs::set_permissions(&cache.folder, fs::Permissions::from_mode(0o770)).unwrap();
        assert!(CodeCache::open(&cache.folder, &engine).is_err());
        assert!(cache.component(&engine, DIGEST, b"no component").is_err());
        let link = cache.folder.with_extension("link");
        fs::set_permissions(&cache.folder, fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink(&cache.folder, &link).unwrap();
        assert!(CodeCache::open(&link, &engine).is_err());
    }

    #[test]
    fn the_oldest_code_makes_room() {
        let (_dir, cache, engine) = opened();
        for n in 0..KEPT_MAX + 5 {
            fs::write(cache.folder.join(format!("{n}.{EXTENSION}")), "").unwrap();
        }
        cache.component(&engine, DIGEST, &wat::parse_str(EMPTY).unwrap()).unwrap();
        assert_eq!(files(&cache).len(), KEPT_MAX);
    }
}

//! The one place where compiled code comes from a file.
//!
//! [`Component::deserialize_file`] runs what the file says, so the file must be what `serialize` once returned. That holds:
//! 1. Only this server's user and root can write into the folder: it is a directory (no link to one), belongs to that user,
//!    and nobody else may write or even enter it. Nobody else can put a file there or exchange one between the check and the
//!    use, whatever the file's own mode is.
//! 2. The file is a plain one (no link to elsewhere), belongs to that user and nobody else may write it.
//! 3. Of what that user runs, only `keep` writes files of this name, and it writes what `serialize` returned: synced before the
//!    file gets its name, so that it is whole after a power loss too.
//! 4. wasmtime checks the version and settings of the engine that are written in the file, and its form.
//!
//! The file stays mapped while the component is used. It is never written in place: new code is a new file.
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use wasmtime::Engine;
use wasmtime::component::Component;

/// Why no code came from a file.
pub(super) enum Unusable {
    /// There is none.
    Missing,
    /// It may be somebody else's, or is damaged.
    Distrusted(String),
}

/// Checks that nobody else can put anything into the folder.
pub(super) fn check_folder(folder: &Path) -> io::Result<()> {
    let about = fs::symlink_metadata(folder)?;
    if about.is_dir() && is_ours(&about) && about.mode() & 0o077 == 0 {
        return Ok(());
    }
    let why = "it must be a folder of the server's user with mode 0700, as code is run from there";
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

/// The component whose code is in a file of the folder.
pub(super) fn load(engine: &Engine, folder: &Path, path: &Path) -> Result<Component, Unusable> {
    let distrusted = |why: &dyn std::fmt::Display| Unusable::Distrusted(why.to_string());
    check_folder(folder).map_err(|error| distrusted(&error))?;
    let about = match fs::symlink_metadata(path) {
        Ok(about) => about,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unusable::Missing),
        Err(error) => return Err(distrusted(&error)),
    };
    if !about.is_file() || !is_ours(&about) || about.mode() & 0o022 != 0 {
        return Err(distrusted(&"it must be a file of the server's user that nobody else may write"));
    }
    #[expect(unsafe_code, reason = "the module's text proves that the file is what `serialize` returned")]
    // SAFETY: points 1 to 4 above; 1 and 2 were checked just now.
    let component = unsafe { Component::deserialize_file(engine, path) };
    component.map_err(|error| distrusted(&format!("{error:#}")))
}

fn is_ours(about: &Metadata) -> bool {
    about.uid() == rustix::process::geteuid().as_raw()
}

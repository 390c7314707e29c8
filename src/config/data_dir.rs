//! Whether a server ran over a data directory before.
//!
//! Invariant: what cannot be looked at counts as there, so that nothing is taken for a first start by mistake; whoever
//! opens it says what is wrong.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::STORE_FOLDER;

/// The files that every store has from its first start on.
const STORE_FILES: [&str; 2] = ["db", "watermark"];
/// What a server leaves when it is killed.
const SOCKET: &str = "admin.sock";
/// Where components are kept that worked, under their SHA-256.
const COMPONENTS: &str = "plugins";

/// Whether something is at this path.
pub(super) fn is_there(path: &Path) -> bool {
    !fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// Whether there is a store, whole or not.
pub(super) fn has_store(data_dir: &Path) -> bool {
    STORE_FILES.iter().any(|file| is_there(&data_dir.join(STORE_FOLDER).join(file)))
}

/// Whether anything tells that there was a store: its folder, one that a restore put aside or did not finish, the
/// socket of a server, or a component that one kept.
pub(super) fn has_remains(data_dir: &Path) -> bool {
    let is_of_store =
        |name: &str| name.strip_prefix(STORE_FOLDER).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    any_name(data_dir, |name| is_of_store(name) || name == SOCKET) || any_name(&data_dir.join(COMPONENTS), is_component)
}

/// Components that people put there have names that people give.
fn is_component(name: &str) -> bool {
    name.strip_suffix(".wasm").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn any_name(folder: &Path, test: impl Fn(&str) -> bool) -> bool {
    match fs::read_dir(folder) {
        Ok(mut files) => files.any(|file| file.map_or(true, |file| file.file_name().to_str().is_some_and(&test))),
        Err(error) => error.kind() != ErrorKind::NotFound,
    }
}

//! Writing what was planned: whole files and folders, each by one rename, and nothing over what somebody else wrote.

use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::image::OldImage;
use crate::images::{ImportError, import_folder};

/// What became of a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is there now.
    New,
    /// It was there, just so.
    There,
    /// Something else is there, and stays.
    Other,
}

/// Writes a file, unless there is one of that name.
pub fn put(folder: &Path, name: &str, text: &str) -> io::Result<Put> {
    let path = folder.join(name);
    match fs::read(&path) {
        Ok(found) => return Ok(if found == text.as_bytes() { Put::There } else { Put::Other }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new().prefix(".migrate-").tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(&path) {
        Ok(_) => {}
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => return Ok(Put::Other),
        Err(error) => return Err(error.error),
    }
    fs::File::open(folder)?.sync_all()?;
    Ok(Put::New)
}

/// Copies an image, unless there is one of its name. `progress` hears of bytes.
pub fn take_image(images: &Path, image: &OldImage, progress: impl FnMut(u64)) -> Result<Put, ImportError> {
    if fs::symlink_metadata(images.join(image.request.name.as_str())).is_ok() {
        return Ok(Put::There);
    }
    import_folder(images, &image.request, &image.from, progress).map(|_| Put::New)
}

//! Whether a server ran over a data directory before, or would now if its disk were mounted.
//!
//! Invariant: what cannot be looked at counts as there, so that nothing is taken for a first start by mistake; whoever
//! opens it says what is wrong.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

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

/// The file system of `/etc/fstab` to which this path belongs and that is not mounted: its folder is there, and empty.
pub(super) fn unmounted(path: &Path) -> Option<PathBuf> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let fstab = fs::read_to_string("/etc/fstab").ok()?;
    let mounted = fs::read_to_string("/proc/self/mountinfo").ok()?;
    missing_mount(&fstab, &mounted, &path)
}

/// `fstab` as of fstab(5), `mounted` as of proc_pid_mountinfo(5).
fn missing_mount(fstab: &str, mounted: &str, path: &Path) -> Option<PathBuf> {
    let lines = fstab.lines().filter(|line| !line.trim_start().starts_with('#'));
    let nearest = lines.filter_map(|line| line.split_whitespace().nth(1)).map(mount_point);
    let nearest = nearest.filter(|point| point.is_absolute() && path.starts_with(point));
    let nearest = nearest.max_by_key(|point| point.components().count())?;
    let is_mounted =
        mounted.lines().filter_map(|line| line.split(' ').nth(4)).any(|point| mount_point(point) == nearest);
    (!is_mounted && nearest != Path::new("/")).then_some(nearest)
}

/// A mount point as both files write it: blanks and backslashes stand as three octal digits.
fn mount_point(field: &str) -> PathBuf {
    let mut parts = field.split('\\');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.split_at_checked(3).and_then(|(code, rest)| Some((u8::from_str_radix(code, 8).ok()?, rest))) {
            Some((byte, rest)) => {
                bytes.push(byte);
                bytes.extend_from_slice(rest.as_bytes());
            }
            None => {
                bytes.push(b'\\');
                bytes.extend_from_slice(part.as_bytes());
            }
        }
    }
    OsString::from_vec(bytes).into()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_a_disk_that_is_not_mounted_is_told_from_an_empty_one() {
        let fstab = "# <what> <where>\nUUID=1 / ext4 defaults 0 1\nUUID=2 none swap sw 0 0\n\
                     UUID=3 /srv/kiwi\\040spray ext4 nofail 0 2\n\tUUID=4\t/var/lib\txfs defaults 0 2\n#UUID=5 /home ext4\n";
        let root =
            "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n23 22 8:2 / /var/lib rw - xfs /dev/sda2 rw\n";
        let disk = "24 22 8:3 / /srv/kiwi\\040spray rw - ext4 /dev/sdb1 rw\n";
        let missing = |mounted: &str, path: &str| missing_mount(fstab, mounted, Path::new(path));
        for path in ["/srv/kiwi spray", "/srv/kiwi spray/data"] {
            assert_eq!(missing(root, path), Some("/srv/kiwi spray".into()), "{path}");
            assert_eq!(missing(&format!("{root}{disk}"), path), None, "{path}");
        }
        for path in ["/srv", "/srv/kiwi spray2", "/var/lib/kiwispray", "/home/data", "/data"] {
            assert_eq!(missing(root, path), None, "{path}");
        }
        assert_eq!(missing(disk, "/var/lib/kiwispray"), Some("/var/lib".into()));
    }
}

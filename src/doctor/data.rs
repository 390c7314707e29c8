//! The data directory: there, writable by the server, closed to others, and with room.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::Finding;
use crate::config::{Config, MissingDataDir, STORE_FOLDER};

const CHECK: &str = "data";
/// Room below which somebody should look, whatever the floor is.
const LITTLE_MB: u64 = 1024;

pub(super) struct Facts {
    pub(super) path: PathBuf,
    /// None: it is not there.
    pub(super) folder: Option<Folder>,
    /// Why it cannot be looked at, if it cannot.
    pub(super) error: Option<String>,
    pub(super) when_missing: MissingDataDir,
    /// Who runs this check.
    pub(super) own_uid: u32,
    pub(super) floor_mb: u64,
}

pub(super) struct Folder {
    pub(super) is_dir: bool,
    pub(super) uid: u32,
    pub(super) mode: u32,
    /// Whether there is a store in it, as far as that can be seen.
    pub(super) has_store: bool,
    /// The owner of the store inside, if there is one.
    pub(super) store_uid: Option<u32>,
    pub(super) free_mb: u64,
}

pub(super) fn look(config: &Config) -> Facts {
    let path = config.data_dir.clone();
    let (folder, error) = match fs::metadata(&path) {
        Ok(found) => {
            let free = rustix::fs::statvfs(&path);
            let free_bytes = free.map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
            let folder = Folder {
                is_dir: found.is_dir(),
                uid: found.uid(),
                mode: found.mode() & 0o7777,
                has_store: path.join(STORE_FOLDER).try_exists().unwrap_or(true),
                store_uid: fs::metadata(path.join(STORE_FOLDER)).ok().map(|store| store.uid()),
                free_mb: free_bytes >> 20,
            };
            (Some(folder), None)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => (None, None),
        Err(error) => (None, Some(error.to_string())),
    };
    Facts {
        path,
        folder,
        error,
        when_missing: config.missing_data_dir,
        own_uid: rustix::process::geteuid().as_raw(),
        floor_mb: config.store.free_space_floor_mb.into(),
    }
}

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let path = facts.path.display().to_string();
    let fail = |said: String, remedy: String| vec![Finding::fail(CHECK, path.clone(), said, remedy)];
    if let Some(why) = &facts.error {
        return fail(format!("cannot be looked at: {why}"), "run this as the server's user, or as root".to_owned());
    }
    let Some(folder) = &facts.folder else {
        return match facts.when_missing {
            MissingDataDir::Create | MissingDataDir::Init => {
                vec![Finding::ok(CHECK, path, "will be made at the first start")]
            }
            MissingDataDir::Refuse => fail(
                "is missing".to_owned(),
                "mount its disk, or restore a backup; for a first start say --init".to_owned(),
            ),
        };
    };
    if !folder.is_dir {
        return fail("is no folder".to_owned(), "name another one by --data-dir".to_owned());
    }
    let mut findings = vec![ownership(facts, folder, &path)];
    if !folder.has_store && facts.when_missing == MissingDataDir::Refuse {
        findings.push(Finding::warn(
            CHECK,
            &path,
            "holds no store, and a start may begin an empty one".to_owned(),
            "mount its disk, or restore a backup, unless this is a first start".to_owned(),
        ));
    }
    if folder.mode & 0o007 != 0 {
        findings.push(Finding::warn(
            CHECK,
            &path,
            format!("is open to every user (mode {:04o}), and holds the secrets of boots", folder.mode),
            format!("chmod o-rwx {path}"),
        ));
    }
    let free = format!("has {} MiB free", folder.free_mb);
    let remedy = "make room: below store.free_space_floor_mb nothing new is accepted".to_owned();
    findings.push(if folder.free_mb < facts.floor_mb {
        Finding::fail(CHECK, &path, format!("{free}, less than the floor of {} MiB", facts.floor_mb), remedy)
    } else if folder.free_mb < LITTLE_MB.max(facts.floor_mb.saturating_mul(2)) {
        Finding::warn(CHECK, &path, free, remedy)
    } else {
        Finding::ok(CHECK, &path, free)
    });
    findings
}

/// Root may do anything, so for root only a store of somebody else is strange: a server run once by hand leaves one.
fn ownership(facts: &Facts, folder: &Folder, path: &str) -> Finding {
    let (uid, own) = (folder.uid, facts.own_uid);
    if let Some(store) = folder.store_uid
        && store != uid
    {
        return Finding::fail(
            CHECK,
            path,
            format!("belongs to user {uid}, and the store inside to user {store}: a server ran as another user"),
            format!("chown -R --reference={path} {path}"),
        );
    }
    if own != 0 && own != uid {
        return Finding::fail(
            CHECK,
            path,
            format!("belongs to user {uid}, and you are user {own}"),
            "run the server, and this check, as its owner or as root".to_owned(),
        );
    }
    if folder.mode & 0o300 != 0o300 {
        return Finding::fail(
            CHECK,
            path,
            format!("cannot be written to by its owner (mode {:04o})", folder.mode),
            format!("chmod u+rwx {path}"),
        );
    }
    Finding::ok(CHECK, path, format!("belongs to user {uid}, mode {:04o}", folder.mode))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::{self, Fail, Ok, Warn};
    use super::*;

    fn facts(change: impl FnOnce(&mut Facts, &mut Folder)) -> Vec<Verdict> {
        let mut folder =
            Folder { is_dir: true, uid: 77, mode: 0o750, has_store: true, store_uid: Some(77), free_mb: 100_000 };
        let mut facts = Facts {
            path: "/data".into(),
            folder: None,
            error: None,
            when_missing: MissingDataDir::Refuse,
            own_uid: 77,
            floor_mb: 256,
        };
        change(&mut facts, &mut folder);
        let facts = Facts { folder: Some(folder), ..facts };
        judge(&facts).iter().map(|finding| finding.verdict).collect()
    }

    #[test]
    fn a_folder_of_the_server_is_good_and_anything_else_is_said() {
        assert_eq!(facts(|_, _| {}), [Ok, Ok]);
        assert_eq!(facts(|facts, _| facts.own_uid = 0), [Ok, Ok]);
        assert_eq!(facts(|facts, _| facts.own_uid = 1000), [Fail, Ok]);
        assert_eq!(facts(|facts, folder| (facts.own_uid, folder.store_uid) = (0, Some(0))), [Fail, Ok]);
        assert_eq!(facts(|_, folder| folder.mode = 0o755), [Ok, Warn, Ok]);
        assert_eq!(facts(|_, folder| folder.mode = 0o550), [Fail, Ok]);
        assert_eq!(facts(|_, folder| folder.free_mb = 900), [Ok, Warn]);
        assert_eq!(facts(|_, folder| folder.free_mb = 100), [Ok, Fail]);
        assert_eq!(facts(|_, folder| folder.is_dir = false), [Fail]);
    }

    #[test]
    fn a_missing_folder_fails_only_where_somebody_named_it() {
        let missing = |when_missing| Facts {
            path: "/data".into(),
            folder: None,
            error: None,
            when_missing,
            own_uid: 0,
            floor_mb: 256,
        };
        assert_eq!(judge(&missing(MissingDataDir::Refuse))[0].verdict, Fail);
        assert_eq!(judge(&missing(MissingDataDir::Create))[0].verdict, Ok);
    }
}

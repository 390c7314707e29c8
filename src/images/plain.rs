//! Stores a kernel and an initrd that come as they are, one behind the other.
//!
//! Invariant: what they do to disks is said by whoever brings them, as nobody can see it, and both have the length that
//! was announced.

use std::io::Read;

use super::archive::{ArchiveError, Failing, Member};
use super::import::{ImportError, Incoming};
use super::manifest::{Kind, Manifest, ManifestError};
use super::names::{FileName, KernelArgs};
use crate::domain::{DevicePolicy, Writes};

/// A kernel and initrd on their way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plain {
    /// The kernel, which comes first.
    pub kernel: Part,
    /// The initrd, which follows.
    pub initrd: Option<Part>,
    /// What they do to disks.
    pub writes: Writes,
}

/// A file whose bytes are on their way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its name in the image's folder.
    pub name: FileName,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// What can be said before a byte is read.
pub(super) fn check(plain: &Plain, device: Option<&DevicePolicy>) -> Result<(), ImportError> {
    match (plain.writes.is_order(), device) {
        (true, None) => return Err(ImportError::NoDevice),
        (false, Some(_)) => return Err(ImportError::NeedlessDevice),
        (true, Some(_)) | (false, None) => {}
    }
    let parts = || [Some(&plain.kernel), plain.initrd.as_ref()].into_iter().flatten();
    if let Some(part) = parts().find(|part| !part.name.is_servable()) {
        return Err(ImportError::BadManifest(ManifestError::NotServable(part.name.clone())));
    }
    if let Some(part) = parts().find(|part| part.size_bytes == 0) {
        return Err(ImportError::Empty(part.name.clone()));
    }
    match &plain.initrd {
        Some(initrd) if initrd.name == plain.kernel.name => Err(ImportError::OneName(initrd.name.clone())),
        Some(_) | None => Ok(()),
    }
}

/// Stores the files; the source ends where they do.
pub(super) fn store(mut incoming: Incoming<'_>, plain: &Plain, mut source: impl Read) -> Result<Manifest, ImportError> {
    for part in [Some(&plain.kernel), plain.initrd.as_ref()].into_iter().flatten() {
        let mut bytes = Failing::new((&mut source).take(part.size_bytes));
        let taken = incoming.take(part.name.clone(), Member::File(part.size_bytes, &mut bytes));
        if let Some(error) = bytes.error {
            return Err(ArchiveError::Source(error).into());
        }
        taken?;
        if bytes.read_bytes < part.size_bytes {
            let (file, found_bytes, expected_bytes) = (part.name.clone(), bytes.read_bytes, part.size_bytes);
            return Err(ImportError::WrongLength { file, found_bytes, expected_bytes });
        }
    }
    if source.read(&mut [0]).map_err(ArchiveError::Source)? > 0 {
        return Err(ImportError::TooMuch);
    }
    let payload = match plain.writes {
        Writes::Nothing => None,
        Writes::Disk | Writes::Wipe => Some(plain.initrd.as_ref().unwrap_or(&plain.kernel).name.clone()),
    };
    Ok(Manifest {
        kind: Kind::Linux,
        kernel: plain.kernel.name.clone(),
        initrd: plain.initrd.as_ref().map(|initrd| initrd.name.clone()),
        payload,
        append: KernelArgs::default(),
        writes: plain.writes,
        device: None,
        inventory: false,
        first_boot: None,
        files: incoming.finish_plain()?,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::super::import::{Contents, ImportRequest, Imported, import};
    use super::*;
    use crate::images::Catalogue;
    use tempfile::TempDir;

    fn part(name: &str, size_bytes: u64) -> Part {
        Part { name: name.parse().unwrap(), size_bytes }
    }

    fn plain(writes: Writes) -> Plain {
        Plain { kernel: part("vmlinuz", 6), initrd: Some(part("initrd.img", 4)), writes }
    }

    fn bring(
        images: &Path,
        plain: Plain,
        device: Option<DevicePolicy>,
        source: impl Read,
    ) -> Result<Imported, ImportError> {
        let request = ImportRequest {
            name: "tool".parse().unwrap(),
            contents: Contents::Plain(plain),
            device,
            append: "quiet".parse().unwrap(),
            inventory: true,
            replace: false,
            keep_free_bytes: 0,
        };
        import(images, &request, source, |_| {})
    }

    #[test]
    fn a_kernel_and_initrd_become_an_image_that_says_what_it_writes() {
        let images = TempDir::new().unwrap();
        bring(images.path(), plain(Writes::Nothing), None, &b"kernelinit"[..]).unwrap();
        let image = Catalogue::new(images.path()).image(&"tool".parse().unwrap()).unwrap();
        assert_eq!(fs::read(image.folder.join("vmlinuz")).unwrap(), b"kernel");
        assert_eq!(fs::read(image.folder.join("initrd.img")).unwrap(), b"init");
        assert_eq!((image.manifest.kind, image.manifest.writes), (Kind::Linux, Writes::Nothing));
        assert_eq!((image.manifest.append.to_string().as_str(), image.manifest.inventory), ("quiet", true));
        assert_eq!(image.payload, None);
        assert_eq!(image.manifest.files.len(), 2);
    }

    #[test]
    fn what_wipes_is_an_order_with_a_disk_and_is_done_when_the_initrd_is_delivered() {
        let images = TempDir::new().unwrap();
        let refused = bring(images.path(), plain(Writes::Wipe), None, &b"kernelinit"[..]).unwrap_err();
        assert!(matches!(refused, ImportError::NoDevice));
        bring(images.path(), plain(Writes::Wipe), Some(DevicePolicy::First), &b"kernelinit"[..]).unwrap();
        let image = Catalogue::new(images.path()).image(&"tool".parse().unwrap()).unwrap();
        assert_eq!(image.payload.unwrap().name.as_str(), "initrd.img");
        assert_eq!((image.manifest.writes, &image.manifest.device), (Writes::Wipe, &Some(DevicePolicy::First)));
    }

    #[test]
    fn a_replaced_image_that_was_made_by_hand_keeps_what_is_not_kernel_or_initrd() {
        let images = TempDir::new().unwrap();
        let folder = images.path().join("tool");
        fs::create_dir(&folder).unwrap();
        let manifest = "kind = \"linux\"\nkernel = \"vmlinuz-old\"\nwrites = \"nothing\"\n";
        for (name, text) in [("image.toml", manifest), ("vmlinuz-old", "k"), ("tools.tar.gz", "tools")] {
            fs::write(folder.join(name), text).unwrap();
        }
        let request = ImportRequest {
            name: "tool".parse().unwrap(),
            contents: Contents::Plain(plain(Writes::Nothing)),
            device: None,
            append: KernelArgs::default(),
            inventory: false,
            replace: true,
            keep_free_bytes: 0,
        };
        let imported = import(images.path(), &request, &b"kernelinit"[..], |_| {}).unwrap();
        assert_eq!(imported.kept, ["tools.tar.gz".parse().unwrap()]);
        assert_eq!(fs::read(folder.join("tools.tar.gz")).unwrap(), b"tools");
        assert!(!folder.join("vmlinuz-old").exists());
    }

    #[test]
    fn each_refusal_is_one_sentence_and_leaves_nothing() {
        let images = TempDir::new().unwrap();
        let said = |plain: Plain, device: Option<DevicePolicy>, bytes: &[u8]| {
            let refused = bring(images.path(), plain, device, bytes).unwrap_err().to_string();
            assert_eq!(fs::read_dir(images.path()).unwrap().count(), 0, "{refused}");
            refused
        };
        let nothing = || plain(Writes::Nothing);
        let twice = Plain { initrd: Some(part("vmlinuz", 4)), ..nothing() };
        let empty = Plain { initrd: Some(part("initrd.img", 0)), ..nothing() };
        let own = Plain { kernel: part("image.toml", 6), ..nothing() };
        insta::assert_snapshot!([
            said(nothing(), Some(DevicePolicy::First), b"kernelinit"),
            said(nothing(), None, b"kernelin"),
            said(nothing(), None, b"kernelinitrd"),
            said(twice, None, b"kernelinit"),
            said(empty, None, b"kernel"),
            said(own, None, b"kernelinit"),
        ].join("\n"), @r"
        this image writes no disk, so it takes no device: leave --device out
        initrd.img ended after 2 of 4 bytes: import it again
        more bytes came than were announced: import it again
        kernel and initrd are both called vmlinuz: rename one
        initrd.img is empty
        the image would get a wrong image.toml: `image.toml` is never served to machines
        ");
    }
}

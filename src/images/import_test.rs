use super::*;
use crate::domain::DevicePolicy;
use crate::images::test_archive::{
    Breaking, TestArchive, archive_of, checksum, kiwi_archive, kiwi_members, md5_of, sha512_of, xz,
};
use crate::images::{Catalogue, clean, remove};
use proptest::prelude::*;
use sha2::Sha256;
use tar::EntryType;

const RAW: &[u8] = &[7; 100_000];

fn request() -> ImportRequest {
    ImportRequest {
        name: "image1".parse().unwrap(),
        contents: Contents::Built { file: None },
        device: Some(DevicePolicy::First),
        append: KernelArgs::default(),
        inventory: false,
        replace: false,
        keep_free_bytes: 0,
    }
}

fn import_bytes(images: &TempDir, archive: &[u8]) -> Result<Imported, ImportError> {
    import(images.path(), &request(), archive, |_| {})
}

/// What the import of a hostile archive says; that it leaves nothing behind is asserted for every one.
fn refusal_of(archive: &[u8]) -> String {
    let images = TempDir::new().unwrap();
    let refused = import_bytes(&images, archive).unwrap_err().to_string();
    assert_eq!(fs::read_dir(images.path()).unwrap().count(), 0, "{refused}");
    assert!(!refused.contains('\n'), "{refused}");
    refused
}

fn with_member(name: &str, bytes: &[u8]) -> Vec<u8> {
    archive_of(&kiwi_members(RAW)).file(name, bytes).finish()
}

fn without(name: &str) -> Vec<(&'static str, Vec<u8>)> {
    kiwi_members(RAW).into_iter().filter(|(member, _)| *member != name).collect()
}

#[test]
fn an_imported_image_is_offered_with_all_its_files() {
    let images = TempDir::new().unwrap();
    let archive = kiwi_archive(RAW);
    let mut read_bytes = 0;
    let append = ImportRequest { append: "quiet".parse().unwrap(), ..request() };
    let imported = import(images.path(), &append, archive.as_slice(), |bytes| read_bytes = bytes).unwrap();
    assert_eq!(read_bytes, archive.len() as u64);
    assert_eq!(imported.dropped_args.len(), 2);
    assert!(!imported.replaced);

    let image = Catalogue::new(images.path()).image(&"image1".parse().unwrap()).unwrap();
    assert_eq!(*image.manifest, imported.manifest);
    assert_eq!(image.manifest.append.to_string(), "console=ttyS0 quiet");
    assert_eq!(image.manifest.device, Some(DevicePolicy::First));
    assert_eq!(image.manifest.writes, Writes::Disk);
    let payload = image.payload.unwrap();
    assert_eq!((payload.name.as_str(), payload.size_bytes), ("B.xz", xz(RAW).len() as u64));
    let record = image.manifest.files.iter().find(|file| file.name == payload.name).unwrap();
    assert_eq!(record.raw_size_bytes, Some(100_000));
    // The link of the archive is a plain file by now, as links are not served.
    let kernel = image.folder.join("B.kernel");
    assert!(fs::symlink_metadata(&kernel).unwrap().is_file());
    assert_eq!(fs::read(kernel).unwrap(), b"installer kernel");
    assert_eq!(fs::metadata(&image.folder).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(fs::read_dir(images.path()).unwrap().count(), 1);
}

#[test]
fn every_layout_is_imported_plain_and_compressed() {
    let old = [
        ("./pxeboot.kernel", b"k".to_vec()),
        ("./pxeboot.initrd.xz", b"i".to_vec()),
        ("./N.x86_64-1.0.0.md5", md5_of(RAW)),
        ("./N.x86_64-1.0.0.xz", xz(RAW)),
    ];
    let old =
        old.iter().fold(TestArchive::new().entry(EntryType::Directory, "./", "", &[]), |archive, (name, bytes)| {
            archive.file(name, bytes)
        });
    let mut newest = without("B.sha256");
    newest.push(("B.sha512", sha512_of(RAW)));
    newest.push(("pxeboot.B.xen.gz", b"xen".to_vec()));
    for archive in [old.finish(), archive_of(&newest).finish(), kiwi_archive(RAW)] {
        for archive in [xz(&archive), archive] {
            let images = TempDir::new().unwrap();
            import_bytes(&images, &archive).unwrap();
            assert!(Catalogue::new(images.path()).image(&"image1".parse().unwrap()).is_ok());
        }
    }
}

#[test]
fn the_payload_is_compared_with_its_checksum_in_any_order() {
    let wrong = checksum::<Sha256>(&[8; 100_000]);
    let longer = checksum::<Sha256>(&[7; 100_001]);
    let shorter = checksum::<Sha256>(&[7; 99_999]);
    for (sum, first, later) in [
        (wrong, "the disk image is not the one that B.sha256 describes", "the disk image is not the one"),
        (
            longer,
            "the disk image has 100000 raw bytes, and B.sha256 says 100001",
            "the disk image has 100000 raw bytes",
        ),
        (shorter, "the disk image decompresses to more than 99999 bytes", "the disk image has 100000 raw bytes"),
    ] {
        let mut members = without("B.sha256");
        members.push(("B.sha256", sum.clone()));
        assert!(refusal_of(&archive_of(&members).finish()).starts_with(later));
        members.rotate_right(1);
        assert!(refusal_of(&archive_of(&members).finish()).starts_with(first));
    }
    // Of two checksums, each one counts that was there or could be there when the payload came.
    let mut both = kiwi_members(RAW);
    both.push(("B.md5", md5_of(b"other")));
    assert!(
        refusal_of(&archive_of(&both).finish()).starts_with("the disk image has 100000 raw bytes, and B.md5 says 5")
    );
}

#[test]
fn archives_that_are_not_whole_are_refused() {
    let archive = kiwi_archive(RAW);
    for length in [0, 100, 511, 513, 1_500, archive.len() / 2, archive.len() - 1_024] {
        assert!(refusal_of(&archive[..length]).starts_with("the archive is truncated"), "{length}");
    }
    let compressed = xz(&archive);
    for length in [7, compressed.len() / 2, compressed.len() - 1] {
        assert!(refusal_of(&compressed[..length]).starts_with("the archive is truncated"), "{length}");
    }
    // Between two members a truncated archive still looks like a whole one, but for its end mark.
    assert!(refusal_of(&archive_of(&kiwi_members(RAW)).unfinished()).starts_with("the archive is truncated"));
    let mut members = without("B.xz");
    members.push(("B.xz", xz(RAW)[..60].to_vec()));
    assert!(refusal_of(&archive_of(&members).finish()).starts_with("the disk image does not decompress: "));
    assert!(
        refusal_of(&[b'x'; 2_000])
            .starts_with("this is nothing that KIWI built for the network: neither an install archive")
    );
    assert!(refusal_of(&[archive, vec![1; 2 << 20]].concat()).contains("behind the last"));
}

#[test]
fn hostile_members_are_refused_by_name() {
    for name in ["/etc/passwd", "../up", "a/../../up", "a/b", ".hidden", "-rf", "a b", "a\u{e4}", "a;b", "", ".."] {
        let said = refusal_of(&with_member(name, b"x"));
        assert!(said.contains("plain names"), "{name}: {said}");
    }
    for name in ["image.toml", "post_install.sh.hbs"] {
        assert!(refusal_of(&with_member(name, b"x")).contains("only the server or its operator"), "{name}");
    }
    assert_eq!(refusal_of(&with_member("B.append", b"x")), "the archive holds B.append twice");
    assert_eq!(refusal_of(&with_member("./B.append", b"x")), "the archive holds B.append twice");
    for (kind, word) in [
        (EntryType::Char, "a device"),
        (EntryType::Block, "a device"),
        (EntryType::Fifo, "a fifo"),
        (EntryType::Directory, "a folder"),
        (EntryType::GNUSparse, "a sparse file"),
        (EntryType::new(b'Z'), "something unknown"),
    ] {
        let archive = archive_of(&kiwi_members(RAW)).entry(kind, "odd", "", &[]).finish();
        assert_eq!(refusal_of(&archive), format!("the archive holds odd as {word}: an install archive has files only"));
    }
}

#[test]
fn links_that_leave_the_archive_are_refused() {
    for target in ["/etc/shadow", "../other/B.xz", "a/b", "", "none", "B.link"] {
        for kind in [EntryType::Symlink, EntryType::Link] {
            let archive = archive_of(&kiwi_members(RAW)).entry(kind, "B.link", target, &[]).finish();
            assert!(refusal_of(&archive).contains("no file of the archive"), "{target}");
        }
    }
    // A payload must come as bytes, or it would not have been checked.
    let archive = archive_of(&without("B.xz")).file("raw", &xz(RAW)).link("B.xz", "raw").finish();
    assert!(refusal_of(&archive).starts_with("the disk image is not the one"));
}

#[test]
fn archives_that_want_too_much_are_refused() {
    let many = (0..70).fold(TestArchive::new(), |archive, n| archive.file(&format!("file{n}"), b""));
    assert_eq!(refusal_of(&many.finish()), "the archive holds more than 64 files");
    let long_name = TestArchive::new().entry(EntryType::GNULongName, "././@LongLink", "", &vec![b'a'; 2 << 20]);
    assert!(refusal_of(&long_name.file("x", b"").finish()).contains("bytes between two files"));
    // A header may promise what no disk holds.
    let mut header = tar::Header::new_gnu();
    header.set_path("B.xz").unwrap();
    header.set_size(1 << 60);
    header.set_cksum();
    assert!(refusal_of(header.as_bytes()).starts_with("B.xz has 1152921504606846976 bytes, and only "));
    let mut bomb = without("B.xz");
    bomb.push(("B.xz", xz(&vec![0; 3_000_000])));
    assert!(
        refusal_of(&archive_of(&bomb).finish()).starts_with("the disk image decompresses to more than 100000 bytes")
    );
}

#[test]
fn what_cannot_work_is_refused_before_the_archive_is_read() {
    let images = TempDir::new().unwrap();
    let import_with = |request: ImportRequest| {
        import(images.path(), &request, Breaking { bytes: &[] }, |_| {}).unwrap_err().to_string()
    };
    // The first header says that it is an archive.
    let beginning = Breaking { bytes: &kiwi_archive(RAW)[..512] };
    let no_device = ImportRequest { device: None, ..request() };
    let said = import(images.path(), &no_device, beginning, |_| {}).unwrap_err().to_string();
    assert!(said.starts_with("this image writes a disk, so say which: `/dev/disk/by-id/…`"), "{said}");
    let said = import_with(ImportRequest { name: "finished".parse().unwrap(), ..request() });
    assert_eq!(said, "no image can be called finished: that state is built in");
    let append = "rd.kiwi.oem.installdevice=/dev/sdb".parse().unwrap();
    assert!(import_with(ImportRequest { append, ..request() }).contains("the server sets it itself"));

    // Each fits, both together do not: such an image could never boot.
    let append = ImportRequest { append: "x".repeat(1_530).parse().unwrap(), ..request() };
    let said = import(images.path(), &append, kiwi_archive(RAW).as_slice(), |_| {}).unwrap_err().to_string();
    assert!(said.ends_with("the kernel arguments are longer than 1536 bytes"), "{said}");
    assert_eq!(fs::read_dir(images.path()).unwrap().count(), 0);
}

#[test]
fn an_image_is_replaced_on_demand_and_as_a_whole() {
    let images = TempDir::new().unwrap();
    let replace = ImportRequest { replace: true, ..request() };
    import_bytes(&images, &kiwi_archive(RAW)).unwrap();
    let folder = images.path().join("image1");
    fs::write(folder.join("post_install.sh.hbs"), "echo hello").unwrap();
    let mut served = File::open(folder.join("pxeboot.B.initrd")).unwrap();
    assert!(matches!(import_bytes(&images, &kiwi_archive(RAW)), Err(ImportError::Exists(_))));

    let newer = archive_of(&kiwi_members(b"newer")).finish();
    let broken = import(images.path(), &replace, &newer[..2_000], |_| {});
    assert!(matches!(broken, Err(ImportError::Archive(ArchiveError::Truncated(2_000)))));
    assert!(folder.join("B.kernel").exists());

    let imported = import(images.path(), &replace, newer.as_slice(), |_| {}).unwrap();
    assert!(imported.replaced);
    assert_eq!(imported.kept, ["post_install.sh.hbs".parse().unwrap()]);
    assert_eq!(fs::read(folder.join("B.xz")).unwrap(), xz(b"newer"));
    assert!(!folder.join("B.kernel").exists());
    let mut text = String::new();
    served.read_to_string(&mut text).unwrap();
    assert_eq!(text, "installer initrd");
    assert_eq!(fs::read_dir(images.path()).unwrap().count(), 1);
}

#[test]
fn what_somebody_put_beside_an_image_outlives_its_replacement() {
    let images = TempDir::new().unwrap();
    let replace = ImportRequest { replace: true, ..request() };
    import_bytes(&images, &kiwi_archive(RAW)).unwrap();
    let folder = images.path().join("image1");
    fs::write(folder.join("user-data"), "#cloud-config").unwrap();
    let manifest = fs::read_to_string(folder.join("image.toml")).unwrap();
    let manifest = manifest.replace("device = \"first\"", "device = \"first\"\nfirst_boot = \"nocloud\"");
    fs::write(folder.join("image.toml"), manifest).unwrap();
    let newer = archive_of(&kiwi_members(b"newer")).finish();
    let imported = import(images.path(), &replace, newer.as_slice(), |_| {}).unwrap();
    assert_eq!(imported.kept, ["user-data".parse().unwrap()]);
    assert_eq!(fs::read(folder.join("user-data")).unwrap(), b"#cloud-config");
    let image = Catalogue::new(images.path()).image(&"image1".parse().unwrap()).unwrap();
    assert_eq!(image.manifest.first_boot, Some(crate::domain::FirstBoot::Nocloud));
    // What the old archive brought is gone, also what the new one has not.
    assert!(!folder.join("B.kernel").exists());

    // Which files came with a KIWI image that was made by hand nobody knows: an old checksum must not meet a new disk image.
    let text = fs::read_to_string(folder.join("image.toml")).unwrap();
    fs::write(folder.join("image.toml"), text.split("[[file]]").next().unwrap()).unwrap();
    fs::write(folder.join("B.md5"), "old").unwrap();
    let imported = import(images.path(), &replace, newer.as_slice(), |_| {}).unwrap();
    assert!(imported.kept.is_empty() && !folder.join("B.md5").exists(), "{:?}", imported.kept);
}

#[test]
fn what_the_server_needs_on_the_disk_stays_free() {
    let images = TempDir::new().unwrap();
    let needy = ImportRequest { keep_free_bytes: u64::MAX, ..request() };
    let said = import(images.path(), &needy, kiwi_archive(RAW).as_slice(), |_| {}).unwrap_err().to_string();
    assert!(said.ends_with("and only 0 can be used on the disk of the images"), "{said}");
}

#[test]
fn interrupted_imports_leave_nothing_and_leftovers_are_removed() {
    let images = TempDir::new().unwrap();
    let archive = kiwi_archive(RAW);
    let broken = import(images.path(), &request(), Breaking { bytes: &archive[..3_000] }, |_| {});
    assert!(matches!(broken, Err(ImportError::Archive(ArchiveError::Source(_)))));
    assert_eq!(fs::read_dir(images.path()).unwrap().count(), 0);

    // As a crash leaves them: in the middle of an import, and between the two renames of a replacement.
    fs::create_dir(images.path().join(".import-crashed")).unwrap();
    fs::write(images.path().join(".import-crashed/B.xz"), "half").unwrap();
    fs::create_dir(images.path().join(".replaced-image2")).unwrap();
    let lock = lock(images.path()).unwrap();
    clean(images.path()).unwrap();
    assert!(images.path().join(".import-crashed").exists(), "another import owns it");
    assert!(matches!(import_bytes(&images, &archive), Err(ImportError::Busy)));
    drop(lock);
    clean(images.path()).unwrap();
    let left: Vec<_> = fs::read_dir(images.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["image2"]);
}

/// On NFS, that is.
#[test]
fn where_folders_cannot_be_locked_a_hidden_file_is_which_is_no_image() {
    let images = TempDir::new().unwrap();
    let lock = lock_by_file(images.path()).unwrap();
    assert!(matches!(lock_by_file(images.path()), Err(ImportError::Busy)));
    drop(lock);
    let _again = lock_by_file(images.path()).unwrap();
    import_bytes(&images, &kiwi_archive(RAW)).unwrap();
    clean(images.path()).unwrap();
    assert_eq!(Catalogue::new(images.path()).list().unwrap().len(), 1);
}

#[test]
fn a_removed_image_is_gone() {
    let images = TempDir::new().unwrap();
    import_bytes(&images, &kiwi_archive(RAW)).unwrap();
    let name = "image1".parse().unwrap();
    remove(images.path(), &name).unwrap();
    assert_eq!(fs::read_dir(images.path()).unwrap().count(), 0);
    assert!(matches!(remove(images.path(), &name), Err(ImportError::Missing(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_damaged_archive_is_refused_or_sums_to_the_same(at in 0_usize..4_096, bit in 0_u8..8) {
        let raw = b"a small disk image";
        let mut archive = kiwi_archive(raw);
        let at = at % archive.len();
        archive[at] ^= 1 << bit;
        let images = TempDir::new().unwrap();
        if import_bytes(&images, &archive).is_ok() {
            let payload = fs::read(images.path().join("image1/B.xz")).unwrap();
            prop_assert_eq!(payload, xz(raw));
        } else {
            prop_assert_eq!(fs::read_dir(images.path()).unwrap().count(), 0);
        }
    }
}

use std::fs;
use std::io::Cursor;
use std::path::Path;

use super::super::import::{Contents, ImportRequest, Imported, import};
use super::*;
use crate::domain::DevicePolicy;
use crate::images::test_iso::{INITRD, KERNEL, Maker, iso_of, live_files, live_iso};
use crate::images::{Catalogue, clean};
use proptest::prelude::*;
use tempfile::TempDir;

fn request(file: Option<&str>) -> ImportRequest {
    ImportRequest {
        name: "rescue".parse().unwrap(),
        contents: Contents::Built { file: file.map(|name| name.parse().unwrap()) },
        device: None,
        append: KernelArgs::default(),
        inventory: false,
        replace: false,
        keep_free_bytes: 0,
    }
}

fn bring(images: &Path, iso: &[u8]) -> Result<Imported, ImportError> {
    import(images, &request(Some("rescue-1.0.0.iso")), iso, |_| {})
}

/// What the import of a hostile ISO says; that it leaves nothing behind is asserted for every one.
fn refusal_of(iso: &[u8]) -> String {
    let images = TempDir::new().unwrap();
    let refused = bring(images.path(), iso).unwrap_err().to_string();
    assert_eq!(fs::read_dir(images.path()).unwrap().count(), 0, "{refused}");
    assert!(!refused.contains('\n'), "{refused}");
    refused
}

/// Where the trees have the entry of this name: the one of the whole, and the one of the partition that KIWI adds.
fn records_of(iso: &[u8], name: &str) -> Vec<usize> {
    let is_it = |at: usize| {
        let (length, found) = (usize::from(iso[at - 33]), &iso[at..at + name.len()]);
        found == name.as_bytes() && iso[at - 1] as usize == name.len() && length >= 33 + name.len()
    };
    let found: Vec<_> = (16 * 2048 + 33..iso.len() - name.len()).filter(|at| is_it(*at)).map(|at| at - 33).collect();
    assert!(matches!(found.len(), 1..=2), "{name}: {found:?}");
    found
}

/// The ISO with an entry changed.
fn patched(name: &str, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut iso = live_iso().to_vec();
    for record in records_of(live_iso(), name) {
        iso[record + at..record + at + bytes.len()].copy_from_slice(bytes);
    }
    iso
}

/// The sector of an entry's data.
fn sector_of(name: &str) -> Vec<u8> {
    let sector = |at: usize| u32::from_le_bytes(*live_iso()[at + 2..].first_chunk().unwrap());
    // Those of the partition count from its beginning.
    records_of(live_iso(), name).into_iter().map(sector).max().unwrap().to_le_bytes().to_vec()
}

fn without(name: &str) -> Vec<u8> {
    iso_of(&live_files().into_iter().filter(|(path, _)| *path != name).collect::<Vec<_>>())
}

#[test]
fn a_live_iso_is_kept_whole_with_its_kernel_and_initrd_beside_it() {
    let images = TempDir::new().unwrap();
    let mut read_bytes = 0;
    let wanted =
        ImportRequest { append: "quiet".parse().unwrap(), inventory: true, ..request(Some("rescue-1.0.0.iso")) };
    let imported = import(images.path(), &wanted, live_iso(), |bytes| read_bytes = bytes).unwrap();
    assert_eq!(read_bytes, live_iso().len() as u64);

    let image = Catalogue::new(images.path()).image(&"rescue".parse().unwrap()).unwrap();
    assert_eq!(*image.manifest, imported.manifest);
    assert_eq!(fs::read(image.folder.join("linux")).unwrap(), KERNEL);
    assert_eq!(fs::read(image.folder.join("initrd")).unwrap(), INITRD);
    assert_eq!(fs::read(image.folder.join("rescue-1.0.0.iso")).unwrap(), live_iso());
    let payload = image.payload.unwrap();
    assert_eq!((payload.name.as_str(), payload.size_bytes), ("rescue-1.0.0.iso", live_iso().len() as u64));
    assert_eq!((image.manifest.kind, image.manifest.writes), (Kind::Live, Writes::Nothing));
    assert_eq!((image.manifest.append.to_string().as_str(), image.manifest.inventory), ("quiet", true));
    let sizes: Vec<_> = image.manifest.files.iter().map(|file| file.size_bytes).collect();
    assert_eq!(sizes, [INITRD.len() as u64, KERNEL.len() as u64, live_iso().len() as u64]);
}

#[test]
fn an_iso_of_a_name_that_no_initrd_would_fetch_gets_another() {
    for file in [None, Some("image.ISO"), Some("image")] {
        let images = TempDir::new().unwrap();
        let imported = import(images.path(), &request(file), live_iso(), |_| {}).unwrap();
        assert_eq!(imported.manifest.payload.unwrap().as_str(), "live.iso");
    }
}

#[test]
fn an_iso_with_udf_beside_is_taken_like_another() {
    let folder = TempDir::new().unwrap();
    let iso = fs::read(Maker::UdfBridge.make(folder.path(), &live_files(), 0)).unwrap();
    assert!(iso.windows(5).any(|bytes| bytes == b"NSR02"), "it has no UDF");
    let images = TempDir::new().unwrap();
    bring(images.path(), &iso).unwrap();
    assert_eq!(fs::read(images.path().join("rescue/linux")).unwrap(), KERNEL);
    assert_eq!(fs::read(images.path().join("rescue/initrd")).unwrap(), INITRD);
}

#[test]
fn extents_of_one_name_that_lie_one_behind_the_other_are_one_file() {
    let (first, second) = (vec![1; 4 * 2048], vec![2; 5000]);
    let files = [("LiveOS/squashfs.img", &*first), ("LiveOS/squashfs.imh", &*second)];
    let mut iso = iso_of(&files);
    for record in records_of(&iso, "SQUASHFS.IMG;1") {
        iso[record + 25] |= 0x80;
    }
    for record in records_of(&iso, "SQUASHFS.IMH;1") {
        iso[record + 33..record + 33 + 14].copy_from_slice(b"SQUASHFS.IMG;1");
    }
    let mut opened = Iso::open(Cursor::new(&iso)).unwrap();
    let system = opened.find(&["LiveOS", "squashfs.img"]).unwrap().unwrap();
    let mut bytes = Vec::new();
    opened.open_file(&system).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, [first, second].concat());
}

/// More than one extent holds.
const LARGE_BYTES: u64 = 4300 << 20;

fn large(maker: Maker) -> (TempDir, File) {
    use std::os::unix::fs::MetadataExt as _;
    let folder = TempDir::new().unwrap();
    let iso = File::open(maker.make(folder.path(), &live_files(), LARGE_BYTES)).unwrap();
    let about = iso.metadata().unwrap();
    assert!(about.len() > LARGE_BYTES && about.blocks() * 512 < 64 << 20, "it takes {} blocks", about.blocks());
    (folder, iso)
}

fn boots_what_it_holds(iso: &mut Iso<impl Read + Seek>) {
    let (kernel, initrd) = boot_files(iso).unwrap();
    for (file, expected) in [(kernel, KERNEL), (initrd, INITRD)] {
        let mut bytes = Vec::new();
        iso.open_file(&file).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, expected);
    }
}

#[test]
#[ignore = "20 seconds: cargo xtask test --long"]
fn large_a_system_of_more_than_4_gib_is_read_as_xorriso_writes_it() {
    let (_folder, file) = large(Maker::Xorriso);
    let mut iso = Iso::open(&file).unwrap();
    let system = iso.find(&["LiveOS", "squashfs.img"]).unwrap().unwrap();
    assert_eq!(system.size_bytes(), LARGE_BYTES);
    boots_what_it_holds(&mut iso);
}

#[test]
#[ignore = "20 seconds: cargo xtask test --long"]
fn large_a_system_of_more_than_4_gib_that_only_udf_knows_whole_boots_too() {
    let (_folder, file) = large(Maker::UdfBridge);
    boots_what_it_holds(&mut Iso::open(&file).unwrap());
}

#[test]
fn a_live_iso_takes_no_disk() {
    let images = TempDir::new().unwrap();
    let with_disk = ImportRequest { device: Some(DevicePolicy::First), ..request(None) };
    let refused = import(images.path(), &with_disk, live_iso(), |_| {}).unwrap_err();
    assert!(matches!(refused, ImportError::NeedlessDevice));
    // By this argument, KIWI's module writes the ISO to a disk.
    for append in ["rd.kiwi.live.system=/dev/sda", "root=/dev/sda1"] {
        let wiping = ImportRequest { append: append.parse().unwrap(), ..request(None) };
        let refused = import(images.path(), &wiping, live_iso(), |_| {}).unwrap_err().to_string();
        assert!(refused.contains("`rd.kiwi.live.system` wipes a disk"), "{refused}");
    }
    assert_eq!(fs::read_dir(images.path()).unwrap().count(), 0);
}

#[test]
fn what_is_no_live_iso_is_refused_with_the_way_out() {
    let mut both = live_files();
    both.extend([("boot/aarch64/loader/linux", KERNEL), ("boot/aarch64/loader/initrd", INITRD)]);
    let mut empty = live_files();
    empty[2].1 = b"";
    let said = [
        refusal_of(&without("LiveOS/squashfs.img")),
        refusal_of(&without("boot/x86_64/loader/initrd")),
        refusal_of(&iso_of(&both)),
        refusal_of(&iso_of(&empty)),
        refusal_of(&[7; 100_000]),
        refusal_of(b""),
    ];
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn a_hostile_iso_is_refused_in_one_sentence() {
    let behind = (live_iso().len() as u32 / 2048 + 1).to_le_bytes();
    let mut no_end = live_iso().to_vec();
    // Descriptors that go on for ever: neither the primary one nor the end.
    for sector in no_end[16 * 2048..].chunks_mut(2048).take(40) {
        sector[..6].copy_from_slice(b"\x02CD001");
    }
    let mut sectors_of_512 = live_iso().to_vec();
    sectors_of_512[16 * 2048 + 128..16 * 2048 + 130].copy_from_slice(&512u16.to_le_bytes());
    let said = [
        refusal_of(&patched("LINUX.;1", 2, &behind)),
        refusal_of(&patched("INITRD.;1", 2, &u32::MAX.to_le_bytes())),
        refusal_of(&patched("INITRD.;1", 10, &u32::MAX.to_le_bytes())),
        refusal_of(&patched("LINUX.;1", 25, &[0x80])),
        refusal_of(&patched("LINUX.;1", 26, &[1])),
        refusal_of(&patched("LINUX.;1", 32, &[255])),
        refusal_of(&patched("LINUX.;1", 0, &[1])),
        refusal_of(&patched("BOOT", 10, &u32::MAX.to_le_bytes())),
        // An entry without a length hides the rest of its folder.
        refusal_of(&patched("LIVEOS", 0, &[0])),
        refusal_of(&no_end),
        refusal_of(&sectors_of_512),
    ];
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn folders_that_lead_in_circles_are_not_followed() {
    let mut root = live_iso()[16 * 2048 + 158..16 * 2048 + 162].to_vec();
    for sector in [sector_of("BOOT"), std::mem::take(&mut root), sector_of("X86_64")] {
        assert!(refusal_of(&patched("LOADER", 2, &sector)).contains("no boot/<arch>/loader/linux"));
    }
}

#[test]
fn names_in_the_iso_are_never_paths() {
    for name in [b"../../", b"/etc/x", b"a\0\n\x1b/b"] {
        let images = TempDir::new().unwrap();
        // The name of the architecture is not looked at.
        bring(images.path(), &patched("X86_64", 33, name)).unwrap();
        let mut files: Vec<_> = fs::read_dir(images.path().join("rescue")).unwrap().collect::<Result<_, _>>().unwrap();
        files.sort_by_key(fs::DirEntry::file_name);
        let names: Vec<_> = files.iter().map(|file| file.file_name().into_string().unwrap()).collect();
        assert_eq!(names, ["image.toml", "initrd", "linux", "rescue-1.0.0.iso"]);
    }
    assert!(refusal_of(&patched("LOADER", 33, b"../../")).contains("no boot/<arch>/loader/linux"));
}

#[test]
fn a_truncated_iso_is_never_an_image() {
    let whole = live_iso();
    for length in [1, 512, 32_768, 32_774, 34_815, 34_816, 40_000, whole.len() / 2, whole.len() - 2048, whole.len() - 1]
    {
        let said = refusal_of(&whole[..length]);
        assert!(said.contains("truncated") || said.contains("nothing that KIWI built"), "{length}: {said}");
    }
}

/// A byte of the descriptors and folders, which lie in the first sectors, or anywhere.
fn place() -> impl Strategy<Value = usize> {
    let length = live_iso().len();
    prop_oneof![8 => 16 * 2048..60 * 2048_usize, 1 => 0..length].prop_map(move |at| at % length)
}

fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(0), Just(1), Just(0x7f), Just(0xff), any::<u8>()];
    let changes = proptest::collection::vec((place(), byte), 1..12);
    (changes, proptest::option::weighted(0.2, 0..live_iso().len())).prop_map(|(changes, length)| {
        let mut iso = live_iso().to_vec();
        changes.into_iter().for_each(|(at, byte)| iso[at] = byte);
        iso.truncate(length.unwrap_or(iso.len()));
        iso
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_mutation_panics_or_leads_outside_the_iso(iso in mutated()) {
        let length = iso.len() as u64;
        if let Ok(mut opened) = Iso::open(Cursor::new(iso))
            && let Ok((kernel, initrd)) = boot_files(&mut opened)
        {
            for file in [kernel, initrd] {
                let mut bytes = Vec::new();
                opened.open_file(&file).unwrap().read_to_end(&mut bytes).unwrap();
                prop_assert_eq!(bytes.len() as u64, file.size_bytes());
                prop_assert!(file.size_bytes() <= length);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_mutation_publishes_anything_but_a_whole_image(iso in mutated()) {
        let outer = TempDir::new().unwrap();
        let images = outer.path().join("images");
        let imported = bring(&images, &iso).is_ok();
        clean(&images).unwrap();
        prop_assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1);
        prop_assert_eq!(fs::read_dir(&images).unwrap().count(), usize::from(imported));
        if imported {
            prop_assert_eq!(fs::read_dir(images.join("rescue")).unwrap().count(), 4);
            prop_assert!(Catalogue::new(&images).image(&"rescue".parse().unwrap()).is_ok());
        }
    }
}

//! Stores a live ISO that KIWI built (`<type image="iso">`), with the kernel and initrd that boot it.
//!
//! Invariant: only an ISO that holds a live system becomes an image: an install ISO, which would write a disk, does not. The
//! ISO is kept as it came, and the files beside it have names of their own, whatever those in it are called.
//!
//! KIWI's layout, since version 7: `boot/<arch>/loader/linux` and `initrd`, `LiveOS/squashfs.img` (the container's name even
//! where it is none of squashfs). The initrd fetches the ISO by `root=live:http://…` into a RAM disk: KIWI's own dracut
//! module from 10.2.24, dracut's `livenet` (`flags="dmsquash"`) in every version. Before, KIWI's own knew only AoE.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use super::archive::{ArchiveError, Failing, Member};
use super::import::{ImportError, Incoming};
use super::iso::{Iso, IsoError, Record};
use super::manifest::{Kind, Manifest};
use super::names::{FileName, KernelArgs};
use crate::domain::Writes;

/// Why an ISO is no live ISO that could be booted from the network.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// It cannot be read as a file system.
    #[error("{0}: import a whole copy")]
    Iso(IsoError),
    /// There is no live system in it.
    #[error(
        "the ISO holds no LiveOS/squashfs.img, so it is no live ISO of KIWI: of an install ISO import the `.install.tar`, of others kernel and initrd by --kernel and --initrd"
    )]
    NotLive,
    /// There is no kernel with an initrd where KIWI puts them.
    #[error(
        "the ISO holds no boot/<arch>/loader/linux with an initrd: take kernel and initrd out and import them by --kernel and --initrd"
    )]
    NoKernel,
    /// There are several.
    #[error(
        "the ISO holds kernels for {0} and {1}: take one out with its initrd and import them by --kernel and --initrd"
    )]
    TwoKernels(String, String),
    /// A file without a byte.
    #[error("the ISO is damaged: {0} in it is empty")]
    Empty(&'static str),
}

impl From<IsoError> for LiveError {
    fn from(error: IsoError) -> Self {
        Self::Iso(error)
    }
}

/// The folder `boot` of an honest ISO holds an architecture and what boot loaders want.
const MOST_ARCHITECTURES: usize = 32;
const KERNEL: &str = "linux";
const INITRD: &str = "initrd";
/// What an ISO is called that came under no name that machines could fetch it by.
const ISO: &str = "live.iso";

/// Stores the ISO that the source is, under this name if it can, and what boots it beside it.
pub(super) fn store(
    mut incoming: Incoming<'_>,
    folder: &Path,
    name: Option<FileName>,
    source: impl Read,
) -> Result<Manifest, ImportError> {
    let name = match name.filter(is_iso_name) {
        Some(name) => name,
        None => own_name(ISO)?,
    };
    let free_bytes = incoming.free_bytes()?;
    // Where it ends is not known before, and it must not fill the disk.
    let mut bytes = Failing::new(source.take(free_bytes.saturating_add(1)));
    let taken = incoming.take(name.clone(), Member::File(0, &mut bytes));
    if let Some(error) = bytes.error {
        return Err(ArchiveError::Source(error).into());
    }
    taken?;
    if bytes.read_bytes > free_bytes {
        return Err(ImportError::NoSpace { file: name, size_bytes: bytes.read_bytes, free_bytes });
    }
    let file = File::open(folder.join(name.as_str()))?;
    let mut iso = Iso::open(&file).map_err(LiveError::from)?;
    let (kernel, initrd) = boot_files(&mut iso)?;
    let mut extract = |file: &Record, name: &'static str| {
        let name = own_name(name)?;
        let mut bytes = iso.open_file(file).map_err(LiveError::from)?;
        incoming.take(name.clone(), Member::File(file.size_bytes(), &mut bytes))?;
        Ok::<_, ImportError>(name)
    };
    Ok(Manifest {
        kind: Kind::Live,
        kernel: extract(&kernel, KERNEL)?,
        initrd: Some(extract(&initrd, INITRD)?),
        payload: Some(name),
        append: KernelArgs::default(),
        writes: Writes::Nothing,
        device: None,
        inventory: false,
        first_boot: None,
        files: incoming.finish_plain()?,
    })
}

/// Whether dracut's `livenet` takes the file for an ISO: it goes by the end of the URL.
pub(super) fn is_iso_name(name: &FileName) -> bool {
    name.as_str().ends_with(".iso")
}

fn own_name(name: &'static str) -> Result<FileName, ImportError> {
    name.parse().map_err(|error| ImportError::Io(io::Error::other(error)))
}

/// The kernel and initrd of a live ISO.
fn boot_files<R: Read + Seek>(iso: &mut Iso<R>) -> Result<(Record, Record), LiveError> {
    let system = iso.find(&["LiveOS", "squashfs.img"])?.filter(|system| !system.is_folder).ok_or(LiveError::NotLive)?;
    if system.size_bytes() == 0 {
        return Err(LiveError::Empty("LiveOS/squashfs.img"));
    }
    let boot = iso.find(&["boot"])?.filter(|boot| boot.is_folder).ok_or(LiveError::NoKernel)?;
    let mut found: Option<(String, Record, Record)> = None;
    let folders = iso.entries(&boot)?.into_iter().filter(|entry| entry.is_folder);
    for architecture in folders.take(MOST_ARCHITECTURES) {
        let kernel = iso.find_in(&architecture, &["loader", KERNEL])?.filter(|kernel| !kernel.is_folder);
        let initrd = iso.find_in(&architecture, &["loader", INITRD])?.filter(|initrd| !initrd.is_folder);
        let (Some(kernel), Some(initrd)) = (kernel, initrd) else { continue };
        if let Some((first, ..)) = &found {
            return Err(LiveError::TwoKernels(first.clone(), architecture.shown()));
        }
        found = Some((architecture.shown(), kernel, initrd));
    }
    let (_, kernel, initrd) = found.ok_or(LiveError::NoKernel)?;
    match (kernel.size_bytes(), initrd.size_bytes()) {
        (0, _) => Err(LiveError::Empty("boot/<arch>/loader/linux")),
        (_, 0) => Err(LiveError::Empty("boot/<arch>/loader/initrd")),
        _ => Ok((kernel, initrd)),
    }
}

#[cfg(test)]
#[path = "live_test.rs"]
mod tests;

//! Images: what machines boot, how it comes into the images folder, and how it leaves it for the network.
//!
//! Invariant: an image is offered whole or not at all. [`import()`] checks an archive before its folder becomes visible,
//! the [`Catalogue`] looks at every file before a boot is decided, and [`ImageFiles`] opens nothing but plain files of
//! image folders, which [`respond`] hands out unchanged, telling a [`Delivery`] before the last byte of a payload leaves.

mod archive;
mod body;
mod catalogue;
mod conditional;
mod coverage;
mod folder;
mod import;
mod iso;
mod kiwi;
mod live;
mod manifest;
mod names;
mod payload;
mod plain;
mod publish;
mod serve;
#[cfg(test)]
mod test_archive;
#[cfg(test)]
mod test_iso;
mod verify;

pub use archive::ArchiveError;
pub use body::{Delivery, FileBody};
pub use catalogue::{Catalogue, Image, NotOffered, Payload};
pub use coverage::Coverage;
pub use folder::{FolderKind, FolderRequest, import_folder};
pub use import::{Contents, ImportError, ImportRequest, Imported, import};
pub use iso::IsoError;
pub use kiwi::{Algorithm, KiwiError};
pub use live::LiveError;
pub use manifest::{FileRecord, Kind, LocalBoot, Manifest, ManifestError};
pub use names::{FileName, FileNameError, KernelArgs, KernelArgsError, Sha256Sum, Sha256SumError};
pub use payload::PayloadError;
pub use plain::{Part, Plain};
pub use publish::{clean, remove};
pub use serve::{ImageFiles, OpenedFile, Refused, refusal, respond};
pub use verify::{NotWhole, Verified, verify};

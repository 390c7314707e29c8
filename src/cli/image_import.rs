//! `kiwispray image import`: what KIWI built, or a kernel and initrd.
//!
//! Invariant: what can be refused is refused before a byte is sent, and the server asks for everything again.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use futures_util::stream::{self, StreamExt as _};
use futures_util::{Stream, TryStreamExt as _};
use indicatif::ProgressBar;
use tokio::fs::File;
use tokio_util::io::ReaderStream;

use super::Context;
use super::client::query_of;
use super::error::{CliError, Result};
use super::image::{bar, path};
use super::screen::Format;
use super::words::{disk, harmless, shell, size};
use crate::wire::{Erasure, ImportQuery, ImportedView};

/// How much of a file is read at once.
const PIECE_BYTES: usize = 256 * 1024;

/// Imports an image.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The image's name, which is the state that boots it
    name: String,
    /// What KIWI built: NAME.install.tar, NAME.install.tar.xz, or the NAME.iso of a live system
    #[arg(required_unless_present = "kernel", conflicts_with = "kernel")]
    file: Option<PathBuf>,
    /// A kernel, for an image that KIWI did not build
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Its initrd; several are joined in this order
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Vec<PathBuf>,
    /// What kernel and initrd do to disks, as nobody can see it
    #[arg(long, requires = "kernel")]
    writes: Option<Writes>,
    /// The disk to write: /dev/disk/by-id/…, another /dev/…, smallest, or first (by name)
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// More kernel arguments
    #[arg(long, value_name = "ARGUMENTS", allow_hyphen_values = true)]
    append: Option<String>,
    /// Machines in this state may report their MACs and metadata
    #[arg(long)]
    takes_inventory: bool,
    /// Replace an image of that name
    #[arg(long)]
    replace: bool,
}

/// What an image does to disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Writes {
    /// It may boot any number of times
    Nothing,
    /// It installs: booting it is an order, carried out once
    Disk,
    /// It erases: an order too
    Wipe,
}

/// A file that is to be sent, and the zeros behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    path: PathBuf,
    bytes: u64,
    padding: usize,
}

impl Import {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let (client, screen) = (context.client()?, &context.screen);
        let target = path(&self.name);
        let (query, pieces) = self.prepared()?;
        let bytes = length(&pieces);
        let bar = bar("importing", bytes, screen);
        let imported = client.upload(&query_of(&target, &query)?, bytes, body(pieces, bar.clone())).await;
        bar.finish_and_clear();
        let imported: ImportedView = imported?;
        match screen.format {
            Format::Json => screen.json(&imported),
            Format::Text => screen.line(&told(&imported)),
        }
    }

    /// What is asked of the server, and the files that it gets.
    fn prepared(self) -> Result<(ImportQuery, Vec<Piece>)> {
        let mut query = ImportQuery {
            device: self.device,
            append: self.append,
            inventory: self.takes_inventory,
            replace: self.replace,
            ..ImportQuery::default()
        };
        let Some(kernel) = self.kernel else {
            // clap does not ask for what conflicts with another argument.
            if self.writes.is_some() || !self.initrd.is_empty() {
                return Err(CliError::usage("--initrd and --writes go with --kernel: what KIWI built says it itself"));
            }
            let file = self.file.ok_or_else(|| CliError::usage("name the file that KIWI built"))?;
            let piece = piece(&file)?;
            match (Built::of(&file)?, &query.device) {
                (Built::Iso, Some(_)) => return Err(CliError::usage("a live ISO writes no disk: leave --device out")),
                (Built::Archive, None) => return Err(CliError::usage(NO_DEVICE)),
                (Built::Other, None) => return Err(CliError::usage(format!("{}: {NOT_BUILT}", file.display()))),
                // The server looks closer.
                (Built::Iso, None) | (Built::Archive | Built::Other, Some(_)) => {}
            }
            // Only a name that machines can fetch is worth keeping.
            query.file = name_of(&file).ok();
            return Ok((query, vec![piece]));
        };
        let writes = self.writes.ok_or_else(|| CliError::usage(NO_WRITES))?;
        match (writes, &query.device) {
            (Writes::Disk | Writes::Wipe, None) => return Err(CliError::usage(NO_DEVICE)),
            (Writes::Nothing, Some(_)) => return Err(CliError::usage("--writes nothing takes no --device")),
            (Writes::Disk | Writes::Wipe, Some(_)) | (Writes::Nothing, None) => {}
        }
        query.writes = writes.to_possible_value().map(|word| word.get_name().to_owned());
        query.kernel = Some(name_of(&kernel)?);
        query.initrd = self.initrd.first().map(|initrd| name_of(initrd)).transpose()?;
        let kernel = piece(&kernel)?;
        query.kernel_bytes = Some(kernel.bytes);
        let initrds = joined(self.initrd.iter().map(|initrd| piece(initrd)).collect::<Result<_>>()?);
        query.initrd_bytes = query.initrd.is_some().then(|| length(&initrds));
        Ok((query, [vec![kernel], initrds].concat()))
    }
}

/// What KIWI built, by its first bytes; so that nothing large is sent in vain.
enum Built {
    Archive,
    Iso,
    Other,
}

impl Built {
    fn of(path: &Path) -> Result<Self> {
        // The first volume descriptor of an ISO is its sector 16.
        const ISO_MAGIC_AT: usize = 16 * 2048 + 1;
        let mut beginning = Vec::new();
        let read = std::fs::File::open(path).and_then(|file| file.take(40 << 10).read_to_end(&mut beginning));
        read.map_err(|error| CliError::failed(format!("{}: {error}", path.display())))?;
        let has = |at: usize, magic: &[u8]| beginning.get(at..at + magic.len()) == Some(magic);
        Ok(match (has(0, b"\xFD7zXZ\0") || has(257, b"ustar"), has(ISO_MAGIC_AT, b"CD001")) {
            (true, _) => Self::Archive,
            (false, true) => Self::Iso,
            (false, false) => Self::Other,
        })
    }
}

const NOT_BUILT: &str =
    "nothing that KIWI built for the network: neither an install archive (tar, or tar in xz) nor a live ISO";
const NO_DEVICE: &str =
    "this image writes a disk, so say which: --device /dev/disk/by-id/…, another /dev/…, smallest, or first (by name)";
const NO_WRITES: &str =
    "nobody can see what a kernel does to disks, so say it: --writes nothing, --writes disk or --writes wipe";

fn piece(path: &Path) -> Result<Piece> {
    let about = std::fs::metadata(path).map_err(|error| CliError::failed(format!("{}: {error}", path.display())))?;
    if !about.is_file() {
        return Err(CliError::usage(format!("{} is no file", path.display())));
    }
    Ok(Piece { path: path.to_owned(), bytes: about.len(), padding: 0 })
}

/// Archives of an initrd must begin at multiples of four; kernels skip the zeros between them.
fn joined(mut initrds: Vec<Piece>) -> Vec<Piece> {
    if let Some((_, all_but_last)) = initrds.split_last_mut() {
        for initrd in all_but_last {
            initrd.padding = usize::try_from(initrd.bytes.wrapping_neg() % 4).unwrap_or(0);
        }
    }
    initrds
}

fn length(pieces: &[Piece]) -> u64 {
    pieces.iter().map(|piece| piece.bytes + piece.padding as u64).sum()
}

/// The name that a file keeps in the image.
fn name_of(path: &Path) -> Result<String> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.starts_with(['.', '-']) || !name.chars().all(is_plain) {
        let text = "is no name that machines can fetch (letters, digits, `.`, `_` and `-`): rename the file";
        return Err(CliError::usage(format!("{:?} {text}", path.display().to_string())));
    }
    Ok(name.to_owned())
}

/// The bytes of all pieces, one behind the other.
fn body(pieces: Vec<Piece>, bar: ProgressBar) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let of_piece = |piece: Piece| async move {
        let file = File::open(&piece.path).await?;
        let zeros = Bytes::from(vec![0; piece.padding]);
        let padding = stream::iter((!zeros.is_empty()).then_some(Ok(zeros)));
        Ok::<_, io::Error>(ReaderStream::with_capacity(file, PIECE_BYTES).chain(padding))
    };
    let all = stream::iter(pieces).then(of_piece).try_flatten();
    all.inspect(move |piece| bar.inc(piece.as_ref().map_or(0, |bytes| bytes.len() as u64)))
}

fn told(imported: &ImportedView) -> String {
    let image = &imported.image;
    let name = harmless(&image.name);
    let mut lines = vec![format!("{name}: {}", if imported.replaced { "replaced" } else { "imported" })];
    if let Some(manifest) = &image.manifest {
        let bytes = size(manifest.total_bytes);
        if manifest.writes == "nothing" {
            lines.push(format!("  a machine may boot it any number of times, and keeps its disks ({bytes} to fetch)"));
        } else {
            let erasure = Erasure { state: name.clone(), disk: manifest.device.clone() };
            lines.push(format!("  a machine that boots it loses what is on {} ({bytes} to fetch)", disk(&erasure)));
        }
    }
    if !imported.dropped_args.is_empty() {
        let args = harmless(&imported.dropped_args.join(" "));
        lines.push(format!("  left out, as the server says it itself: {args}"));
    }
    if !imported.kept_templates.is_empty() {
        lines.push(format!("  kept from the replaced image: {}", harmless(&imported.kept_templates.join(", "))));
    }
    lines.push(format!("  next: kiwispray deploy {} HOST", shell(&name)));
    lines.push(format!("  undo: kiwispray image remove {}", shell(&name)));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use clap::Parser;
    use tempfile::TempDir;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        import: Import,
    }

    fn prepared(words: &[&str]) -> Result<(ImportQuery, Vec<Piece>)> {
        let words = ["import", "tool"].iter().chain(words);
        Line::try_parse_from(words).unwrap().import.prepared()
    }

    fn refused(words: &[&str]) -> String {
        let refused = prepared(words).unwrap_err();
        assert_eq!(refused.exit.code(), 2, "{refused}");
        refused.text
    }

    #[tokio::test]
    async fn several_initrds_are_joined_where_a_kernel_finds_them() {
        let folder = TempDir::new().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path.into_os_string().into_string().unwrap()
        };
        let (kernel, one, two) = (file("vmlinuz", b"kernel"), file("one.img", b"first"), file("two.img", b"second"));
        let words = ["--kernel", &kernel, "--initrd", &one, "--initrd", &two, "--writes", "nothing"];
        let (query, pieces) = prepared(&words).unwrap();
        assert_eq!((query.kernel.as_deref(), query.kernel_bytes), (Some("vmlinuz"), Some(6)));
        assert_eq!((query.initrd.as_deref(), query.initrd_bytes), (Some("one.img"), Some(14)));
        assert_eq!(query.writes.as_deref(), Some("nothing"));
        let sent: Vec<Bytes> = body(pieces, ProgressBar::hidden()).try_collect().await.unwrap();
        assert_eq!(sent.concat(), b"kernelfirst\0\0\0second");
    }

    #[test]
    fn what_an_image_does_to_disks_has_to_be_said() {
        let folder = TempDir::new().unwrap();
        let (kernel, odd) = (folder.path().join("vmlinuz"), folder.path().join("my kernel"));
        let (kernel, odd) = (kernel.to_str().unwrap(), odd.to_str().unwrap());
        std::fs::write(kernel, "kernel").unwrap();
        std::fs::write(odd, "kernel").unwrap();
        assert!(refused(&[kernel]).contains(NOT_BUILT));
        let (tar, iso) = (folder.path().join("a.install.tar"), folder.path().join("a.iso"));
        std::fs::write(&tar, [&[0; 257][..], b"ustar"].concat()).unwrap();
        std::fs::write(&iso, [&[0; 32_769][..], b"CD001"].concat()).unwrap();
        assert_eq!(refused(&[tar.to_str().unwrap()]), NO_DEVICE);
        assert!(refused(&[iso.to_str().unwrap(), "--device", "first"]).contains("leave --device out"));
        assert_eq!(prepared(&[iso.to_str().unwrap()]).unwrap().0.file.as_deref(), Some("a.iso"));
        assert_eq!(refused(&["--kernel", kernel]), NO_WRITES);
        assert_eq!(refused(&["--kernel", kernel, "--writes", "wipe"]), NO_DEVICE);
        let words = ["--kernel", kernel, "--writes", "nothing", "--device", "first"];
        assert_eq!(refused(&words), "--writes nothing takes no --device");
        assert!(refused(&["--kernel", odd, "--writes", "nothing"]).contains("rename the file"));
        assert!(Line::try_parse_from(["import", "tool", kernel, "--kernel", kernel]).is_err());
        assert!(refused(&[kernel, "--writes", "disk", "--device", "first"]).contains("go with --kernel"));
        assert!(Line::try_parse_from(["import", "tool"]).is_err());
    }

    #[test]
    fn an_import_tells_what_it_will_write_and_what_comes_next() {
        let imported = ImportedView {
            image: samples::image("image1"),
            dropped_args: vec!["rd.kiwi.install.pxe".into()],
            kept_templates: vec!["post_install.sh.hbs".into()],
            replaced: false,
        };
        insta::assert_snapshot!(told(&imported), @r"
        image1: imported
          a machine that boots it loses what is on its first disk (1.0 GB to fetch)
          left out, as the server says it itself: rd.kiwi.install.pxe
          kept from the replaced image: post_install.sh.hbs
          next: kiwispray deploy image1 HOST
          undo: kiwispray image remove image1
        ");
    }
}

//! Install archives for tests, made in memory: small, but of the shape that KIWI gives them.

use std::io::{self, Read};

use liblzma::bufread::XzEncoder;
use md5::Md5;
use sha2::{Digest, Sha256, Sha512};
use tar::{Builder, EntryType, Header};

/// A tar archive that can hold what no honest one does.
pub(super) struct TestArchive(Builder<Vec<u8>>);

impl TestArchive {
    pub(super) fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    /// A file. The name is written as it is given.
    pub(super) fn file(self, name: &str, bytes: &[u8]) -> Self {
        self.entry(EntryType::Regular, name, "", bytes)
    }

    pub(super) fn link(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, target, &[])
    }

    pub(super) fn entry(mut self, kind: EntryType, name: &str, target: &str, bytes: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        // Past the setters, which refuse what a hostile archive holds.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(kind);
        if kind == EntryType::GNUSparse {
            header.as_gnu_mut().unwrap().set_real_size(0);
        }
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        self.0.append(&header, bytes).unwrap();
        self
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }

    /// Without the mark of its end.
    pub(super) fn unfinished(self) -> Vec<u8> {
        let mut tar = self.finish();
        tar.truncate(tar.len() - 1024);
        tar
    }
}

/// Members of a whole archive, as KIWI 10 writes it.
pub(super) fn kiwi_members(raw: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("pxeboot.B.kernel", b"installer kernel".to_vec()),
        ("pxeboot.B.initrd", b"installer initrd".to_vec()),
        ("B.xz", xz(raw)),
        ("B.sha256", checksum::<Sha256>(raw)),
        ("B.initrd", b"system initrd".to_vec()),
        ("B.config.bootoptions", b"console=ttyS0 root=UUID=1\n".to_vec()),
        ("B.append", b"rd.kiwi.install.pxe rd.kiwi.install.image=http://example.com/image.xz console=ttyS0\n".to_vec()),
    ]
}

pub(super) fn archive_of(members: &[(&str, Vec<u8>)]) -> TestArchive {
    members.iter().fold(TestArchive::new(), |archive, (name, bytes)| archive.file(name, bytes))
}

pub(super) fn kiwi_archive(raw: &[u8]) -> Vec<u8> {
    archive_of(&kiwi_members(raw)).link("B.kernel", "pxeboot.B.kernel").finish()
}

pub(super) fn checksum<D: Digest>(raw: &[u8]) -> Vec<u8> {
    let sum: String = D::digest(raw).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{sum} {} 1\n", raw.len()).into_bytes()
}

pub(super) fn md5_of(raw: &[u8]) -> Vec<u8> {
    checksum::<Md5>(raw)
}

pub(super) fn sha512_of(raw: &[u8]) -> Vec<u8> {
    checksum::<Sha512>(raw)
}

pub(super) fn xz(raw: &[u8]) -> Vec<u8> {
    let mut compressed = Vec::new();
    XzEncoder::new(raw, 1).read_to_end(&mut compressed).unwrap();
    compressed
}

/// A source that fails, as a connection does, after so many bytes.
pub(super) struct Breaking<'a> {
    pub(super) bytes: &'a [u8],
}

impl Read for Breaking<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.bytes.read(buffer)? {
            0 => Err(io::ErrorKind::ConnectionReset.into()),
            read => Ok(read),
        }
    }
}

//! An archive as KIWI builds it, small.

use std::io::Read;

use liblzma::bufread::XzEncoder;
use sha2::{Digest, Sha256};
use tar::{Builder, Header};

/// `installpxe="true"` of an image that decompresses to `raw`.
pub(crate) fn kiwi(raw: &[u8]) -> Vec<u8> {
    let sum: String = Sha256::digest(raw).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut tar = Builder::new(Vec::new());
    let append = "rd.kiwi.install.pxe rd.kiwi.install.image=http://example.com/image.xz console=ttyS0,115200\n";
    for (name, bytes) in [
        ("pxeboot.test.x86_64-1.0.kernel", b"installer kernel".to_vec()),
        ("pxeboot.test.x86_64-1.0.initrd", b"installer initrd".to_vec()),
        ("test.x86_64-1.0.xz", xz(raw)),
        ("test.x86_64-1.0.sha256", format!("{sum} {} 1\n", raw.len()).into_bytes()),
        ("test.x86_64-1.0.initrd", b"system initrd".to_vec()),
        ("test.x86_64-1.0.kernel", b"system kernel".to_vec()),
        ("test.x86_64-1.0.append", append.as_bytes().to_vec()),
    ] {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// A disk image that decompresses to `raw`, and the checksum file that KIWI puts beside it.
pub(crate) fn payload(raw: &[u8]) -> (Vec<u8>, String) {
    let sum: String = Sha256::digest(raw).iter().map(|byte| format!("{byte:02x}")).collect();
    (xz(raw), format!("{sum} {} 1\n", raw.len()))
}

fn xz(raw: &[u8]) -> Vec<u8> {
    let mut compressed = Vec::new();
    XzEncoder::new(raw, 1).read_to_end(&mut compressed).unwrap();
    compressed
}

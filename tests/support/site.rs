//! The folders of one server: data, images, templates, plugins, configuration. They end with the test.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::Server;

/// Bytes of a test image's payload: more than one chunk, less than would take time.
pub(crate) const PAYLOAD_BYTES: usize = 300_000;

pub(crate) struct Site {
    dir: TempDir,
}

impl Site {
    /// Empty folders and a configuration that suits tests: hosts ask again soon, and there is no limit on new ones.
    pub(crate) fn new() -> Self {
        let site = Self { dir: TempDir::new().unwrap() };
        for folder in ["images", "templates", "plugins", "ipxe"] {
            fs::create_dir(site.path(folder)).unwrap();
        }
        site.config("[limits]\nnew_hosts_per_minute = 0\n")
    }

    /// Replaces the configuration; `[store]` is taken.
    pub(crate) fn config(self, toml: &str) -> Self {
        let small = "[store]\ncache_mb = 8\nfree_space_floor_mb = 0\n";
        fs::write(self.path("kiwispray.toml"), format!("{toml}\n{small}")).unwrap();
        self
    }

    pub(crate) fn template(self, name: &str, text: &str) -> Self {
        fs::write(self.path("templates").join(name), text).unwrap();
        self
    }

    /// An image that installs as KIWI's do, on /dev/sda.
    pub(crate) fn kiwi(self, name: &str) -> Self {
        self.add_kiwi(name);
        self
    }

    pub(crate) fn add_kiwi(&self, name: &str) {
        let manifest = format!(
            "kind = \"kiwi\"\nkernel = \"pxeboot.kernel\"\ninitrd = \"pxeboot.initrd\"\npayload = \"{name}.xz\"\n\
             append = \"console=ttyS0\"\nwrites = \"disk\"\ndevice = \"/dev/sda\"\n"
        );
        self.file(name, "image.toml", manifest);
        self.file(name, "pxeboot.kernel", "the installer's kernel");
        self.file(name, "pxeboot.initrd", "the installer's initrd");
        self.file(name, &format!("{name}.xz"), payload(name));
    }

    /// An image of a kernel and an initrd. `manifest` begins with `writes = …`.
    pub(crate) fn linux(self, name: &str, manifest: &str) -> Self {
        self.file(
            name,
            "image.toml",
            format!("kind = \"linux\"\nkernel = \"vmlinuz\"\ninitrd = \"initrd\"\n{manifest}\n"),
        );
        self.file(name, "vmlinuz", "a kernel");
        self.file(name, "initrd", payload(name));
        self
    }

    /// A file of an image.
    pub(crate) fn file(&self, image: &str, name: &str, bytes: impl AsRef<[u8]>) {
        let folder = self.path("images").join(image);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), bytes).unwrap();
    }

    pub(crate) fn with_file(self, image: &str, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        self.file(image, name, bytes);
        self
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    /// Starts a server here.
    pub(crate) fn serve(self) -> Server {
        Server::start(self)
    }
}

/// What the payload of an image holds: bytes that differ from image to image and from place to place.
pub(crate) fn payload(image: &str) -> Vec<u8> {
    let mut state =
        image.bytes().fold(0x9e37_79b9_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(PAYLOAD_BYTES).collect()
}

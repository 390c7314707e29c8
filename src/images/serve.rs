//! Hands out the files of images.
//!
//! Invariant: what is served is a plain file directly inside an image's folder, under its own name, as it is: no
//! redirect and no compression, since KIWI's `curl` follows none and pipes what it gets to the disk. Both names of a
//! path are parsed into types that hold one plain component each, and both are opened relative to their folder without
//! following links, so there is nothing that could lead elsewhere.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{
    ACCEPT_RANGES, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderValue, LAST_MODIFIED,
};
use hyper::{HeaderMap, Method, Response, StatusCode};
use percent_encoding::percent_decode_str;
use rustix::fs::{Mode, OFlags, open, openat};
use rustix::io::Errno;

use super::body::{Delivery, FileBody};
use super::conditional::{Extent, Version};
use super::names::FileName;
use crate::domain::StateName;

/// The files of all images. Opening blocks for some system calls.
#[derive(Debug, Clone)]
pub struct ImageFiles {
    root: PathBuf,
}

/// A file that may be served, open: replacing or removing its image does not disturb its delivery.
#[derive(Debug)]
pub struct OpenedFile {
    name: FileName,
    file: File,
    version: Version,
}

/// Why a file is not served.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// There is none, or none that machines may have. One sentence for all, as the difference helps only guessing.
    #[error("there is no such file")]
    NotFound,
    /// Neither GET nor HEAD.
    #[error("files can be fetched with GET and HEAD only")]
    Method,
    /// The system refused to open it; the source is for the log.
    #[error("the file cannot be read")]
    Unreadable(#[source] io::Error),
}

impl ImageFiles {
    /// The images in this folder, which may itself be a link.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Opens what `GET /images/<path>` asks for. The path is the raw one, still percent-encoded: `<state>/<file>`.
    pub fn open_path(&self, raw_path: &str) -> Result<OpenedFile, Refused> {
        let (state, file) = raw_path.split_once('/').ok_or(Refused::NotFound)?;
        let state: StateName = decode(state)?.parse().map_err(|_| Refused::NotFound)?;
        self.open(&state, file)
    }

    /// Opens a file of one image. The segment is the raw one, still percent-encoded, and is decoded once.
    pub fn open(&self, state: &StateName, raw_segment: &str) -> Result<OpenedFile, Refused> {
        let name: FileName = decode(raw_segment)?.parse().map_err(|_| Refused::NotFound)?;
        if !name.is_servable() {
            return Err(Refused::NotFound);
        }
        self.open_file(state, name)
    }

    fn open_file(&self, state: &StateName, name: FileName) -> Result<OpenedFile, Refused> {
        // `new` and `finished` boot no image, and what lies in folders of these names is none.
        if state.is_built_in() {
            return Err(Refused::NotFound);
        }
        let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = open(&self.root, folder, Mode::empty()).map_err(refuse)?;
        let image = openat(&root, state.as_str(), folder | OFlags::NOFOLLOW, Mode::empty()).map_err(refuse)?;
        // Not blocking, as opening a fifo would wait for its writer.
        let plain = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file: OwnedFd = openat(&image, name.as_str(), plain, Mode::empty()).map_err(refuse)?;
        OpenedFile::of(name, file)
    }
}

impl OpenedFile {
    /// Opens a plain file directly inside a folder that is no image, such as that of iPXE's binaries. The segment is the
    /// raw one, still percent-encoded. The file itself may be a link, as packages make them.
    pub fn in_folder(folder: &Path, raw_segment: &str) -> Result<Self, Refused> {
        let name: FileName = decode(raw_segment)?.parse().map_err(|_| Refused::NotFound)?;
        if !name.is_servable() {
            return Err(Refused::NotFound);
        }
        let folder = open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(refuse)?;
        let plain = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&folder, name.as_str(), plain, Mode::empty()).map_err(refuse)?;
        Self::of(name, file)
    }

    fn of(name: FileName, file: OwnedFd) -> Result<Self, Refused> {
        let file = File::from(file);
        let found = file.metadata().map_err(Refused::Unreadable)?;
        if !found.is_file() {
            return Err(Refused::NotFound);
        }
        let modified_ns = u64::try_from(found.mtime_nsec()).unwrap_or_default();
        let version = Version::new(found.len(), found.ino(), found.mtime(), modified_ns);
        Ok(Self { name, file, version })
    }

    /// Its name.
    pub fn name(&self) -> &FileName {
        &self.name
    }

    /// Its size in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.version.size_bytes
    }
}

fn decode(raw_segment: &str) -> Result<String, Refused> {
    let decoded = percent_decode_str(raw_segment).decode_utf8().map_err(|_| Refused::NotFound)?;
    Ok(decoded.into_owned())
}

fn refuse(error: Errno) -> Refused {
    match error {
        // No such file, a link, something that is no folder, or a socket.
        Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::NXIO | Errno::NODEV => {
            Refused::NotFound
        }
        error => Refused::Unreadable(error.into()),
    }
}

/// Answers a GET or HEAD of an open file: 200, 206, 304, 405 or 416.
///
/// `delivery` hears of every byte that a GET sends, see there. Nothing is read yet: that happens as the body is polled,
/// on a tokio runtime.
pub fn respond(
    method: &Method,
    headers: &HeaderMap,
    opened: OpenedFile,
    delivery: Option<Arc<dyn Delivery>>,
) -> Response<FileBody> {
    let OpenedFile { name, file, version } = opened;
    let size = version.size_bytes;
    let (extent, is_get) = match *method {
        Method::GET => (version.extent_for_get(headers), true),
        Method::HEAD => (version.extent_for_head(headers), false),
        _ => return refusal(&Refused::Method),
    };
    let (status, part, range) = match extent {
        Extent::Whole => (StatusCode::OK, 0..size, None),
        Extent::Part(part) => {
            let range = format!("bytes {}-{}/{size}", part.start, part.end.saturating_sub(1));
            (StatusCode::PARTIAL_CONTENT, part, Some(range))
        }
        Extent::NotModified => (StatusCode::NOT_MODIFIED, 0..0, None),
        Extent::OutOfRange => {
            let mut answer = sentence(StatusCode::RANGE_NOT_SATISFIABLE, "the file ends before that range");
            put(&mut answer, CONTENT_RANGE, &format!("bytes */{size}"));
            return answer;
        }
    };
    let length_bytes = part.end - part.start;
    let body = if is_get { FileBody::of_file(file, part, delivery) } else { FileBody::empty() };
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    put(&mut answer, ETAG, &version.etag);
    put(&mut answer, LAST_MODIFIED, &httpdate::fmt_http_date(version.modified));
    if status != StatusCode::NOT_MODIFIED {
        put(&mut answer, CONTENT_TYPE, content_type(&name));
        put(&mut answer, CONTENT_LENGTH, &length_bytes.to_string());
        put(&mut answer, ACCEPT_RANGES, "bytes");
    }
    if let Some(range) = range {
        put(&mut answer, CONTENT_RANGE, &range);
    }
    answer
}

/// The answer to a request that is refused: one plain sentence. The caller logs the source of an unreadable file.
pub fn refusal(refused: &Refused) -> Response<FileBody> {
    let status = match refused {
        Refused::NotFound => StatusCode::NOT_FOUND,
        Refused::Method => StatusCode::METHOD_NOT_ALLOWED,
        Refused::Unreadable(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut answer = sentence(status, &refused.to_string());
    if status == StatusCode::METHOD_NOT_ALLOWED {
        put(&mut answer, ALLOW, "GET, HEAD");
    }
    answer
}

fn sentence(status: StatusCode, text: &str) -> Response<FileBody> {
    let text = Bytes::from(format!("{text}\n"));
    let length_bytes = text.len();
    let mut answer = Response::new(FileBody::of_bytes(text));
    *answer.status_mut() = status;
    put(&mut answer, CONTENT_TYPE, PLAIN_TEXT);
    put(&mut answer, CONTENT_LENGTH, &length_bytes.to_string());
    answer
}

fn put(answer: &mut Response<FileBody>, name: hyper::header::HeaderName, value: &str) {
    // Values are made here of digits, names and dates, so none is ever left out.
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}

const PLAIN_TEXT: &str = "text/plain; charset=utf-8";

/// The type by the file's name. What is not known, kernels and initrds among it, is plain bytes.
fn content_type(name: &FileName) -> &'static str {
    match name.as_str().rsplit_once('.').map_or("", |(_, extension)| extension) {
        "xz" => "application/x-xz",
        "gz" => "application/gzip",
        "zst" => "application/zstd",
        "tar" => "application/x-tar",
        "efi" => "application/efi",
        "json" => "application/json",
        "yaml" | "yml" => "application/yaml",
        "append" | "bootoptions" | "cfg" | "conf" | "ipxe" | "ks" | "md5" | "sh" | "sha256" | "sha512" | "txt" => {
            PLAIN_TEXT
        }
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
#[path = "serve_test.rs"]
mod tests;

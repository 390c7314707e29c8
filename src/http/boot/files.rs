//! `/images/…`, `/b/<bootid>/…`, `/ipxe/…`: files, counted where they belong to a boot.

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use axum::response::{IntoResponse, Response};

use crate::images::{self, FileBody, OpenedFile, Refused};
use crate::render::Document;
use crate::service::{BootFile, Wanted};

use super::error::Refusal;
use super::{BootPlane, Peer, private_text};

/// A file of an image, whoever asks. It counts for no boot.
pub(super) async fn image_file(
    State(plane): State<BootPlane>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let path = below(&uri, "/images/").to_owned();
    if !matches!(method, Method::GET | Method::HEAD) {
        return refused(&Refused::Method);
    }
    match blocking(move || plane.service.image_files().open_path(&path)).await {
        Ok(opened) => images::respond(&method, &headers, opened, None).map(Body::new),
        Err(why) => refused(&why),
    }
}

/// A file of one boot of one host.
pub(super) async fn boot_file(
    State(plane): State<BootPlane>,
    Extension(peer): Extension<Peer>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let wanted = match method {
        Method::GET => Wanted::Bytes,
        Method::HEAD => Wanted::Head,
        _ => return refused(&Refused::Method),
    };
    let Some((bootid, file)) = below(&uri, "/b/").split_once('/') else { return refused(&Refused::NotFound) };
    let mut response = match plane.service.boot_file(bootid, file, wanted, &plane.base(&peer)).await {
        Ok(BootFile::Plain(opened, delivery)) => {
            images::respond(&method, &headers, opened, Some(delivery)).map(Body::new)
        }
        Ok(BootFile::Rendered(Document { language, text })) => private_text(language.content_type(), text),
        Err(why) => Refusal::from(why).into_response(),
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// An iPXE binary, for UEFI HTTP boot.
pub(super) async fn ipxe_file(
    State(plane): State<BootPlane>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if !matches!(method, Method::GET | Method::HEAD) {
        return refused(&Refused::Method);
    }
    let name = below(&uri, "/ipxe/").to_owned();
    let opened = blocking(move || {
        let folder = plane.ipxe_dir.as_deref().ok_or(Refused::NotFound)?;
        OpenedFile::in_folder(folder, &name)
    });
    match opened.await {
        Ok(opened) => images::respond(&method, &headers, opened, None).map(Body::new),
        Err(why) => refused(&why),
    }
}

/// The raw path behind a prefix, as the client sent it.
fn below<'a>(uri: &'a Uri, prefix: &str) -> &'a str {
    uri.path().strip_prefix(prefix).unwrap_or_default()
}

fn refused(why: &Refused) -> Response {
    if let Refused::Unreadable(error) = why {
        tracing::error!(%error, "a file could not be read");
    }
    images::refusal(why).map(|body: FileBody| Body::new(body))
}

/// Opening a file may wait for a disk.
async fn blocking<T: Send + 'static>(open: impl FnOnce() -> Result<T, Refused> + Send + 'static) -> Result<T, Refused> {
    tokio::task::spawn_blocking(open)
        .await
        .unwrap_or_else(|error| Err(Refused::Unreadable(std::io::Error::other(error))))
}

//! `/api/v1/images…`

use std::io::{self, Read};
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use futures_util::StreamExt;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::domain::{StateName, Writes};
use crate::images::{Contents, ImportRequest, Imported, Part, Plain};
use crate::service::Service;
use crate::wire::{ImageView, ImportQuery, ImportedView};

use super::error::Refusal;
use super::parse::{bad, query as query_document};
use super::{Shared, view};

/// Pieces of an archive on their way from the network to the disk.
const PIECES_IN_FLIGHT: usize = 16;

/// The last piece. Without it the client went away, whatever the archive looks like.
const END: Bytes = Bytes::new();

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RemoveQuery {
    force: bool,
}

pub(super) async fn list(State(admin): Shared) -> Result<Json<Vec<ImageView>>, Refusal> {
    let service = Arc::clone(&admin.service);
    let images = spawn_blocking(move || service.images()).await.map_err(|_| Refusal::Interrupted)?;
    let images = images.map_err(Refusal::Unreadable)?;
    Ok(Json(images.iter().map(|(name, found)| view::image(name, found)).collect()))
}

pub(super) async fn show(State(admin): Shared, Path(name): Path<String>) -> Result<Json<ImageView>, Refusal> {
    let name = state(&name)?;
    let found = admin.service.image(&name);
    // A folder that is there but broken is shown with what is wrong; one that is not there is not found.
    match found {
        Err(refused @ (crate::images::NotOffered::NoFolder(_) | crate::images::NotOffered::BuiltIn(_))) => {
            Err(refused.into())
        }
        found => Ok(Json(view::image(name.as_str(), &found))),
    }
}

pub(super) async fn import(
    State(admin): Shared,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    body: Body,
) -> Result<Json<ImportedView>, Refusal> {
    let mut pieces = body.into_data_stream();
    let request = request(&name, query.as_deref(), admin.service.keep_free_bytes());
    let outcome = match request {
        Err(refusal) => Err(refusal),
        Ok(request) => received(&admin.service, &request, &mut pieces).await.map(|imported| (request, imported)),
    };
    // A client that is still sending would not read the answer: what it sends is taken, for nothing.
    while let Some(Ok(_)) = pieces.next().await {}
    let (request, imported) = outcome?;
    let image = view::image(request.name.as_str(), &admin.service.image(&request.name));
    Ok(Json(imported_view(image, &imported)))
}

/// Imports what comes.
async fn received(
    service: &Arc<Service>,
    request: &ImportRequest,
    pieces: &mut BodyDataStream,
) -> Result<Imported, Refusal> {
    service.check_ordered(request).await?;
    let (sender, receiver) = mpsc::channel(PIECES_IN_FLIGHT);
    let (importer, wanted) = (Arc::clone(service), request.clone());
    let import = spawn_blocking(move || importer.import_image(&wanted, Pieces::new(receiver)));
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(io::Error::other);
        let is_empty = piece.as_ref().is_ok_and(Bytes::is_empty);
        if !is_empty && sender.send(piece).await.is_err() {
            break;
        }
    }
    // Hosts may have been given the state meanwhile. Without its end nothing is published.
    let ordered = service.check_ordered(request).await;
    if ordered.is_ok() {
        let _ = sender.send(Ok(END)).await;
    }
    drop(sender);
    let imported = import.await.map_err(|_| Refusal::Interrupted)?;
    ordered?;
    Ok(imported?)
}

pub(super) async fn remove(
    State(admin): Shared,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<StatusCode, Refusal> {
    let RemoveQuery { force } = query_document(query.as_deref())?;
    let name = state(&name)?;
    if !force {
        admin.service.check_unused(&name).await?;
    }
    let service = Arc::clone(&admin.service);
    spawn_blocking(move || service.remove_image(&name)).await.map_err(|_| Refusal::Interrupted)??;
    Ok(StatusCode::NO_CONTENT)
}

fn state(name: &str) -> Result<StateName, Refusal> {
    name.parse().map_err(bad)
}

fn request(name: &str, query: Option<&str>, keep_free_bytes: u64) -> Result<ImportRequest, Refusal> {
    let mut query: ImportQuery = query_document(query)?;
    let device = query.device.take().map(|device| device.parse().map_err(bad)).transpose()?;
    let append = query.append.take().unwrap_or_default().parse().map_err(bad)?;
    let (inventory, replace) = (query.inventory, query.replace);
    let (name, contents) = (state(name)?, contents(query)?);
    Ok(ImportRequest { name, contents, device, append, inventory, replace, keep_free_bytes })
}

fn contents(query: ImportQuery) -> Result<Contents, Refusal> {
    let kernel = part("kernel", query.kernel, query.kernel_bytes)?;
    let initrd = part("initrd", query.initrd, query.initrd_bytes)?;
    match (kernel, query.writes) {
        (Some(kernel), Some(writes)) => Ok(Contents::Plain(Plain { kernel, initrd, writes: writes_of(&writes)? })),
        (Some(_), None) => Err(bad("say what kernel and initrd do to disks: writes is nothing, disk or wipe")),
        // A name that no machine could ask for is not worth a refusal, as the bytes say what they are.
        (None, None) if initrd.is_none() => Ok(Contents::Built { file: query.file.and_then(|name| name.parse().ok()) }),
        (None, _) => Err(bad("initrd and writes go with a kernel")),
    }
}

fn part(what: &str, name: Option<String>, size_bytes: Option<u64>) -> Result<Option<Part>, Refusal> {
    match (name, size_bytes) {
        (Some(name), Some(size_bytes)) => Ok(Some(Part { name: name.parse().map_err(bad)?, size_bytes })),
        (None, None) => Ok(None),
        (Some(_), None) | (None, Some(_)) => Err(bad(format_args!("{what} and {what}_bytes go together"))),
    }
}

fn writes_of(word: &str) -> Result<Writes, Refusal> {
    match word {
        "nothing" => Ok(Writes::Nothing),
        "disk" => Ok(Writes::Disk),
        "wipe" => Ok(Writes::Wipe),
        _ => Err(bad(format_args!("writes is nothing, disk or wipe, and not {word:?}"))),
    }
}

fn imported_view(image: ImageView, imported: &Imported) -> ImportedView {
    ImportedView {
        image,
        dropped_args: imported.dropped_args.clone(),
        kept_templates: imported.kept.iter().map(ToString::to_string).collect(),
        replaced: imported.replaced,
    }
}

/// A body as blocking code reads it.
struct Pieces {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
    has_ended: bool,
}

impl Pieces {
    fn new(receiver: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self { receiver, rest: Bytes::new(), has_ended: false }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() && !self.has_ended {
            let interrupted = || io::Error::new(io::ErrorKind::UnexpectedEof, "the upload was interrupted");
            self.rest = self.receiver.blocking_recv().ok_or_else(interrupted)??;
            self.has_ended = self.rest.is_empty();
        }
        let piece = self.rest.split_to(self.rest.len().min(buffer.len()));
        if let Some(part) = buffer.get_mut(..piece.len()) {
            part.copy_from_slice(&piece);
        }
        Ok(piece.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: Vec<Bytes>) -> io::Result<Vec<u8>> {
        let (sender, receiver) = mpsc::channel(8);
        pieces.into_iter().for_each(|piece| sender.try_send(Ok(piece)).unwrap());
        drop(sender);
        let mut all = Vec::new();
        Pieces::new(receiver).read_to_end(&mut all)?;
        Ok(all)
    }

    #[test]
    fn an_upload_that_breaks_off_is_no_end_of_an_archive() {
        let (one, two) = (Bytes::from_static(b"one"), Bytes::from_static(b"two"));
        assert_eq!(read(vec![one.clone(), two, END]).unwrap(), b"onetwo");
        assert_eq!(read(vec![one]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}

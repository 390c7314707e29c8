//! `/api/v1/images…`

use std::io::{self, Read};
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use futures_util::StreamExt;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::domain::StateName;
use crate::images::{ImportRequest, Imported};
use crate::wire::{ImageView, ImportQuery, ImportedView};

use super::error::Refusal;
use super::parse::{bad, query as query_document};
use super::{Shared, view};

/// Pieces of an archive on their way from the network to the disk.
const PIECES_IN_FLIGHT: usize = 16;

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
    let request = request(&name, query.as_deref());
    let outcome = match request {
        Err(refusal) => Err(refusal),
        Ok(request) => {
            let (sender, receiver) = mpsc::channel(PIECES_IN_FLIGHT);
            let (service, wanted) = (Arc::clone(&admin.service), request.clone());
            let import = spawn_blocking(move || service.import_image(&wanted, Pieces::new(receiver)));
            while let Some(piece) = pieces.next().await {
                if sender.send(piece.map_err(io::Error::other)).await.is_err() {
                    break;
                }
            }
            drop(sender);
            match import.await {
                Ok(Ok(imported)) => Ok((request, imported)),
                Ok(Err(error)) => Err(error.into()),
                Err(_) => Err(Refusal::Interrupted),
            }
        }
    };
    // A client that is still sending would not read the answer: what it sends is taken, for nothing.
    while let Some(Ok(_)) = pieces.next().await {}
    let (request, imported) = outcome?;
    let image = view::image(request.name.as_str(), &admin.service.image(&request.name));
    Ok(Json(imported_view(image, &imported)))
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

fn request(name: &str, query: Option<&str>) -> Result<ImportRequest, Refusal> {
    let ImportQuery { device, append, replace } = query_document(query)?;
    let device = device.map(|device| device.parse().map_err(bad)).transpose()?;
    let append = append.unwrap_or_default().parse().map_err(bad)?;
    Ok(ImportRequest { name: state(name)?, device, append, replace })
}

fn imported_view(image: ImageView, imported: &Imported) -> ImportedView {
    ImportedView {
        image,
        dropped_args: imported.dropped_args.clone(),
        kept_templates: imported.kept_templates.iter().map(ToString::to_string).collect(),
        replaced: imported.replaced,
    }
}

/// A body as blocking code reads it.
struct Pieces {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl Pieces {
    fn new(receiver: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self { receiver, rest: Bytes::new() }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.rest = piece?,
                None => return Ok(0),
            }
        }
        let piece = self.rest.split_to(self.rest.len().min(buffer.len()));
        // Both have the length that was just computed.
        buffer.iter_mut().zip(piece.iter()).for_each(|(to, from)| *to = *from);
        Ok(piece.len())
    }
}

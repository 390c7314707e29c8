//! `/api/v1/images/{name}/verify`: a stored image, read again.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_stream::wrappers::ReceiverStream;

use crate::images::{NotOffered, NotWhole, Verified};
use crate::wire::{VerifiedView, VerifyLine};

use super::Shared;
use super::error::Refusal;
use super::parse::bad;

/// How many bytes are read between two lines of progress.
const STEP_BYTES: u64 = 16 << 20;
const LINES_IN_FLIGHT: usize = 4;

/// Answers with lines of JSON: how far it is, and last how it ended. Whoever stops reading them stops the verification.
pub(super) async fn verify(State(admin): Shared, Path(name): Path<String>) -> Result<Response, Refusal> {
    let name = name.parse().map_err(bad)?;
    // A folder that is there but broken is an answer; one that is not there is not found.
    if let Err(refused @ (NotOffered::NoFolder(_) | NotOffered::BuiltIn(_))) = admin.service.image(&name) {
        return Err(refused.into());
    }
    let (lines, receiver) = mpsc::channel::<io::Result<Bytes>>(LINES_IN_FLIGHT);
    let service = Arc::clone(&admin.service);
    spawn_blocking(move || {
        let mut told_bytes = 0;
        let outcome = service.verify_image(&name, |read_bytes, total_bytes| {
            if read_bytes < total_bytes && read_bytes - told_bytes < STEP_BYTES {
                return ControlFlow::Continue(());
            }
            told_bytes = read_bytes;
            match lines.blocking_send(line(&VerifyLine::Progress { read_bytes, total_bytes })) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        });
        // Nobody may be left to be told.
        let _ = lines.blocking_send(line(&VerifyLine::Done(view(name.as_str(), outcome))));
    });
    let body = Body::from_stream(ReceiverStream::new(receiver));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

fn line(line: &VerifyLine) -> io::Result<Bytes> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    Ok(text.into())
}

fn view(name: &str, outcome: Result<Verified, NotWhole>) -> VerifiedView {
    let name = name.to_owned();
    match outcome {
        Ok(Verified { files, size_bytes, unrecorded }) => VerifiedView {
            name,
            files,
            bytes: size_bytes,
            unrecorded: unrecorded.iter().map(ToString::to_string).collect(),
            problem: None,
        },
        Err(error) => VerifiedView { name, problem: Some(error.to_string()), ..VerifiedView::default() },
    }
}

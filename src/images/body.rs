//! The bytes of a file on their way to a connection, and who hears about them.
//!
//! Invariant: the chunk with which a payload would be delivered whole leaves only after [`Delivery::before_last`] has
//! succeeded. Whatever ends before that, a connection, the process, the power, leaves a payload that is known to be
//! incomplete on the machine, or one that is recorded as delivered; never one delivered and unrecorded.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use hyper::body::{Body, Frame, SizeHint};

/// Hears how one file reaches one machine, over any number of requests.
///
/// HEAD, 304 and 416 are not heard of, and neither are bytes that a range leaves out.
pub trait Delivery: Send + Sync + 'static {
    /// These bytes of the file are about to be handed to the connection. Answers whether the file, with them, was
    /// delivered whole. Two requests may ask at once: noting the bytes and answering are one step, under one lock.
    fn handing(&self, bytes: Range<u64>) -> bool;

    /// Awaited before bytes leave for which [`Self::handing`] answered `true`: record durably that the file was
    /// delivered whole, if that is not recorded yet. It is called again for every later chunk. An error ends the
    /// connection before those bytes are sent.
    fn before_last(&self) -> BoxFuture<'_, io::Result<()>>;
}

/// The body of an answer: a part of a file, or one sentence.
pub struct FileBody {
    chunks: BoxStream<'static, io::Result<Bytes>>,
    left_bytes: u64,
}

/// Large enough that the thread hand-over costs little, small enough for hundreds of slow machines.
const CHUNK_BYTES: u64 = 256 * 1024;

impl FileBody {
    /// These bytes of a file, which is read in chunks on blocking threads.
    pub(super) fn of_file(file: File, part: Range<u64>, delivery: Option<Arc<dyn Delivery>>) -> Self {
        let left_bytes = part.end.saturating_sub(part.start);
        let source = Source { file: Arc::new(file), left: part, delivery };
        let chunks = stream::try_unfold(source, |mut source| async move {
            Ok(source.next_chunk().await?.map(|chunk| (chunk, source)))
        });
        Self { chunks: chunks.boxed(), left_bytes }
    }

    /// These bytes, at once.
    pub(super) fn of_bytes(bytes: Bytes) -> Self {
        Self { left_bytes: bytes.len() as u64, chunks: stream::iter([Ok(bytes)]).boxed() }
    }

    /// Nothing.
    pub(super) fn empty() -> Self {
        Self { left_bytes: 0, chunks: stream::empty().boxed() }
    }
}

struct Source {
    file: Arc<File>,
    left: Range<u64>,
    delivery: Option<Arc<dyn Delivery>>,
}

impl Source {
    async fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        let chunk = self.left.start..self.left.end.min(self.left.start.saturating_add(CHUNK_BYTES));
        if chunk.is_empty() {
            return Ok(None);
        }
        let file = Arc::clone(&self.file);
        let (at, length) = (chunk.start, usize::try_from(chunk.end - chunk.start).map_err(io::Error::other)?);
        let read = move || {
            let mut buffer = vec![0; length];
            // A file that became shorter is an error: the connection must end early, not look complete.
            file.read_exact_at(&mut buffer, at).map(|()| Bytes::from(buffer))
        };
        let bytes = tokio::task::spawn_blocking(read).await.map_err(io::Error::other)??;
        if let Some(delivery) = &self.delivery
            && delivery.handing(chunk.clone())
        {
            delivery.before_last().await?;
        }
        self.left.start = chunk.end;
        Ok(Some(bytes))
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left_bytes == 0 {
            return Poll::Ready(None);
        }
        let chunk = ready!(self.chunks.as_mut().poll_next(cx));
        if let Some(Ok(bytes)) = &chunk {
            self.left_bytes = self.left_bytes.saturating_sub(bytes.len() as u64);
        }
        Poll::Ready(chunk.map(|chunk| chunk.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left_bytes == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left_bytes)
    }
}

//! The three threads of an open store: one applies commits, one makes them durable and acknowledges them, one writes
//! the watermark beside it.
//!
//! Invariant: an acknowledgement, a change in the ring and the durable revision come after `flush` and `fdatasync` of
//! everything up to them, and after the watermark of the batch before. The first error ends all of that for good.
use std::{
    io,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, PoisonError,
        atomic::Ordering,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    Shared, caught,
    layout::{self, Head, Plan},
    lock,
    watermark::{Pacer, Watermark, WatermarkFile},
};
use crate::store::kv::{Commit, Corrupt, KvError, Op, Outcome, Revision, Stopped};

/// Most commits that wait for the writer; beyond, callers wait to hand theirs over.
const MAX_WAITING: usize = 1_024;
/// Most commits that share one sync.
const MAX_BATCH: usize = 256;

type Reply = oneshot::Sender<Result<Outcome, KvError>>;

/// What the writer is asked.
pub(super) enum Request {
    /// Whether anyone still waits for the reply makes no difference.
    Commit { commit: Commit, reply: Reply },
    /// Takes what was handed over before, refuses the rest.
    End,
}

/// A commit on its way to the disk.
struct Applied {
    revision: Revision,
    ops: Vec<Op>,
    reply: Reply,
}

/// Starts the threads; they end after [`Request::End`] or when the last sender is dropped, once everything is durable.
pub(super) fn spawn(
    shared: &Arc<Shared>,
    head: Head,
    file: WatermarkFile,
) -> io::Result<(mpsc::Sender<Request>, Vec<JoinHandle<()>>)> {
    let (requests, waiting) = mpsc::channel(MAX_WAITING);
    let (apply, applied) = sync_channel(MAX_BATCH);
    let writer = {
        let shared = Arc::clone(shared);
        thread::Builder::new().name("store-write".to_owned()).spawn(move || {
            guarded(&shared, "the writing thread", || write(&shared, head, waiting, &apply));
        })?
    };
    let flusher = {
        let shared = Arc::clone(shared);
        thread::Builder::new().name("store-flush".to_owned()).spawn(move || {
            guarded(&shared, "the flushing thread", || flush(&shared, head.revision, &applied, file));
            // After a panic as well as at the regular end: whoever waits is told.
            shared.progress.stop(Stopped::Closed);
        })?
    };
    Ok((requests, vec![writer, flusher]))
}

fn write(shared: &Shared, mut head: Head, mut waiting: mpsc::Receiver<Request>, apply: &SyncSender<Applied>) {
    while let Some(request) = waiting.blocking_recv() {
        let Request::Commit { commit, reply } = request else {
            waiting.close();
            continue;
        };
        let refusal = match plan(shared, head, &commit) {
            Ok(plan) => {
                let revision = plan.head.revision;
                head = plan.head;
                match apply_plan(shared, plan) {
                    // The flusher always receives; should it be gone, the dropped reply says so.
                    Ok(()) => {
                        drop(apply.send(Applied { revision, ops: commit.ops, reply }));
                        continue;
                    }
                    Err(reason) => Err(KvError::Unknown(reason)),
                }
            }
            Err(refusal) => refusal,
        };
        // Nobody may be waiting any more.
        drop(reply.send(refusal));
    }
}

/// `Err` is the answer for a commit that is not applied.
fn plan(shared: &Shared, head: Head, commit: &Commit) -> Result<Plan, Result<Outcome, KvError>> {
    shared.writable().map_err(Err)?;
    match caught(|| layout::plan(&shared.tree, head, commit)) {
        Ok(Ok(plan)) => Ok(plan),
        Ok(Err(key)) => Err(Ok(Outcome::Conflict(key))),
        Err(corrupt) => Err(Err(KvError::Corrupt(corrupt))),
    }
}

fn apply_plan(shared: &Shared, plan: Plan) -> Result<(), Stopped> {
    let revision = plan.head.revision;
    let _snapshot = shared.snapshot.write().unwrap_or_else(PoisonError::into_inner);
    // Before the batch, so that they are there even if only half of it is applied.
    lock(&shared.deleted).extend(plan.deleted.into_iter().map(|key| (key, revision)));
    let apply = || shared.tree.apply_batch(plan.batch).map_err(|error| layout::backend_error(&error));
    caught(apply).map_err(|error| fail(shared, "applying a commit", &error))?;
    shared.applied.store(revision.get(), Ordering::Release);
    Ok(())
}

/// Runs the flusher, and the watermark's thread within it.
fn flush(shared: &Shared, durable: Revision, applied: &Receiver<Applied>, file: WatermarkFile) {
    let pacer = Pacer::new(durable);
    let file = thread::scope(|scope| {
        let watermark = scope.spawn(|| pacer.run(file));
        let flushed = panic::catch_unwind(AssertUnwindSafe(|| flush_batches(shared, applied, &pacer)));
        pacer.end();
        let file = watermark.join();
        match flushed {
            Ok(()) => file.ok(),
            Err(panic) => panic::resume_unwind(panic),
        }
    });
    let (Some(mut file), None) = (file, shared.progress.mark().stopped) else {
        return;
    };
    let closed = Watermark { revision: shared.progress.durable(), closed: true };
    // Without it the next start reads everything once; that is all.
    if let Err(error) = file.write(closed) {
        tracing::warn!(%error, "the store could not note that it was closed");
    }
}

fn flush_batches(shared: &Shared, applied: &Receiver<Applied>, pacer: &Pacer) {
    let mut batch: Vec<Applied> = Vec::with_capacity(MAX_BATCH);
    while let Ok(first) = applied.recv() {
        batch.push(first);
        batch.extend(applied.try_iter().take(MAX_BATCH - 1));
        let stopped = shared.progress.mark().stopped;
        let synced = stopped.map_or_else(|| sync(shared, pacer), Err);
        match synced {
            Ok(()) => acknowledge(shared, &mut batch, pacer),
            Err(reason) => {
                for Applied { reply, .. } in batch.drain(..) {
                    drop(reply.send(Err(KvError::Unknown(reason.clone()))));
                }
            }
        }
    }
    // A watermark that failed last is as bad as one that failed between.
    if let Err(reason) = pacer.settled() {
        shared.progress.stop(reason);
    }
}

/// sled's `flush` hands everything to the kernel, `fdatasync` brings it to the disk. The watermark of the batch before
/// is being written meanwhile and must be there too.
fn sync(shared: &Shared, pacer: &Pacer) -> Result<(), Stopped> {
    let flush = || shared.tree.flush().map_err(|error| layout::backend_error(&error));
    caught(flush).map_err(|error| fail(shared, "flushing the store", &error))?;
    #[cfg(test)]
    if shared.fail_next_sync.swap(false, Ordering::AcqRel) {
        return Err(fail(shared, "syncing the store", &io::Error::other("injected")));
    }
    shared.log_file.sync_data().map_err(|error| fail(shared, "syncing the store", &error))?;
    pacer.settled().inspect_err(|reason| shared.progress.stop(reason.clone()))
}

fn acknowledge(shared: &Shared, batch: &mut Vec<Applied>, pacer: &Pacer) {
    let Some(newest) = batch.last().map(|applied| applied.revision) else {
        return;
    };
    let mut deleted = lock(&shared.deleted);
    for Applied { revision, ops, .. } in &*batch {
        for op in ops {
            if deleted.get(op.key()) == Some(revision) {
                deleted.remove(op.key());
            }
        }
    }
    drop(deleted);
    let replies: Vec<_> = batch
        .drain(..)
        .map(|Applied { revision, ops, reply }| {
            shared.ring.push(revision, ops);
            (revision, reply)
        })
        .collect();
    shared.progress.advance(newest);
    for (revision, reply) in replies {
        drop(reply.send(Ok(Outcome::Committed(revision))));
    }
    pacer.advance(newest);
}

/// Notes the failure for good: what an errored sync left in the kernel's cache is not written by the next one either.
fn fail(shared: &Shared, doing: &'static str, error: &dyn std::error::Error) -> Stopped {
    let reason = Stopped::Failed { doing, cause: error.to_string().into() };
    tracing::error!(doing, %error, "the store failed and takes no more writes");
    shared.progress.stop(reason.clone());
    reason
}

fn guarded(shared: &Shared, doing: &'static str, thread: impl FnOnce()) {
    let run = || {
        thread();
        Ok::<(), Corrupt>(())
    };
    if let Err(panic) = caught(run) {
        fail(shared, doing, &panic);
    }
}

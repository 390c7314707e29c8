//! The two threads of an open store: one applies commits, makes them durable and acknowledges them, one writes the
//! watermark beside it.
//!
//! What came while a sync was under way is applied and synced together. To sled a batch of many commits costs hardly
//! more than a batch of one: it ends with two writes to the log and wakes a dozen threads, whatever is in it.
//!
//! Invariant: an acknowledgement, a change in the ring and the durable revision come after `flush` and `fdatasync` of
//! everything up to them, and after the watermark of the batch before. The first error ends all of that for good.
use std::{
    fs::File,
    io,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, PoisonError, atomic::Ordering},
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
/// What is applied to sled at once, roughly: less than a segment of its log, save for a single large commit.
const MAX_PLAN_BYTES: usize = 256 << 10;

type Reply = oneshot::Sender<Result<Outcome, KvError>>;

/// What the writer is asked to do.
pub(super) enum Request {
    /// Whether anyone still waits for the reply makes no difference.
    Commit { commit: Commit, reply: Reply },
    /// Takes what was handed over before, refuses the rest.
    End,
}

/// sled, and an own descriptor of its log, to sync it for good.
pub(super) struct Log {
    pub(super) tree: ::sled::Db,
    pub(super) file: File,
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
    log: Log,
    head: Head,
    file: WatermarkFile,
) -> io::Result<(mpsc::Sender<Request>, JoinHandle<()>)> {
    let (requests, waiting) = mpsc::channel(MAX_WAITING);
    let shared = Arc::clone(shared);
    let writer = thread::Builder::new().name("store-write".to_owned()).spawn(move || {
        guarded(&shared, "the writing thread", || run(&shared, log, head, waiting, file));
        // After a panic as well as at the regular end: whoever waits is told.
        shared.progress.stop(Stopped::Closed);
    })?;
    Ok((requests, writer))
}

/// Runs the writer, and the watermark's thread within it.
fn run(shared: &Shared, log: Log, head: Head, waiting: mpsc::Receiver<Request>, file: WatermarkFile) {
    let pacer = Pacer::new(head.revision);
    let file = thread::scope(|scope| {
        let watermark = scope.spawn(|| pacer.run(file));
        let written = panic::catch_unwind(AssertUnwindSafe(|| write(shared, &log, head, waiting, &pacer)));
        pacer.end();
        let file = watermark.join();
        match written {
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

fn write(shared: &Shared, log: &Log, mut head: Head, mut waiting: mpsc::Receiver<Request>, pacer: &Pacer) {
    let mut batch: Vec<Applied> = Vec::with_capacity(MAX_BATCH);
    while let Some(first) = waiting.blocking_recv() {
        let mut plan = Plan::after(head);
        let mut next = Some(first);
        while let Some(request) = next {
            match request {
                Request::End => waiting.close(),
                Request::Commit { commit, reply } => {
                    if plan.precedes(&commit) || plan.bytes > MAX_PLAN_BYTES {
                        plan = Plan::after(apply(shared, log, plan));
                    }
                    match add(shared, log, &mut plan, &commit) {
                        Ok(revision) => batch.push(Applied { revision, ops: commit.ops, reply }),
                        // Nobody may be waiting any more.
                        Err(refusal) => drop(reply.send(refusal)),
                    }
                }
            }
            next = if batch.len() < MAX_BATCH { waiting.try_recv().ok() } else { None };
        }
        head = apply(shared, log, plan);
        if !batch.is_empty() {
            finish(shared, log, &mut batch, pacer);
        }
    }
    // A watermark that failed last is as bad as one that failed between.
    if let Err(reason) = pacer.settled() {
        shared.progress.stop(reason);
    }
}

/// `Err` is the answer for a commit that is not to be applied.
fn add(shared: &Shared, log: &Log, plan: &mut Plan, commit: &Commit) -> Result<Revision, Result<Outcome, KvError>> {
    shared.writable().map_err(Err)?;
    match caught(|| plan.add(&log.tree, commit)) {
        Ok(Ok(revision)) => Ok(revision),
        Ok(Err(key)) => Err(Ok(Outcome::Conflict(key))),
        Err(corrupt) => Err(Err(KvError::Corrupt(corrupt))),
    }
}

/// Applies what is planned, if anything, and returns the head afterwards. A failure stops the store; [`finish`] tells
/// those who wait.
fn apply(shared: &Shared, log: &Log, mut plan: Plan) -> Head {
    let head = plan.head;
    if plan.is_empty() {
        return head;
    }
    let _snapshot = shared.files.write().unwrap_or_else(PoisonError::into_inner);
    // Before the batch, so that they are there even if only half of it is applied.
    lock(&shared.deleted).extend(std::mem::take(&mut plan.deleted));
    let apply = || log.tree.apply_batch(plan.into_batch()).map_err(|error| layout::backend_error(&error));
    match caught(apply) {
        Ok(()) => shared.applied.store(head.revision.get(), Ordering::Release),
        Err(error) => drop(fail(shared, "applying commits", &error)),
    }
    head
}

/// Makes the batch durable and acknowledges it, or says to all of it why not.
fn finish(shared: &Shared, log: &Log, batch: &mut Vec<Applied>, pacer: &Pacer) {
    let stopped = shared.progress.mark().stopped;
    match stopped.map_or_else(|| sync(shared, log, pacer), Err) {
        Ok(()) => acknowledge(shared, batch, pacer),
        Err(reason) => {
            for Applied { reply, .. } in batch.drain(..) {
                drop(reply.send(Err(KvError::Unknown(reason.clone()))));
            }
        }
    }
}

/// sled's `flush` hands everything to the kernel, `fdatasync` brings it to the disk. The watermark of the batch before
/// is being written meanwhile and must be there too.
fn sync(shared: &Shared, log: &Log, pacer: &Pacer) -> Result<(), Stopped> {
    let flush = || log.tree.flush().map_err(|error| layout::backend_error(&error));
    caught(flush).map_err(|error| fail(shared, "flushing the store", &error))?;
    #[cfg(test)]
    if shared.fail_next_sync.swap(false, Ordering::AcqRel) {
        return Err(fail(shared, "syncing the store", &io::Error::other("injected")));
    }
    log.file.sync_data().map_err(|error| fail(shared, "syncing the store", &error))?;
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

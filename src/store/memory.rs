//! The seam over a map: gone with the process, so "durable" means "applied". For tests, trials and as the model that
//! the other backends are compared with.
use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    kv::{
        Commit, Entry, Invalid, Key, Kv, KvError, MAX_GET_KEYS, MAX_SCAN_ENTRIES, Op, Outcome, Revision, Snapshot,
        Stopped,
    },
    progress::Progress,
    watch::{ChangeStream, Ring},
};

#[derive(Debug, Default)]
struct State {
    revision: Revision,
    entries: BTreeMap<Key, Entry>,
}

/// Keys and values in memory.
#[derive(Debug)]
pub struct MemoryKv {
    state: Mutex<State>,
    ring: Arc<Ring>,
    progress: Progress,
}

impl Default for MemoryKv {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            ring: Arc::new(Ring::new(Revision::ZERO)),
            progress: Progress::new(Revision::ZERO),
        }
    }
}

impl Kv for MemoryKv {
    async fn get(&self, keys: &[Key]) -> Result<Snapshot<Vec<Option<Entry>>>, KvError> {
        if keys.len() > MAX_GET_KEYS {
            return Err(Invalid::TooManyKeys { count: keys.len() }.into());
        }
        let state = self.lock();
        Ok((state.revision, keys.iter().map(|key| state.entries.get(key).cloned()).collect()))
    }

    async fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: u32) -> Result<Snapshot<Vec<Entry>>, KvError> {
        let state = self.lock();
        let start = after.filter(|after| *after >= prefix).unwrap_or(prefix);
        let entries = match Key::new(start.to_vec()) {
            Ok(start) => state.entries.range((Bound::Included(start), Bound::Unbounded)),
            Err(Invalid::EmptyKey) => state.entries.range::<Key, _>(..),
            Err(error) => return Err(error.into()),
        };
        let found = entries
            .map(|(_, entry)| entry)
            .skip_while(|entry| after.is_some_and(|after| entry.key.as_bytes() <= after))
            .take_while(|entry| entry.key.as_bytes().starts_with(prefix))
            .take(limit.min(MAX_SCAN_ENTRIES) as usize)
            .cloned()
            .collect();
        Ok((state.revision, found))
    }

    async fn commit(&self, commit: Commit) -> Result<Outcome, KvError> {
        commit.check()?;
        let mut state = self.lock();
        self.writable()?;
        for guard in commit.guards {
            let current = state.entries.get(&guard.key).map_or(Revision::ZERO, |entry| entry.revision);
            if current != guard.revision {
                return Ok(Outcome::Conflict(guard.key));
            }
        }
        let revision = state.revision.next();
        state.revision = revision;
        for op in &commit.ops {
            match op {
                Op::Put(key, value) => {
                    let entry = Entry { key: key.clone(), revision, value: value.clone() };
                    state.entries.insert(key.clone(), entry);
                }
                Op::Delete(key) => drop(state.entries.remove(key)),
            }
        }
        self.ring.push(revision, commit.ops);
        self.progress.advance(revision);
        Ok(Outcome::Committed(revision))
    }

    fn watch(&self, prefix: &[u8], from: Revision) -> ChangeStream {
        self.ring.watch(&self.progress, prefix, from)
    }
}

impl MemoryKv {
    pub(super) fn writable(&self) -> Result<(), KvError> {
        match self.progress.mark().stopped {
            Some(reason) => Err(KvError::NotApplied(reason)),
            None => Ok(()),
        }
    }

    pub(super) async fn stopped(&self) -> Stopped {
        self.progress.stopped().await
    }

    pub(super) fn close(&self) {
        let _no_commit_now = self.lock();
        self.progress.stop(Stopped::Closed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

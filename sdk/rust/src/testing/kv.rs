//! A kv store in memory. Versions never come twice, so an entry that was deleted and written again is another one.
use std::collections::BTreeMap;

use super::{Core, DECIDING, OUTSIDE, with};
use crate::ask::kv::PAGE_KEYS;
use crate::bindings::kv::{Entry, Expect, KvError};

/// What [`Core`] keeps for the plugin.
#[derive(Clone, Debug, Default)]
pub(super) struct Kv {
    entries: BTreeMap<String, Entry>,
    version: u64,
}

impl Core {
    /// Has an entry in kv already.
    #[must_use]
    pub fn entry(self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.written.borrow_mut().kv.put(key, value.as_ref());
        self
    }

    /// What stands in kv by now.
    #[must_use]
    pub fn entries(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = &self.written.borrow().kv.entries;
        entries.iter().map(|(key, entry)| (key.clone(), entry.value.clone())).collect()
    }

    /// What stands at a key by now.
    #[must_use]
    pub fn entry_now(&self, key: &str) -> Option<Vec<u8>> {
        self.entries().remove(key)
    }
}

impl Kv {
    fn put(&mut self, key: &str, value: &[u8]) -> u64 {
        self.version += 1;
        self.entries.insert(key.to_owned(), Entry { value: value.to_vec(), version: self.version });
        self.version
    }

    fn check(&self, key: &str, expect: Expect) -> Result<(), KvError> {
        let now = self.entries.get(key).map_or(0, |entry| entry.version);
        let fits = match expect {
            Expect::Whatever => true,
            Expect::Absent => now == 0,
            Expect::Version(version) => now == version,
        };
        if fits { Ok(()) } else { Err(KvError::Conflict(now)) }
    }
}

fn kv<T>(answer: impl FnOnce(&mut Kv, bool) -> Result<T, KvError>) -> Result<T, KvError> {
    with(|core| answer(&mut core.written.borrow_mut().kv, core.dry_run))
        .unwrap_or_else(|| Err(KvError::Denied(OUTSIDE.into())))
}

fn may_write() -> Result<(), KvError> {
    match with(|core| core.deciding) {
        Some(true) => Err(KvError::Denied(DECIDING.into())),
        Some(false) | None => Ok(()),
    }
}

pub(crate) fn get(key: &str) -> Result<Option<Entry>, KvError> {
    kv(|kv, _| Ok(kv.entries.get(key).cloned()))
}

pub(crate) fn put(key: &str, value: &[u8], expect: Expect) -> Result<u64, KvError> {
    may_write()?;
    kv(|kv, dry_run| {
        kv.check(key, expect)?;
        Ok(if dry_run { kv.version + 1 } else { kv.put(key, value) })
    })
}

pub(crate) fn delete(key: &str, expect: Expect) -> Result<(), KvError> {
    may_write()?;
    kv(|kv, dry_run| {
        kv.check(key, expect)?;
        if !dry_run {
            kv.entries.remove(key);
        }
        Ok(())
    })
}

pub(crate) fn list(prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<String>, KvError> {
    kv(|kv, _| {
        let keys = kv.entries.keys().filter(|key| key.starts_with(prefix));
        let later = keys.filter(|key| after.is_none_or(|after| key.as_str() > after));
        Ok(later.take(PAGE_KEYS.min(limit as usize)).cloned().collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, ask};

    #[test]
    fn a_write_counts_only_for_what_was_expected() {
        let core = Core::new();
        core.run(|| {
            let first = ask::kv::put("a", b"1", Expect::Absent).unwrap();
            assert_eq!(ask::kv::put("a", b"2", Expect::Absent), Err(KvError::Conflict(first)));
            let second = ask::kv::put("a", b"2", Expect::Version(first)).unwrap();
            assert!(second > first);
            assert_eq!(ask::kv::delete("a", Expect::Version(first)), Err(KvError::Conflict(second)));
            ask::kv::delete("a", Expect::Version(second)).unwrap();
            assert_eq!(ask::kv::delete("a", Expect::Version(second)), Err(KvError::Conflict(0)));
            assert!(ask::kv::put("a", b"3", Expect::Whatever).unwrap() > second);
        });
        assert_eq!(core.entry_now("a"), Some(b"3".to_vec()));
    }

    #[test]
    fn a_dry_run_writes_nothing_and_answers_as_if() {
        let core = Core::new().entry("a", "1").dry_run();
        core.run(|| {
            assert_eq!(ask::kv::put("a", b"2", Expect::Absent), Err(KvError::Conflict(1)));
            assert_eq!(ask::kv::put("b", b"2", Expect::Absent), Ok(2));
            ask::kv::delete("a", Expect::Whatever).unwrap();
        });
        assert_eq!(core.entries(), BTreeMap::from([("a".to_owned(), b"1".to_vec())]));
    }

    #[test]
    fn json_goes_in_and_out_and_what_does_not_fit_is_a_failure() {
        let core = Core::new();
        core.run(|| {
            assert_eq!(ask::kv::get_json::<u64>("n"), Ok(None));
            ask::kv::put_json("n", &17).unwrap();
            assert_eq!(ask::kv::get_json::<u64>("n"), Ok(Some(17)));
            assert!(matches!(ask::kv::get_json::<bool>("n"), Err(Error::Failed(text)) if text.contains("\"n\"")));
        });
    }

    #[test]
    fn keys_come_in_order_from_after_one_on() {
        let core = Core::new().entry("h/2", "").entry("h/1", "").entry("other", "").entry("h/3", "");
        assert_eq!(core.run(|| ask::kv::list("h/", Some("h/1"), 1)), Ok(vec!["h/2".to_owned()]));
        assert_eq!(core.run(|| ask::kv::list("h/", None, 9)).unwrap().len(), 3);
        assert!(core.run(|| ask::kv::list("h/", None, 0)).unwrap().is_empty());
        let core = (0..600).fold(Core::new(), |core, n| core.entry(&format!("h/{n:03}"), ""));
        assert_eq!(core.run(|| list("h/", None, 1_000)).unwrap().len(), 256, "as the core does");
        for (limit, expected) in [(256, 256), (257, 257), (599, 599), (600, 600), (1_000, 600)] {
            let keys = core.run(|| ask::kv::list("h/", None, limit)).unwrap();
            assert_eq!((keys.len(), keys.last().cloned()), (expected, Some(format!("h/{:03}", expected - 1))));
        }
    }

    #[test]
    fn nothing_is_written_inside_a_decision() {
        let core = Core::new().entry("a", "1").deciding();
        assert!(matches!(core.run(|| ask::kv::put("a", b"2", Expect::Whatever)), Err(KvError::Denied(_))));
        assert!(core.run(|| ask::kv::get("a")).unwrap().is_some());
    }
}

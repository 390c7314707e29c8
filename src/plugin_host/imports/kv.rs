//! The import `kv`.
use super::Answer;
use crate::hooks;
use crate::plugin_host::contract::kiwispray::plugin::kv::{self, Entry, Expect, KvError};
use crate::plugin_host::sandbox::CallState;

impl kv::Host for CallState {
    async fn get(&mut self, key: String) -> Answer<Option<Entry>, KvError> {
        let reach = self.reach();
        let question = self.question("kv.get", key.len(), &(&key,));
        let answer = async {
            let reach = reach?;
            let entry = reach.core.kv_get(&reach.allowance, &key).await?;
            Ok(entry.map(|entry| Entry { value: entry.value, version: entry.version }))
        };
        self.ask(question, answer).await
    }

    async fn put(&mut self, key: String, value: Vec<u8>, expect: Expect) -> Answer<u64, KvError> {
        let reach = self.reach();
        let bytes = key.len() + value.len();
        let question = self.question("kv.put", bytes, &(&key, &value, &expect));
        let answer = async {
            let reach = reach?;
            Ok(reach.core.kv_put(&reach.allowance, &key, value, expect.into()).await?)
        };
        self.ask(question, answer).await
    }

    async fn delete(&mut self, key: String, expect: Expect) -> Answer<(), KvError> {
        let reach = self.reach();
        let question = self.question("kv.delete", key.len(), &(&key, &expect));
        let answer = async {
            let reach = reach?;
            Ok(reach.core.kv_delete(&reach.allowance, &key, expect.into()).await?)
        };
        self.ask(question, answer).await
    }

    async fn list(&mut self, prefix: String, after: Option<String>, limit: u32) -> Answer<Vec<String>, KvError> {
        let reach = self.reach();
        let bytes = prefix.len() + after.as_ref().map_or(0, String::len);
        let question = self.question("kv.list", bytes, &(&prefix, &after, limit));
        let answer = async {
            let reach = reach?;
            Ok(reach.core.kv_list(&reach.allowance, &prefix, after.as_deref(), limit).await?)
        };
        self.ask(question, answer).await
    }
}

impl From<Expect> for hooks::Expect {
    fn from(expect: Expect) -> Self {
        match expect {
            Expect::Whatever => Self::Whatever,
            Expect::Absent => Self::Absent,
            Expect::Version(version) => Self::Version(version),
        }
    }
}

impl From<hooks::KvError> for KvError {
    fn from(error: hooks::KvError) -> Self {
        match error {
            hooks::KvError::Denied(why) => Self::Denied(why),
            hooks::KvError::Conflict(version) => Self::Conflict(version),
            hooks::KvError::TooLarge => Self::TooLarge,
            hooks::KvError::Full => Self::Full,
            hooks::KvError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

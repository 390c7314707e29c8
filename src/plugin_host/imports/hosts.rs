//! The import `hosts`.
use super::Answer;
use crate::hooks;
use crate::hooks::Page;
use crate::plugin_host::contract::kiwispray::plugin::hosts::{self, HostPage, HostsError};
use crate::plugin_host::contract::kiwispray::plugin::types::{Edit, KnownHost, Patch};
use crate::plugin_host::convert;
use crate::plugin_host::sandbox::CallState;

impl hosts::Host for CallState {
    async fn get(&mut self, id: u64) -> Answer<KnownHost, HostsError> {
        let reach = self.reach();
        let question = self.question("hosts.get", 0, &(id,));
        let answer = async {
            let reach = reach?;
            Ok(convert::host(&reach.core.host(&reach.allowance, id).await?))
        };
        self.ask(question, answer).await
    }

    async fn find(
        &mut self,
        key: String,
        value: String,
        after: Option<u64>,
        limit: u32,
    ) -> Answer<HostPage, HostsError> {
        let reach = self.reach();
        let question = self.question("hosts.find", key.len() + value.len(), &(&key, &value, after, limit));
        let answer = async {
            let reach = reach?;
            let found = reach.core.find_hosts(&reach.allowance, &key, &value, Page { after, limit });
            Ok(page(&found.await?))
        };
        self.ask(question, answer).await
    }

    async fn page(&mut self, after: Option<u64>, limit: u32) -> Answer<HostPage, HostsError> {
        let reach = self.reach();
        let question = self.question("hosts.page", 0, &(after, limit));
        let answer = async {
            let reach = reach?;
            Ok(page(&reach.core.hosts(&reach.allowance, Page { after, limit }).await?))
        };
        self.ask(question, answer).await
    }

    async fn apply(&mut self, id: u64, revision: u64, patch: Patch) -> Answer<KnownHost, HostsError> {
        let reach = self.reach();
        let bytes = bytes_of(&patch);
        let question = self.question("hosts.apply", bytes, &(id, revision, &patch));
        let answer = async {
            let reach = reach?;
            let patch = convert::patch(patch).map_err(|bad| HostsError::Invalid(bad.to_string()))?;
            Ok(convert::host(&reach.core.apply(&reach.allowance, id, revision, patch).await?))
        };
        self.ask(question, answer).await
    }
}

fn page(page: &hooks::HostPage) -> HostPage {
    HostPage { hosts: page.hosts.iter().map(convert::host).collect(), next: page.next }
}

fn bytes_of(patch: &Patch) -> usize {
    let hostname = match &patch.hostname {
        Edit::Keep | Edit::Clear => 0,
        Edit::Set(name) => name.len(),
    };
    let states = patch.states.iter().flatten().chain(&patch.order).chain(&patch.unset).map(String::len).sum::<usize>();
    hostname + states + patch.set.iter().map(|(path, value)| path.len() + value.len()).sum::<usize>()
}

impl From<hooks::HostsError> for HostsError {
    fn from(error: hooks::HostsError) -> Self {
        match error {
            hooks::HostsError::Denied(why) => Self::Denied(why),
            hooks::HostsError::Invalid(why) => Self::Invalid(why),
            hooks::HostsError::NotFound => Self::NotFound,
            hooks::HostsError::Conflict(revision) => Self::Conflict(revision),
            hooks::HostsError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

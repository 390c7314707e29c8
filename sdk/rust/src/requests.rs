//! Reading what the core asked.
use serde_json::Value;

use crate::{BootRequest, Error, Event, KnownHost, RenderRequest, TransitionRequest};

/// The built-in state of a host that has nothing left to do.
const FINISHED: &str = "finished";

fn parse(text: &str, what: &str) -> Result<Value, Error> {
    serde_json::from_str(text).map_err(|error| Error::Invalid(format!("{what} is no JSON: {error}")))
}

impl KnownHost {
    /// The current state: the first of the queue.
    #[must_use]
    pub fn state(&self) -> &str {
        // The core never sends an empty queue; `finished` is what an empty one means.
        self.states.first().map_or(FINISHED, String::as_str)
    }

    /// The metadata, parsed. Indexing a missing key gives `Value::Null`.
    ///
    /// # Errors
    /// `invalid` when it is not JSON, which the core does not send.
    pub fn metadata(&self) -> Result<Value, Error> {
        parse(&self.metadata, "the metadata")
    }

    /// Whether the host has nothing left to do.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.state() == FINISHED
    }

    /// What else the server knows, parsed: first and last seen, progress, …
    ///
    /// # Errors
    /// As for [`KnownHost::metadata`].
    pub fn more(&self) -> Result<Value, Error> {
        parse(&self.more, "what else is known")
    }
}

impl Event {
    /// What the event changed, parsed.
    ///
    /// # Errors
    /// As for [`KnownHost::metadata`].
    pub fn detail(&self) -> Result<Value, Error> {
        parse(&self.detail, "the event's detail")
    }
}

impl RenderRequest {
    /// The variables so far, parsed.
    ///
    /// # Errors
    /// As for [`KnownHost::metadata`].
    pub fn vars(&self) -> Result<Value, Error> {
        parse(&self.vars, "the variables")
    }
}

impl TransitionRequest {
    /// The state that the host would have; an empty queue means `finished`.
    #[must_use]
    pub fn next(&self) -> &str {
        self.to.first().map_or(FINISHED, String::as_str)
    }
}

impl BootRequest {
    /// What the firmware reported under a name: `platform`, `buildarch`, `manufacturer`, `product`, `asset`, …
    #[must_use]
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.facts.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing;

    #[test]
    fn metadata_state_and_facts_are_read_in_one_word() {
        let mut request = testing::request(testing::host("wipe"));
        request.host.metadata = r#"{"rack":"r7"}"#.into();
        request.facts.push(("platform".into(), "efi".into()));
        assert_eq!(request.host.state(), "wipe");
        assert_eq!(request.host.metadata().unwrap()["rack"], "r7");
        assert!(request.host.metadata().unwrap()["site"].is_null());
        assert_eq!((request.fact("platform"), request.fact("asset")), (Some("efi"), None));
    }
}

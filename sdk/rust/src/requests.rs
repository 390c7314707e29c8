//! Reading what the core asked.
use serde_json::Value;

use crate::{BootRequest, Error, KnownHost};

impl KnownHost {
    /// The current state: the first of the queue.
    #[must_use]
    pub fn state(&self) -> &str {
        // The core never sends an empty queue; `finished` is what an empty one means.
        self.states.first().map_or("finished", String::as_str)
    }

    /// The metadata, parsed. Indexing a missing key gives `Value::Null`.
    ///
    /// # Errors
    /// `invalid` when it is not JSON, which the core does not send.
    pub fn metadata(&self) -> Result<Value, Error> {
        serde_json::from_str(&self.metadata)
            .map_err(|error| Error::Invalid(format!("the metadata is no JSON: {error}")))
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

//! `kiwispray host set`

use clap::Args;
use serde_json::{Map, Value};

use super::super::Context;
use super::super::act::{Consent, Question, Targets, act_on};
use super::super::client::Act;
use super::super::deploy::Order;
use super::super::error::Result;
use super::super::words::split_queue;
use crate::wire::EditHost;

/// Changes hosts.
#[derive(Debug, Args)]
#[group(id = "changes", args = ["states", "meta", "hostname"], required = true, multiple = true)]
pub(crate) struct Set {
    #[command(flatten)]
    targets: Targets,
    /// The queue, such as wipe,image1
    #[arg(short, long = "state", value_name = "STATES")]
    states: Option<String>,
    /// Metadata to merge, a JSON object; null removes a key
    #[arg(short, long, value_name = "JSON", value_parser = object)]
    meta: Option<Object>,
    /// The name; an empty one takes the name away
    #[arg(short = 'n', long, value_name = "NAME")]
    hostname: Option<String>,
    #[command(flatten)]
    order: Order,
    #[command(flatten)]
    consent: Consent,
}

/// A JSON object. A type of its own, as clap gives maps a meaning.
#[derive(Debug, Clone, Default)]
pub(super) struct Object(pub(super) Map<String, Value>);

/// The JSON object in an argument.
pub(super) fn object(text: &str) -> std::result::Result<Object, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(Object(map)),
        Ok(_) => Err("a JSON object such as {\"site\": \"fra1\"} is expected".to_owned()),
        Err(error) => Err(format!("this is no JSON ({error})")),
    }
}

impl Set {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let Order { reinstall, abort, expect_serial } = self.order;
        let edit = EditHost {
            hostname: self.hostname,
            metadata: self.meta.unwrap_or_default().0,
            states: self.states.as_deref().map(split_queue),
            reinstall,
            abort,
            expect_serial,
            ..EditHost::default()
        };
        act_on(context, &self.targets, &Act::Edit(edit), self.consent, Question::Erasing).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_an_object_or_refused_at_once() {
        assert!(object(r#"{"a":1}"#).is_ok());
        assert!(object("[1]").unwrap_err().contains("object"));
        assert!(object("a=b").unwrap_err().contains("no JSON"));
    }
}

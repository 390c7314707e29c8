//! What is told to NetBox of an installation, and in which words. Pure: what to send is decided here, sending is not.

use kiwispray_sdk::{Error, Event};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::Config;

/// Characters of a machine's words that enter a journal.
const REASON_CHARS: usize = 500;

/// Something to be done for a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Task {
    /// The event behind it; it stands in the journal entry, so that an entry is found again.
    pub(crate) event: String,
    pub(crate) what: What,
    /// When a journal entry was last on its way, in milliseconds since 1970. It may have arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sent_ms: Option<u64>,
    /// Whether it arrived.
    #[serde(default)]
    pub(crate) journaled: bool,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    /// A host is new, or showed more of itself: its device is to be looked up.
    Seen,
    /// An installation began.
    Installing,
    /// The last step is done.
    Finished {
        /// The queue that was installed.
        states: String,
    },
    /// An attempt failed.
    Failed {
        /// The state it was at.
        state: String,
        /// The machine's words.
        reason: String,
    },
}

impl What {
    /// Whether it says what became of an installation.
    pub(crate) fn is_an_outcome(&self) -> bool {
        matches!(self, Self::Finished { .. } | Self::Failed { .. })
    }
}

/// The kinds of events that lead to a task.
pub(crate) const EVENTS: &[&str] =
    &["registered", "identity_learned", "identity_set", "attempt_started", "finished", "failed"];

/// What an event asks to be done; none: nothing.
pub(crate) fn task(event: &Event) -> Result<Option<Task>, Error> {
    let detail = event.detail()?;
    let Some(host) = &event.host else { return Ok(None) };
    let what = match event.kind.as_str() {
        "registered" | "identity_learned" | "identity_set" => What::Seen,
        // A queue that ends in `new`, as taking inventory does, is no installation.
        "attempt_started" if host.states.last().is_some_and(|last| last != "new") => What::Installing,
        "finished" if queue(&detail, "to").is_none_or(|to| to == "finished") => {
            What::Finished { states: queue(&detail, "from").unwrap_or_default() }
        }
        "failed" => What::Failed {
            state: host.state().to_owned(),
            reason: detail.get("reason").and_then(Value::as_str).unwrap_or_default().to_owned(),
        },
        _ => return Ok(None),
    };
    Ok(Some(Task { event: event.id.clone(), what, sent_ms: None, journaled: false }))
}

/// A queue in an event's detail: a text, or a list.
fn queue(detail: &Value, key: &str) -> Option<String> {
    match detail.get(key)? {
        Value::String(text) => Some(text.clone()),
        Value::Array(states) => {
            let states: Vec<&str> = states.iter().filter_map(Value::as_str).collect();
            Some(if states.is_empty() { "finished".to_owned() } else { states.join(",") })
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

/// The status that a device should have after these tasks: the newest one counts.
pub(crate) fn status<'a>(tasks: &[Task], config: &'a Config) -> Option<&'a str> {
    let newest = tasks.iter().rev().find(|task| task.what != What::Seen)?;
    let status = match newest.what {
        What::Installing => &config.status.installing,
        What::Finished { .. } => &config.status.finished,
        What::Failed { .. } => &config.status.failed,
        What::Seen => &None,
    };
    status.as_deref().filter(|status| !status.is_empty())
}

/// The journal entry for a task; none: it is not worth one.
pub(crate) fn journal(task: &Task, device: u64, host: u64, config: &Config) -> Option<Value> {
    let (kind, text) = match &task.what {
        What::Seen | What::Installing => return None,
        What::Finished { states } if states.is_empty() => ("success", "installed".to_owned()),
        What::Finished { states } => ("success", format!("installed: {}", code(states))),
        What::Failed { state, reason } => ("danger", format!("failed to install {}: {}", code(state), code(reason))),
    };
    config.journal.then(|| {
        json!({
            "assigned_object_type": "dcim.device",
            "assigned_object_id": device,
            "kind": kind,
            "comments": format!("kiwispray host {host} {text} ({})", mark(task)),
        })
    })
}

/// What a journal entry is found again by.
pub(crate) fn mark(task: &Task) -> String {
    format!("event {}", code(&task.event))
}

/// Text from outside as Markdown that is shown as it is.
fn code(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() || c == '`' { ' ' } else { c }).collect();
    let clean = clean.trim();
    let shown: String = clean.chars().take(REASON_CHARS).collect();
    if shown.is_empty() { "(no words)".to_owned() } else { format!("`{shown}`") }
}

#[cfg(test)]
mod tests {
    use kiwispray_sdk::testing::{event, host};

    use super::*;
    use crate::config::sample;

    fn told(kind: &str, state: &str, detail: &Value) -> Option<Task> {
        let mut event = event(kind, Some(host(state)));
        event.detail = detail.to_string();
        task(&event).unwrap()
    }

    #[test]
    fn a_finish_is_told_only_when_it_was_the_last_step() {
        let last = told("finished", "finished", &json!({"from": "web", "to": "finished"})).unwrap();
        assert_eq!(last.what, What::Finished { states: "web".into() });
        assert_eq!(told("finished", "web", &json!({"from": "wipe,web", "to": "web"})), None);
        assert!(told("finished", "finished", &json!({"from": ["web"], "to": []})).is_some());
    }

    #[test]
    fn taking_inventory_is_no_installation() {
        assert_eq!(told("attempt_started", "web", &json!({"number": 1})).unwrap().what, What::Installing);
        assert_eq!(told("attempt_started", "new", &json!({})), None);
        assert_eq!(told("metadata_set", "web", &json!({})), None);
    }

    #[test]
    fn the_newest_task_gives_the_status() {
        let tasks: Vec<Task> = [
            told("attempt_started", "web", &json!({})),
            told("failed", "web", &json!({"reason": "no disk"})),
            told("identity_learned", "web", &json!({})),
        ]
        .into_iter()
        .flatten()
        .collect();
        assert_eq!(status(&tasks, &sample()), Some("failed"));
        assert_eq!(status(&tasks[..1], &sample()), Some("staged"));
        assert_eq!(status(&tasks[2..], &sample()), None);
        let mut config = sample();
        for left_alone in [None, Some(String::new())] {
            config.status.failed = left_alone;
            assert_eq!(status(&tasks, &config), None);
        }
    }

    #[test]
    fn a_machines_words_stay_words_in_the_journal() {
        let task = told("failed", "web", &json!({"reason": "`<img src=x>`\n# boo **x**"})).unwrap();
        let entry = journal(&task, 3, 7, &sample()).unwrap();
        assert_eq!(
            entry["comments"],
            "kiwispray host 7 failed to install `web`: `<img src=x>  # boo **x**` (event `7-1`)"
        );
        assert_eq!((&entry["kind"], &entry["assigned_object_id"]), (&json!("danger"), &json!(3)));
        assert!(entry["comments"].as_str().unwrap().contains(&mark(&task)));
    }

    #[test]
    fn beginnings_are_no_journal_entries_and_the_journal_can_be_left_alone() {
        let began = told("attempt_started", "web", &json!({})).unwrap();
        assert_eq!(journal(&began, 3, 7, &sample()), None);
        let mut config = sample();
        config.journal = false;
        let done = told("finished", "finished", &json!({"to": "finished"})).unwrap();
        assert_eq!(journal(&done, 3, 7, &config), None);
    }
}

//! A call of a plugin as data: what it was asked, every question it asked back with the answer it got, and what it answered.
//!
//! Invariant: the same component, asked the same and answered the same, does the same. So a recorded call can be replayed
//! byte for byte with nothing but its file: no server, no clock, no network.
use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version of the file's format. Another one is refused.
pub const RECORDING_FORMAT: u32 = 1;

/// One recorded call. Values are the contract's own, written as JSON: records are objects with `snake_case` keys, variants
/// `{"Case": value}` or `"Case"`, bytes arrays of numbers, documents of type `json` the text that went over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Recording {
    /// [`RECORDING_FORMAT`].
    pub format: u32,
    /// The plugin's name.
    pub plugin: String,
    /// Its component, as `sha256:<hex>`.
    pub digest: String,
    /// The hook: `boot`, `discovery`, `render`, `transition`, `events`, `schedule`.
    pub hook: String,
    /// The configuration it had, as the text that it was given.
    pub config: String,
    /// What `call` answered.
    pub call: RecordedCall,
    /// The hook's argument. (For `schedule` the job's name, for `events` the list.)
    pub request: Value,
    /// Every import that was called, in order.
    pub imports: Vec<ImportCall>,
    /// How it ended.
    pub answer: RecordedAnswer,
}

/// The call that was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RecordedCall {
    /// The same for every retry.
    pub id: String,
    /// 1 for the first try.
    pub attempt: u32,
    /// Milliseconds since 1970.
    pub now_ms: u64,
    /// What the call had, in milliseconds.
    pub budget_ms: u64,
    /// Whether nothing was committed.
    pub dry_run: bool,
}

/// One import that the plugin called.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ImportCall {
    /// Interface and function as the contract writes them: `kv.get`, `call.now-ms`, `log.write`.
    pub import: String,
    /// What it was given, as an array.
    pub arguments: Value,
    /// What it answered; `null` if the function answers nothing. A `result` is `{"Ok": …}` or `{"Err": …}`.
    pub answer: Value,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordedAnswer {
    /// The plugin answered: the contract's `result`, `{"Ok": …}` or `{"Err": …}`.
    Answered(Value),
    /// The call broke: it trapped, took too long, wanted too much. Class and text of the fault.
    Broke {
        /// The class of the error: `trap`, `timeout`, `memory`, …
        class: String,
        /// What happened.
        text: String,
    },
}

/// What came of a replay.
#[derive(Clone, Debug, PartialEq)]
pub struct Replayed {
    /// How the call ended this time.
    pub answer: RecordedAnswer,
    /// Where its questions were not those that were recorded.
    pub diverged: Option<Diverged>,
    /// What the plugin noted this time.
    pub notes: Vec<String>,
}

impl Replayed {
    /// Where it is not what was recorded, byte for byte. Empty: it is the same.
    #[must_use]
    pub fn differences(&self, recording: &Recording) -> Vec<String> {
        let is_cut_short =
            |answer: &RecordedAnswer| matches!(answer, RecordedAnswer::Broke { class, .. } if class == "timeout");
        // The question during which the time was over, the recording does not have; and the words of it tell milliseconds.
        let as_then = match &self.diverged {
            None => is_cut_short(&self.answer),
            Some(diverged) => matches!(diverged, Diverged::More { .. }),
        };
        if is_cut_short(&recording.answer) && as_then {
            return Vec::new();
        }
        let diverged = self.diverged.iter().map(ToString::to_string);
        let said = |answer: &RecordedAnswer| serde_json::to_string(answer).unwrap_or_default();
        let (now, then) = (said(&self.answer), said(&recording.answer));
        // A call that was ended for another question has no answer of its own.
        let other = (self.diverged.is_none() && now != then).then(|| format!("it answers {now}; recorded was {then}"));
        diverged.chain(other).collect()
    }
}

/// Plays the recorded answers back, in order, to a component that is run again.
#[derive(Clone, Debug, Default)]
pub struct Tape {
    left: VecDeque<ImportCall>,
    played: usize,
}

/// The component did something else than when it was recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Diverged {
    /// It called another import, or with other arguments.
    #[error("question {number} is another one: {asked}; recorded was {recorded}")]
    Asked {
        /// From 1.
        number: usize,
        /// Now.
        asked: String,
        /// Then.
        recorded: String,
    },
    /// It called an import although none was left.
    #[error("it asks more than was recorded: {asked}")]
    More {
        /// Now.
        asked: String,
    },
    /// It did not call everything that was recorded.
    #[error("it asks less than was recorded: {recorded} is missing")]
    Less {
        /// The first that is missing.
        recorded: String,
    },
}

impl Tape {
    /// A tape of a recording, at its beginning.
    #[must_use]
    pub fn new(recording: &Recording) -> Self {
        Self { left: recording.imports.iter().cloned().collect(), played: 0 }
    }

    /// The recorded answer to the next question.
    ///
    /// # Errors
    /// The question is not the one that was recorded.
    pub fn answer(&mut self, import: &str, arguments: &Value) -> Result<Value, Diverged> {
        let said = |import: &str, arguments: &Value| format!("`{import}` with {arguments}");
        let asked = || said(import, arguments);
        let Some(next) = self.left.pop_front() else { return Err(Diverged::More { asked: asked() }) };
        self.played += 1;
        if next.import == import && next.arguments == *arguments {
            return Ok(next.answer);
        }
        let recorded = said(&next.import, &next.arguments);
        Err(Diverged::Asked { number: self.played, asked: asked(), recorded })
    }

    /// Ends the replay.
    ///
    /// # Errors
    /// Something was recorded and not asked now.
    pub fn end(mut self) -> Result<(), Diverged> {
        match self.left.pop_front() {
            None => Ok(()),
            Some(next) => Err(Diverged::Less { recorded: format!("`{}` with {}", next.import, next.arguments) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn recording() -> Recording {
        let import = |import: &str, arguments, answer| ImportCall { import: import.to_owned(), arguments, answer };
        Recording {
            format: RECORDING_FORMAT,
            plugin: "racks".into(),
            digest: "sha256:00".into(),
            hook: "boot".into(),
            config: "{}".into(),
            call: RecordedCall { id: "b-1".into(), attempt: 1, now_ms: 5, budget_ms: 200, dry_run: false },
            request: json!({"host": {"id": 7}, "facts": []}),
            imports: vec![
                import("call.now-ms", json!([]), json!(5)),
                import("kv.get", json!(["a"]), json!({"ok": null})),
            ],
            answer: RecordedAnswer::Answered(json!({"ok": {"verdict": "pass", "patch": null, "reason": ""}})),
        }
    }

    #[test]
    fn a_recording_survives_its_file() {
        let text = serde_json::to_string(&recording()).unwrap();
        assert_eq!(serde_json::from_str::<Recording>(&text).unwrap(), recording());
    }

    #[test]
    fn the_same_questions_get_the_same_answers() {
        let mut tape = Tape::new(&recording());
        assert_eq!(tape.answer("call.now-ms", &json!([])), Ok(json!(5)));
        assert_eq!(tape.answer("kv.get", &json!(["a"])), Ok(json!({"ok": null})));
        assert_eq!(tape.end(), Ok(()));
    }

    #[test]
    fn a_call_whose_time_was_over_is_the_same_only_if_it_comes_that_far_and_no_answer() {
        let over =
            |ms: u32| RecordedAnswer::Broke { class: "timeout".into(), text: format!("{ms} ms were not enough") };
        let then = Recording { answer: over(200), ..recording() };
        let now = |answer, diverged| Replayed { answer, diverged, notes: Vec::new() }.differences(&then);
        assert_eq!(now(over(201), None), Vec::<String>::new());
        assert_eq!(now(over(0), Some(Diverged::More { asked: "`http.get`".into() })), Vec::<String>::new());
        assert_eq!(now(over(0), Some(Diverged::Less { recorded: "`kv.get`".into() })).len(), 1);
        let answers = now(RecordedAnswer::Answered(json!({"Ok": 1})), None);
        assert!(answers[0].starts_with("it answers"), "{answers:?}");
    }

    #[test]
    fn another_question_one_more_and_one_less_are_told_apart() {
        let mut tape = Tape::new(&recording());
        let other = tape.answer("kv.get", &json!(["b"])).unwrap_err().to_string();
        assert_eq!(other, "question 1 is another one: `kv.get` with [\"b\"]; recorded was `call.now-ms` with []");
        assert!(matches!(tape.clone().end(), Err(Diverged::Less { .. })));
        tape.answer("kv.get", &json!(["a"])).unwrap();
        assert!(matches!(tape.answer("kv.get", &json!(["a"])), Err(Diverged::More { .. })));
    }
}

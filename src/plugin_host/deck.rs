//! What sees every question of a call: nothing, a recorder, or a tape that answers in place of the core.
//!
//! Invariant: a call that is neither recorded nor replayed pays nothing for it; no argument is looked at.
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::recording::{Diverged, ImportCall, Recording, Tape};

/// What is kept of one call, in bytes of JSON. A synchronisation of thousands of hosts is no example.
const RECORDING_MAX_BYTES: usize = 8 << 20;
/// Recorded calls of one plugin that are kept.
const RECORDINGS_MAX: usize = 20;

/// What becomes of the questions of one call.
#[derive(Debug, Default)]
pub(super) enum Deck {
    /// Nothing.
    #[default]
    Off,
    /// They are written down with their answers.
    Recording(Vec<ImportCall>, usize),
    /// There was too much to write down.
    TooMuch,
    /// A tape answers them.
    Playing(Tape, Option<Diverged>),
}

/// One question, with its arguments if anything looks at them.
pub(super) struct Question {
    pub(super) import: &'static str,
    /// What it weighs.
    pub(super) bytes: usize,
    pub(super) arguments: Option<Value>,
}

impl Deck {
    pub(super) const fn recording() -> Self {
        Self::Recording(Vec::new(), 0)
    }

    /// A question; `arguments` is a tuple.
    pub(super) fn question(&self, import: &'static str, bytes: usize, arguments: &impl Serialize) -> Question {
        let arguments = match self {
            Self::Off | Self::TooMuch => None,
            // The contract's types have names that are texts: that cannot fail.
            Self::Recording(..) | Self::Playing(..) => serde_json::to_value(arguments).ok(),
        };
        Question { import, bytes, arguments }
    }

    /// The answer from the tape, if there is one.
    ///
    /// # Errors
    /// The question is not the one that was recorded: the call ends.
    pub(super) fn played<T: DeserializeOwned>(&mut self, question: &Question) -> wasmtime::Result<Option<T>> {
        let Self::Playing(tape, diverged) = self else { return Ok(None) };
        let arguments = question.arguments.as_ref().unwrap_or(&Value::Null);
        match tape.answer(question.import, arguments) {
            Ok(answer) => serde_json::from_value(answer).map(Some).map_err(|error| {
                wasmtime::Error::msg(format!("the recorded answer of `{}` is none: {error}", question.import))
            }),
            Err(other) => {
                let text = other.to_string();
                *diverged = Some(other);
                Err(wasmtime::Error::msg(text))
            }
        }
    }

    /// Writes an answer down, if anybody wants it.
    pub(super) fn record(&mut self, question: Question, answer: &impl Serialize) {
        let Self::Recording(calls, bytes) = self else { return };
        let (Some(arguments), Ok(answer)) = (question.arguments, serde_json::to_value(answer)) else { return };
        *bytes += question.import.len() + arguments.to_string().len() + answer.to_string().len();
        if *bytes > RECORDING_MAX_BYTES {
            *self = Self::TooMuch;
            return;
        }
        calls.push(ImportCall { import: question.import.to_owned(), arguments, answer });
    }
}

/// The calls of one plugin that were asked to be recorded.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    /// So many calls are still to be recorded.
    wanted: AtomicU32,
    kept: Mutex<VecDeque<Recording>>,
}

impl Recorder {
    /// Records the next calls. What was recorded before is forgotten.
    pub(super) fn want(&self, calls: u32) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let most = u32::try_from(RECORDINGS_MAX).unwrap_or(u32::MAX);
        self.wanted.store(calls.min(most), Ordering::Relaxed);
    }

    /// Whether the call that begins now is one of them.
    pub(super) fn takes_one(&self) -> bool {
        if self.wanted.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let one_less = |wanted: u32| wanted.checked_sub(1);
        self.wanted.try_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }

    pub(super) fn keep(&self, recording: Recording) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= RECORDINGS_MAX {
            kept.pop_front();
        }
        kept.push_back(recording);
    }

    /// What was recorded, oldest first.
    pub(super) fn kept(&self) -> Vec<Recording> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::hooks::native::tests::{FixedCatalog, call, request};
    use crate::plugin_host::{PluginHost, RecordedAnswer};

    #[test]
    fn a_call_that_nobody_records_writes_nothing_down() {
        let question = Deck::Off.question("kv.get", 1, &("a",));
        assert_eq!(question.arguments, None);
        assert_eq!(Deck::recording().question("kv.get", 1, &("a",)).arguments, Some(json!(["a"])));
    }

    #[test]
    fn what_is_too_much_is_dropped_and_not_cut() {
        let mut deck = Deck::recording();
        let half = "x".repeat(RECORDING_MAX_BYTES / 2);
        for _ in 0..3 {
            let question = deck.question("log.write", half.len(), &(&half,));
            deck.record(question, &());
        }
        assert!(matches!(deck, Deck::TooMuch));
    }

    #[test]
    fn only_as_many_calls_are_recorded_as_were_wanted() {
        let recorder = Recorder::default();
        assert!(!recorder.takes_one());
        recorder.want(2);
        assert_eq!([(); 3].map(|()| recorder.takes_one()), [true, true, false]);
    }

    /// What the default plugin was asked once, and what it said.
    async fn recorded() -> (PluginHost, Recording) {
        let host = PluginHost::new(FixedCatalog::with(&["web"], &[])).unwrap();
        let plugin = host.load_default(None, json!({})).await;
        plugin.record(1);
        for state in ["web", "db"] {
            plugin.decide(&call(), &request(state)).await.result.unwrap();
        }
        let mut recordings = plugin.recorded();
        assert_eq!(recordings.len(), 1, "one was wanted");
        (host, serde_json::from_value(recordings.remove(0)).unwrap())
    }

    const DEFAULT: &[u8] = include_bytes!("../../plugins/default/default.wasm");

    #[tokio::test]
    async fn a_recorded_call_replays_byte_for_byte_without_the_core_that_answered_it() {
        let (_, recording) = recorded().await;
        assert_eq!(recording.hook, "boot");
        let asked: Vec<_> = recording.imports.iter().map(|call| (call.import.as_str(), &call.arguments)).collect();
        assert_eq!(asked, [("catalog.has-image", &json!(["web"]))]);
        // This core has no images: only the recording knows of one.
        let elsewhere = PluginHost::new(FixedCatalog::with(&[], &[])).unwrap();
        let replayed = elsewhere.replay(DEFAULT.to_vec(), &recording).await.unwrap();
        assert_eq!(replayed.differences(&recording), Vec::<String>::new());
        assert_eq!(replayed.answer, recording.answer);
    }

    #[tokio::test]
    async fn another_answer_and_other_questions_are_told_apart() {
        let (host, recording) = recorded().await;
        let mut other = recording.clone();
        other.request["host"]["states"] = json!(["db"]);
        let told = host.replay(DEFAULT.to_vec(), &other).await.unwrap().differences(&other);
        assert!(matches!(told.as_slice(), [one] if one.contains("question 1") && one.contains("db")), "{told:?}");
        let mut other = recording.clone();
        other.imports[0].answer = json!({"Ok": false});
        let told = host.replay(DEFAULT.to_vec(), &other).await.unwrap().differences(&other);
        assert!(
            matches!(told.as_slice(), [one] if one.contains("asks more") && one.contains("has-template")),
            "{told:?}"
        );
        let mut other = recording.clone();
        other.answer = RecordedAnswer::Answered(json!({"Ok": null}));
        let told = host.replay(DEFAULT.to_vec(), &other).await.unwrap().differences(&other);
        assert!(matches!(told.as_slice(), [one] if one.contains("it answers")), "{told:?}");
        let mut other = recording;
        other.hook = "render".to_owned();
        assert!(host.replay(DEFAULT.to_vec(), &other).await.is_err());
    }
}

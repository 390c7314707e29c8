//! The imports `call` and `log`, which are free.
use crate::hooks::{LogLevel, LogLine, Run};
use crate::plugin_host::contract::kiwispray::plugin::{call, log};
use crate::plugin_host::sandbox::{CallState, LOG_LINES_MAX};

/// No arguments.
const NOTHING: [(); 0] = [];
/// Characters of a log line, of a note, of a field.
const LINE_MAX_CHARS: usize = 1_000;
/// Fields of a log line.
const FIELDS_MAX: usize = 16;
/// Notes of a call.
const NOTES_MAX: usize = 50;
/// The field with which an SDK marks the last words of a panic; its value is the place.
const PANIC_FIELD: &str = "panic";

impl call::Host for CallState {
    async fn id(&mut self) -> wasmtime::Result<String> {
        self.tell(self.question("call.id", 0, &NOTHING), |state| state.call.id.clone())
    }

    async fn attempt(&mut self) -> wasmtime::Result<u32> {
        self.tell(self.question("call.attempt", 0, &NOTHING), |state| state.call.attempt)
    }

    async fn now_ms(&mut self) -> wasmtime::Result<u64> {
        self.tell(self.question("call.now-ms", 0, &NOTHING), |state| state.call.now_ms)
    }

    async fn budget_ms(&mut self) -> wasmtime::Result<u32> {
        self.tell(self.question("call.budget-ms", 0, &NOTHING), |state| {
            u32::try_from(state.left().as_millis()).unwrap_or(u32::MAX)
        })
    }

    async fn dry_run(&mut self) -> wasmtime::Result<bool> {
        self.tell(self.question("call.dry-run", 0, &NOTHING), |state| state.call.run == Run::Dry)
    }

    async fn config(&mut self) -> wasmtime::Result<String> {
        self.tell(self.question("call.config", 0, &NOTHING), |state| state.config.to_string())
    }

    async fn note(&mut self, text: String) -> wasmtime::Result<()> {
        let question = self.question("call.note", text.len(), &(&text,));
        self.tell(question, |state| {
            if state.notes.len() < NOTES_MAX {
                state.notes.push(cut(&text));
            }
        })
    }
}

impl log::Host for CallState {
    async fn write(
        &mut self,
        level: log::Level,
        message: String,
        fields: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        let bytes = message.len() + fields.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        let question = self.question("log.write", bytes, &(&level, &message, &fields));
        self.tell(question, |state| state.write_line(level, &message, &fields))
    }
}

impl CallState {
    fn write_line(&mut self, level: log::Level, message: &str, fields: &[(String, String)]) {
        if let Some((_, place)) = fields.iter().find(|(key, _)| key == PANIC_FIELD) {
            self.panic = Some(format!("panicked at {}: {}", cut(place), cut(message)));
        }
        self.log_lines += 1;
        if self.log_lines > LOG_LINES_MAX {
            if self.log_lines == LOG_LINES_MAX + 1 {
                let plugin = &*self.plugin;
                tracing::warn!(plugin, "plugin writes too many lines; the rest of this call is dropped");
            }
            return;
        }
        let fields: Vec<_> = fields.iter().take(FIELDS_MAX).map(|(key, value)| (cut(key), cut(value))).collect();
        let text = cut(message);
        // Debug formatting escapes what could steer a terminal or fake a line.
        let (plugin, call) = (&*self.plugin, &*self.call.id);
        match level {
            log::Level::Debug => tracing::debug!(plugin, call, ?text, ?fields, "plugin says"),
            log::Level::Info => tracing::info!(plugin, call, ?text, ?fields, "plugin says"),
            log::Level::Warn => tracing::warn!(plugin, call, ?text, ?fields, "plugin says"),
            log::Level::Error => tracing::error!(plugin, call, ?text, ?fields, "plugin says"),
        }
        let (at_ms, hook, call) = (self.call.now_ms, self.hook(), self.call.id.clone());
        self.journal.write(LogLine { number: 0, at_ms, level: level.into(), hook, call, text, fields });
    }
}

impl From<log::Level> for LogLevel {
    fn from(level: log::Level) -> Self {
        match level {
            log::Level::Debug => Self::Debug,
            log::Level::Info => Self::Info,
            log::Level::Warn => Self::Warn,
            log::Level::Error => Self::Error,
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(LINE_MAX_CHARS).collect()
}

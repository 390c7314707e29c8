//! What guests may ask: `call`, `log` and `catalog`. Every function pays first (see [`CallState::pay`]).
use super::contract::kiwispray::plugin::{call, catalog, log, types};
use super::sandbox::{Access, CallState, LOG_LINES_MAX};
use crate::hooks::{Capabilities, CapabilityError, Run};

/// Characters of a log line, of a note, of a field.
const LINE_MAX_CHARS: usize = 1_000;
/// Fields of a log line.
const FIELDS_MAX: usize = 16;
/// Notes of a call.
const NOTES_MAX: usize = 50;
/// The field with which an SDK marks the last words of a panic; its value is the place.
const PANIC_FIELD: &str = "panic";
/// Names in a catalogue are shorter; what is longer need not be looked up.
const NAME_MAX_BYTES: usize = 255;

impl types::Host for CallState {}

impl call::Host for CallState {
    async fn id(&mut self) -> wasmtime::Result<String> {
        self.pay(self.call.id.len())?;
        Ok(self.call.id.clone())
    }

    async fn attempt(&mut self) -> wasmtime::Result<u32> {
        self.pay(0)?;
        Ok(self.call.attempt)
    }

    async fn now_ms(&mut self) -> wasmtime::Result<u64> {
        self.pay(0)?;
        Ok(self.call.now_ms)
    }

    async fn budget_ms(&mut self) -> wasmtime::Result<u32> {
        self.pay(0)?;
        Ok(u32::try_from(self.left().as_millis()).unwrap_or(u32::MAX))
    }

    async fn dry_run(&mut self) -> wasmtime::Result<bool> {
        self.pay(0)?;
        Ok(self.call.run == Run::Dry)
    }

    async fn config(&mut self) -> wasmtime::Result<String> {
        self.pay(self.config.len())?;
        Ok(self.config.to_string())
    }

    async fn note(&mut self, text: String) -> wasmtime::Result<()> {
        self.pay(text.len())?;
        if self.notes.len() < NOTES_MAX {
            self.notes.push(cut(&text));
        }
        Ok(())
    }
}

impl log::Host for CallState {
    async fn write(
        &mut self,
        level: log::Level,
        message: String,
        fields: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        self.pay(message.len() + fields.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>())?;
        if let Some((_, place)) = fields.iter().find(|(key, _)| key == PANIC_FIELD) {
            self.panic = Some(format!("panicked at {}: {}", cut(place), cut(&message)));
        }
        self.log_lines += 1;
        if self.log_lines > LOG_LINES_MAX {
            if self.log_lines == LOG_LINES_MAX + 1 {
                tracing::warn!(
                    plugin = &*self.plugin,
                    "plugin writes too many lines; the rest of this call is dropped"
                );
            }
            return Ok(());
        }
        // Debug formatting escapes what could steer a terminal or fake a line.
        let fields: Vec<_> = fields.iter().take(FIELDS_MAX).map(|(key, value)| (cut(key), cut(value))).collect();
        let (plugin, text) = (&*self.plugin, cut(&message));
        match level {
            log::Level::Debug => tracing::debug!(plugin, ?text, ?fields, "plugin says"),
            log::Level::Info => tracing::info!(plugin, ?text, ?fields, "plugin says"),
            log::Level::Warn => tracing::warn!(plugin, ?text, ?fields, "plugin says"),
            log::Level::Error => tracing::error!(plugin, ?text, ?fields, "plugin says"),
        }
        Ok(())
    }
}

impl catalog::Host for CallState {
    async fn has_image(&mut self, name: String) -> wasmtime::Result<Result<bool, catalog::CatalogError>> {
        self.pay(name.len())?;
        let core = match self.core() {
            Ok(core) if name.len() <= NAME_MAX_BYTES => core,
            Ok(_) => return Ok(Ok(false)),
            Err(denied) => return Ok(Err(denied)),
        };
        Ok(core.has_image(&name).await.map_err(Into::into))
    }

    async fn has_template(&mut self, name: String) -> wasmtime::Result<Result<bool, catalog::CatalogError>> {
        self.pay(name.len())?;
        let core = match self.core() {
            Ok(core) if name.len() <= NAME_MAX_BYTES => core,
            Ok(_) => return Ok(Ok(false)),
            Err(denied) => return Ok(Err(denied)),
        };
        Ok(core.has_template(&name).await.map_err(Into::into))
    }

    async fn images(&mut self) -> wasmtime::Result<Result<Vec<String>, catalog::CatalogError>> {
        self.pay(0)?;
        let core = match self.core() {
            Ok(core) => core,
            Err(denied) => return Ok(Err(denied)),
        };
        let images = core.images().await;
        self.pay(images.as_ref().map_or(0, |names| names.iter().map(String::len).sum()))?;
        Ok(images.map_err(Into::into))
    }
}

impl CallState {
    fn core(&self) -> Result<std::sync::Arc<dyn Capabilities>, catalog::CatalogError> {
        match &self.access {
            Access::Core(core) => Ok(core.clone()),
            Access::Nothing => {
                Err(catalog::CatalogError::Denied("nothing can be asked while a plugin is loaded".to_owned()))
            }
        }
    }
}

impl From<CapabilityError> for catalog::CatalogError {
    fn from(error: CapabilityError) -> Self {
        match error {
            CapabilityError::Denied(why) => Self::Denied(why),
            CapabilityError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(LINE_MAX_CHARS).collect()
}

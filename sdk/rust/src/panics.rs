//! Panics speak before they trap.
//!
//! A guest for `wasm32-unknown-unknown` cannot unwind: a panic ends in a bare trap. So the panic hook writes what happened
//! and where as a log line with the field [`FIELD`]; the core takes a trap after such a line as `failed` with that text.
use std::sync::Once;

use crate::bindings::log::Level;

/// The field, holding `file:line:column`, that marks a log line as the last words of a panic.
pub const FIELD: &str = "panic";

/// Makes panics log themselves, once per instance.
pub fn log_them() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            let text = panic
                .payload()
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.payload().downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "a panic without a text".to_owned());
            let place = panic.location().map_or_else(String::new, ToString::to_string);
            crate::ask::log(Level::Error, &text, &[(FIELD, &place)]);
        }));
    });
}

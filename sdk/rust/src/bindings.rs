//! Generated from `sdk/wit`: one world per hook, so that a plugin exports just the hooks it names, over one shared set of
//! types. Plugins use what the crate root re-exports, never this module.
#![allow(
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "generated"
)]

pub mod imports {
    wit_bindgen::generate!({
        path: "../wit/0.1.0",
        world: "imports",
        additional_derives: [PartialEq, Clone, serde::Serialize, serde::Deserialize],
    });
}

pub use imports::kiwispray::plugin::{call, catalog, hosts, http, kv, log, signing, types};

macro_rules! hook_world {
    ($module:ident, $world:literal, $export:literal) => {
        pub mod $module {
            wit_bindgen::generate!({
                path: "../wit/0.1.0",
                world: $world,
                pub_export_macro: true,
                export_macro_name: $export,
                with: { "kiwispray:plugin/types@0.1.0": crate::bindings::types },
            });
        }
    };
}

hook_world!(about, "hook-about", "export_about");
hook_world!(boot, "hook-boot", "export_boot");
hook_world!(discovery, "hook-discovery", "export_discovery");
hook_world!(render, "hook-render", "export_render");
hook_world!(transition, "hook-transition", "export_transition");
hook_world!(events, "hook-events", "export_events");
hook_world!(schedule, "hook-schedule", "export_schedule");

pub use about::export_about;
pub use boot::export_boot;
pub use discovery::export_discovery;
pub use events::export_events;
pub use render::export_render;
pub use schedule::export_schedule;
pub use transition::export_transition;

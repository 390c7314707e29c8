//! Generated from `sdk/wit`. Imports are asynchronous and may end the call.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::todo,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "generated"
)]

wasmtime::component::bindgen!({
    path: "sdk/wit/0.1.0",
    world: "plugin",
    imports: { default: async | trappable },
    exports: { default: async },
    // Calls are recorded as the guest saw them: in the contract's own types.
    additional_derives: [serde::Serialize, serde::Deserialize],
});

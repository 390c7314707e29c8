//! Plugins that do harm: core modules in text, encoded as components over the real contract.

/// A plugin that loads, and runs this whenever it is asked what a host should boot.
pub(crate) fn deciding_by(body: &str) -> Vec<u8> {
    asked_in(&["boot"], body)
}

/// A plugin that loads, and runs this whenever it is asked in one of these hooks: `boot`, `transition` and `events`.
pub(crate) fn asked_in(hooks: &[&str], body: &str) -> Vec<u8> {
    let hook = |hook: &&str| {
        let (function, parameters) = match *hook {
            "boot" => ("decide", "i32"),
            "transition" => ("before", "i32"),
            _ => ("handle", "i32 i32"),
        };
        let name = format!("kiwispray:plugin/{hook}@0.1.0#{function}");
        format!("(func (export \"{name}\") (param {parameters}) (result i32) {body} (i32.const 4096))")
    };
    let functions: String = hooks.iter().map(hook).collect();
    let includes: String = hooks.iter().map(|hook| format!("include kiwispray:plugin/hook-{hook}@0.1.0;\n")).collect();
    let kinds = if hooks.contains(&"events") { r"\40\04\00\00\01\00\00\00" } else { r"\00\00\00\00\00\00\00\00" };
    // It describes itself with a record of strings at 1024; zeros at 4096 are `ok(pass)` and `ok(allow)`.
    let text = format!(
        r#"(module
          (memory (export "memory") 2)
          (global $heap (mut i32) (i32.const 65536))
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
            (local $at i32)
            (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
            (global.set $heap (i32.add (local.get $at) (local.get 3)))
            (local.get $at))
          (data (i32.const 16) "hostile\00") (data (i32.const 24) "1") (data (i32.const 32) "{{}}") (data (i32.const 36) "*")
          (data (i32.const 1024) "\10\00\00\00\07\00\00\00" "\18\00\00\00\01\00\00\00" "\00\00\00\00\00\00\00\00"
            "\20\00\00\00\02\00\00\00" "{kinds}" "\00\00\00\00\00\00\00\00" "\20\00\00\00\02\00\00\00")
          (data (i32.const 1088) "\24\00\00\00\01\00\00\00")
          (func (export "kiwispray:plugin/about@0.1.0#describe") (result i32) (i32.const 1024))
          (func (export "kiwispray:plugin/about@0.1.0#check-config") (param i32 i32) (result i32) (i32.const 4096))
          {functions})"#
    );
    let mut module = wat::parse_str(text).unwrap();
    let mut contract = wit_parser::Resolve::default();
    contract.push_str("plugin.wit", include_str!("../../sdk/wit/0.1.0/plugin.wit")).unwrap();
    let world = format!(
        "package test:guest; world guest {{
            include kiwispray:plugin/imports@0.1.0;
            include kiwispray:plugin/hook-about@0.1.0;
            {includes}
        }}"
    );
    let package = contract.push_str("guest.wit", &world).unwrap();
    let world = contract.select_world(&[package], None).unwrap();
    let encoding = wit_component::StringEncoding::UTF8;
    wit_component::embed_component_metadata(&mut module, &contract, world, encoding, false).unwrap();
    wit_component::ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}

//! Guests that behave, and guests that do what they can to hurt. The hostile ones are core modules in text, encoded here as
//! components over the real contract; each is hostile to host 7 only, so that the next call can be seen to work.
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::json;
use sha2::Digest as _;

use super::*;
use crate::hooks::native::NativeDefault;
use crate::hooks::native::tests::{FixedCatalog, call, host, request};
use crate::hooks::{
    BootAnswer, BootPlan, BootRequest, BootVerdict, Call, CapabilityError, DecidedBy, ErrorClass, HookError, Hooks,
    PluginStatus, TraceResult, measure,
};

mod guests;

/// What a budget of 200 ms may become on a busy machine before a test fails.
const SLACK: Duration = Duration::from_millis(1_500);

fn plugin_host() -> PluginHost {
    PluginHost::new(FixedCatalog::with(&["web", "both"], &["both", "memtest"])).unwrap()
}

/// A guest that passes, but first runs `hostile` for host 7. `imports` and `items` go into the module.
fn guest(imports: &str, items: &str, hostile: &str) -> Vec<u8> {
    let contract = fs::read_to_string("sdk/wit/0.1.0/plugin.wit").unwrap();
    encode(&contract, "", imports, items, hostile)
}

fn encode(contract: &str, world: &str, imports: &str, items: &str, hostile: &str) -> Vec<u8> {
    encode_text(contract, world, &text(imports, items, hostile))
}

fn text(imports: &str, items: &str, hostile: &str) -> String {
    format!(
        r#"(module
          {imports}
          (memory (export "memory") 2)
          (global $heap (mut i32) (i32.const 65536))
          (func (export "cabi_realloc") (param $old i32) (param $size i32) (param $align i32) (param $new i32) (result i32)
            (local $at i32)
            (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
            (global.set $heap (i32.add (local.get $at) (local.get $new)))
            (local.get $at))
          (data (i32.const 16) "hostile\00") (data (i32.const 24) "1") (data (i32.const 32) "{{}}")
          ;; The description: name, version, summary, schema, events, jobs, more.
          (data (i32.const 1024) "\10\00\00\00\07\00\00\00" "\18\00\00\00\01\00\00\00" "\00\00\00\00\00\00\00\00"
            "\20\00\00\00\02\00\00\00" "\00\00\00\00\00\00\00\00" "\00\00\00\00\00\00\00\00" "\20\00\00\00\02\00\00\00")
          (func (export "kiwispray:plugin/about@0.1.0#describe") (result i32) (i32.const 1024))
          (func (export "kiwispray:plugin/about@0.1.0#check-config") (param i32 i32) (result i32) (i32.const 4096))
          {items}
          ;; The request begins with the host's id. Zeros at 4096 are `ok(pass)`.
          (func (export "kiwispray:plugin/boot@0.1.0#decide") (param $request i32) (result i32)
            (if (i64.eq (i64.load (local.get $request)) (i64.const 7)) (then {hostile}))
            (i32.const 4096)))"#
    )
}

fn encode_text(contract: &str, world: &str, text: &str) -> Vec<u8> {
    let mut module = wat::parse_str(text).unwrap();
    let mut resolve = wit_parser::Resolve::default();
    resolve.push_str("plugin.wit", contract).unwrap();
    let world = format!(
        "package test:guest; interface stranger {{ knock: func(); }}
         world guest {{
           include kiwispray:plugin/imports@0.1.0;
           include kiwispray:plugin/hook-about@0.1.0;
           include kiwispray:plugin/hook-boot@0.1.0;
           {world}
         }}"
    );
    let package = resolve.push_str("guest.wit", &world).unwrap();
    let world = resolve.select_world(&[package], None).unwrap();
    wit_component::embed_component_metadata(&mut module, &resolve, world, wit_component::StringEncoding::UTF8, false)
        .unwrap();
    wit_component::ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}

const LOG: &str = r#"(import "kiwispray:plugin/log@0.1.0" "write" (func $log (param i32 i32 i32 i32 i32)))"#;

async fn load(host: &PluginHost, bytes: Vec<u8>, grants: &[Interface]) -> Result<Arc<dyn Plugin>, LoadError> {
    let imports = grants.iter().copied().collect();
    host.load(Component { imports, ..component("guest", bytes) }).await
}

fn component(name: &str, bytes: Vec<u8>) -> Component {
    Component {
        name: name.to_owned(),
        origin: "test".to_owned(),
        bytes,
        imports: BTreeSet::new(),
        grants: Grants::default(),
        http: vec![],
        signing: BTreeMap::new(),
        config: json!({}),
    }
}

async fn refusal(bytes: Vec<u8>, grants: &[Interface]) -> LoadError {
    match load(&plugin_host(), bytes, grants).await {
        Ok(_) => panic!("was loaded"),
        Err(error) => error,
    }
}

/// What a guest's hostility ends in, in time; and that the next call is answered.
async fn ends_in(bytes: Vec<u8>) -> HookError {
    let host = plugin_host();
    let plugin = load(&host, bytes, &[Interface::Catalog]).await.unwrap();
    let start = Instant::now();
    let error = plugin.decide(&call(), &request("web")).await.result.unwrap_err();
    assert!(start.elapsed() < call().budget + SLACK, "{:?}", start.elapsed());
    let mut other = request("web");
    other.host.id = 8;
    assert_eq!(plugin.decide(&call(), &other).await.result.unwrap().verdict, BootVerdict::Pass);
    error
}

#[tokio::test]
async fn a_trap_ends_its_call_only() {
    assert!(matches!(ends_in(guest("", "", "unreachable")).await, HookError::Trap(_)));
}

#[tokio::test]
async fn endless_recursion_is_a_trap() {
    let items = "(func $deep (param i64) (result i64) (i64.add (call $deep (i64.add (local.get 0) (i64.const 1))) (i64.const 1)))";
    let error = ends_in(guest("", items, "(drop (call $deep (i64.const 0)))")).await;
    assert!(matches!(error, HookError::Trap(text) if text.contains("stack")));
}

#[tokio::test]
async fn an_endless_loop_runs_out_of_time_and_does_not_hold_up_the_executor() {
    let ticks = tokio::spawn(async {
        for n in 0.. {
            tokio::time::sleep(Duration::from_millis(10)).await;
            if n == 5 {
                return Instant::now();
            }
        }
        unreachable!()
    });
    let start = Instant::now();
    let error = ends_in(guest("", "", "(loop $again (br $again))")).await;
    assert!(matches!(error, HookError::Timeout { .. }));
    // This runtime has one thread: had the guest kept it, the other task would have ended after it.
    assert!(ticks.await.unwrap() < start + call().budget + SLACK);
}

#[tokio::test]
async fn an_endless_loop_in_start_code_is_refused_in_time() {
    let start = Instant::now();
    let error = refusal(guest("", "(func $begin (loop $again (br $again))) (start $begin)", ""), &[]).await;
    assert!(matches!(error, LoadError::About(HookError::Timeout { .. })));
    assert!(start.elapsed() < Duration::from_millis(200) + SLACK);
}

#[tokio::test]
async fn memory_grows_to_its_limit_and_no_further() {
    let hostile = "(loop $again (drop (memory.grow (i32.const 16))) (br $again))";
    assert!(matches!(ends_in(guest("", "", hostile)).await, HookError::Memory { .. }));
}

#[tokio::test]
async fn a_flood_of_log_lines_ends_the_call() {
    for bytes in [0, 60_000] {
        let hostile = format!(
            "(loop $again (call $log (i32.const 1) (i32.const 0) (i32.const {bytes}) (i32.const 0) (i32.const 0)) (br $again))"
        );
        assert!(matches!(ends_in(guest(LOG, "", &hostile)).await, HookError::Flood(_)), "{bytes}");
    }
}

#[tokio::test]
async fn the_last_words_of_a_panic_become_its_reason() {
    // A field `panic` with the place, then the trap: what the SDK's panic hook does.
    let items = r#"(data (i32.const 2048) "no rack") (data (i32.const 2064) "panic") (data (i32.const 2072) "lib.rs:7")
                   (data (i32.const 2080) "\10\08\00\00\05\00\00\00" "\18\08\00\00\08\00\00\00")"#;
    let hostile = "(call $log (i32.const 3) (i32.const 2048) (i32.const 7) (i32.const 2080) (i32.const 1)) unreachable";
    assert_eq!(
        ends_in(guest(LOG, items, hostile)).await,
        HookError::Failed("panicked at lib.rs:7: no rack".to_owned())
    );
}

#[tokio::test]
async fn answers_that_are_no_values_are_bad_answers() {
    let answers = [
        ("a pointer to nowhere", "(return (i32.const -16))"),
        ("a pointer out of line", "(return (i32.const 3))"),
        ("an unknown case", "(i32.store8 (i32.const 4096) (i32.const 7))"),
        ("an unknown verdict", "(i32.store8 (i32.const 4100) (i32.const 9))"),
        (
            "an error that is no UTF-8",
            "(i32.store8 (i32.const 4096) (i32.const 1)) (i32.store8 (i32.const 4104) (i32.const 0))
            (i32.store8 (i32.const 4100) (i32.const 2)) (i32.store (i32.const 4104) (i32.const 6000))
            (i32.store8 (i32.const 6000) (i32.const 255)) (i32.store (i32.const 4108) (i32.const 1))",
        ),
    ];
    for (what, hostile) in answers {
        let error = ends_in(guest("", "", hostile)).await;
        assert!(matches!(error, HookError::BadAnswer(_) | HookError::Trap(_)), "{what}: {error:?}");
    }
}

#[tokio::test]
async fn a_huge_answer_is_refused_before_it_is_copied() {
    // `err(failed(text))` with a text of the whole memory, grown first.
    let hostile = "(drop (memory.grow (i32.const 300))) (i32.store8 (i32.const 4096) (i32.const 1))
        (i32.store8 (i32.const 4100) (i32.const 2)) (i32.store (i32.const 4104) (i32.const 0))
        (i32.store (i32.const 4108) (i32.const 19000000))";
    let error = ends_in(guest("", "", hostile)).await;
    assert!(matches!(error, HookError::Flood(_)), "{error:?}");
}

#[tokio::test]
async fn an_import_that_never_answers_runs_out_of_time() {
    struct Silent;
    impl Capabilities for Silent {
        fn has_image<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<bool, CapabilityError>> {
            std::future::pending().boxed()
        }
        fn has_template<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<bool, CapabilityError>> {
            std::future::pending().boxed()
        }
        fn images(&self) -> BoxFuture<'_, Result<Vec<String>, CapabilityError>> {
            std::future::pending().boxed()
        }
    }
    let host = PluginHost::new(Arc::new(Silent)).unwrap();
    let plugin = host.load_default(None, json!({})).await;
    let error = plugin.decide(&call(), &request("web")).await.result.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Timeout);
}

#[tokio::test]
async fn a_missing_grant_is_named() {
    let imports = r#"(import "kiwispray:plugin/kv@0.1.0" "get" (func $get (param i32 i32 i32)))"#;
    // Passes only if the answer is `err(denied(…))`.
    let hostile = "(call $get (i32.const 0) (i32.const 0) (i32.const 8192))
        (if (i32.or (i32.ne (i32.load8_u (i32.const 8192)) (i32.const 1)) (i32.load8_u (i32.const 8200))) (then unreachable))";
    let bytes = guest(imports, "", hostile);
    let error = refusal(bytes.clone(), &[Interface::Catalog]).await;
    assert_eq!(error, LoadError::MissingGrant(Interface::Kv));
    assert_eq!(error.to_string(), "needs `kv`, which it was not granted");

    let host = plugin_host();
    let plugin = load(&host, bytes, &[Interface::Kv]).await.unwrap();
    assert_eq!(plugin.decide(&call(), &request("web")).await.result.unwrap().verdict, BootVerdict::Pass);
}

#[tokio::test]
async fn an_import_from_elsewhere_is_named() {
    let contract = fs::read_to_string("sdk/wit/0.1.0/plugin.wit").unwrap();
    let imports = r#"(import "test:guest/stranger" "knock" (func $knock))"#;
    let error = refusal(encode(&contract, "import stranger;", imports, "", "(call $knock)"), &[]).await;
    assert_eq!(error, LoadError::UnknownImport("test:guest/stranger".to_owned()));
}

#[tokio::test]
async fn a_hook_of_another_shape_is_found_when_it_is_loaded() {
    let contract = fs::read_to_string("sdk/wit/0.1.0/plugin.wit").unwrap();
    let other = contract.replace("again-after-ms: option<u32>", "again-after-ms: option<u64>");
    assert_ne!(contract, other);
    let error = refusal(encode(&other, "", "", "", ""), &[]).await;
    assert!(matches!(error, LoadError::OtherContract(_)), "{error}");
}

#[tokio::test]
async fn broken_bytes_are_refused() {
    let truncated = EMBEDDED_DEFAULT[..EMBEDDED_DEFAULT.len() / 2].to_vec();
    let module = wat::parse_str("(module)").unwrap();
    for bytes in [Vec::new(), b"#!/bin/sh\nexit 0\n".to_vec(), module, truncated] {
        assert!(matches!(refusal(bytes, &[]).await, LoadError::NotAComponent(_)));
    }
}

#[tokio::test]
async fn the_default_component_and_its_native_double_answer_alike() {
    let host = plugin_host();
    for discover in [false, true] {
        let component = host.load_default(None, json!({ "discover": discover })).await;
        assert!(component.status().is_ready(), "{:?}", component.status());
        let native = NativeDefault::new(FixedCatalog::with(&["web", "both"], &["both", "memtest"]), discover);
        assert_eq!((component.name(), component.hooks()), (native.name(), native.hooks()));
        for state in ["new", "web", "both", "memtest", "nothing", "discover"] {
            let request = request(state);
            assert_eq!(component.decide(&call(), &request).await, native.decide(&call(), &request).await);
            assert_eq!(component.discovered(&call(), &request).await, native.discovered(&call(), &request).await);
        }
    }
}

#[tokio::test]
async fn a_catalogue_that_is_down_means_try_again() {
    let down = Arc::new(FixedCatalog { down: true, ..FixedCatalog::default() });
    let plugin = PluginHost::new(down).unwrap().load_default(None, json!({})).await;
    let error = plugin.decide(&call(), &request("web")).await.result.unwrap_err();
    assert!(matches!(error, HookError::Retry { .. }), "{error:?}");
    assert!(plugin.decide(&call(), &request("new")).await.result.is_ok());
}

#[tokio::test]
async fn a_wrong_configuration_makes_the_default_plugin_unavailable_and_says_where() {
    let plugin = plugin_host().load_default(None, json!({"dicsover": true})).await;
    let PluginStatus::Unavailable { why, .. } = plugin.status() else { panic!("it is ready") };
    assert!(why.contains("dicsover"), "{why}");
}

#[tokio::test]
async fn a_file_in_the_plugins_folder_replaces_the_embedded_default() {
    let dir = tempfile::tempdir().unwrap();
    let host = plugin_host();
    let origin = |plugin: Arc<dyn Plugin>| match plugin.status() {
        PluginStatus::Ready { origin, .. } | PluginStatus::Unavailable { origin, .. } => origin,
        other @ (PluginStatus::Degraded { .. } | PluginStatus::Disabled) => panic!("{other:?}"),
    };
    assert_eq!(origin(host.load_default(Some(dir.path()), json!({})).await), "embedded");
    assert_eq!(origin(host.load_default(Some(&dir.path().join("none")), json!({})).await), "embedded");
    let flat = dir.path().join("default.wasm");
    fs::write(&flat, EMBEDDED_DEFAULT).unwrap();
    assert_eq!(origin(host.load_default(Some(dir.path()), json!({})).await), flat.display().to_string());
    fs::create_dir(dir.path().join("default")).unwrap();
    let nested = dir.path().join("default/default.wasm");
    fs::write(&nested, guest("", "", "")).unwrap();
    let plugin = host.load_default(Some(dir.path()), json!({})).await;
    assert_eq!(plugin.decide(&call(), &request("web")).await.result.unwrap().verdict, BootVerdict::Pass);
    assert_eq!(origin(plugin), nested.display().to_string());
}

#[tokio::test]
async fn with_the_default_broken_trapping_or_looping_hosts_hold_and_finished_ones_boot_within_two_seconds() {
    let broken = b"broken".to_vec();
    let trapping = guest("", "", "unreachable");
    let looping = guest("", "", "(loop $again (br $again))");
    for (bytes, class) in
        [(broken, ErrorClass::Unavailable), (trapping, ErrorClass::Trap), (looping, ErrorClass::Timeout)]
    {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("default.wasm"), bytes).unwrap();
        let host = plugin_host();
        let hooks = Hooks::new(vec![], host.load_default(Some(dir.path()), json!({})).await);
        let start = Instant::now();
        let waiting = hooks.decide_boot(call(), request("web")).await;
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        assert!(matches!(waiting.answer, BootAnswer::Hold(_)), "{class}: {:?}", waiting.answer);
        assert_eq!(waiting.decided_by, DecidedBy::FailureOf("default".into()));
        assert!(matches!(waiting.trace.steps[0].result, TraceResult::Error { class: said, .. } if said == class));
        let finished = hooks.decide_boot(call(), request("finished")).await;
        assert_eq!(finished.answer, BootAnswer::Boot(BootPlan::LocalDisk));
    }
}

#[tokio::test]
async fn more_calls_than_places_wait_for_their_turn() {
    // Loading, too, works from any task.
    let plugin = tokio::spawn(async { plugin_host().load_default(None, json!({})).await }).await.unwrap();
    let request = request("web");
    let call = Call { budget: Duration::from_secs(5), ..call() };
    let answers = futures_util::future::join_all((0..200).map(|_| plugin.decide(&call, &request))).await;
    assert!(answers.iter().all(|answer| answer.result.is_ok()));
}

#[tokio::test]
async fn a_host_with_much_metadata_is_decided_as_well() {
    let plugin = plugin_host().load_default(None, json!({})).await;
    let mut host = host("web");
    host.metadata.insert("inventory".into(), json!("x".repeat(256 << 10)));
    let request = BootRequest { host, facts: vec![] };
    assert!(plugin.decide(&call(), &request).await.result.is_ok());
}

#[tokio::test]
async fn deciding_is_measured() {
    let start = Instant::now();
    let plugin = plugin_host().load_default(None, json!({})).await;
    println!("the default component is loaded after {:?}", start.elapsed());
    let measured = measure::boot_decide(&*plugin, &call(), &request("web"), 300).await.unwrap();
    println!("boot.decide by the default component: {measured:?}");
    assert!(measured.median <= measured.p99 && measured.calls == 300);
}

#[tokio::test]
async fn fifty_plugins_load_from_the_cache_in_under_half_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("code");
    // A section that means nothing makes each another component.
    let named = |n: u8| [EMBEDDED_DEFAULT, &[0, 3, 1, b'n', n]].concat();
    let load = async |host: &PluginHost, n| {
        let imports = BTreeSet::from([Interface::Catalog]);
        host.load(Component { imports, ..component(&format!("plugin{n}"), named(n)) }).await
    };
    let host = plugin_host().with_cache(&folder);
    let start = Instant::now();
    load(&host, 0).await.unwrap();
    let compiled = start.elapsed();
    // The others have the same code: that they were compiled, too, would only take time.
    let code = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    for n in 1..50 {
        let sha256: String = sha2::Sha256::digest(named(n)).iter().map(|byte| format!("{byte:02x}")).collect();
        let name = code.file_name().unwrap().to_str().unwrap();
        fs::copy(&code, folder.join(format!("{sha256}{}", &name[64..]))).unwrap();
    }
    let host = plugin_host().with_cache(&folder);
    let start = Instant::now();
    let loaded = futures_util::future::join_all((0..50).map(|n| load(&host, n))).await;
    let cached = start.elapsed();
    assert!(loaded.iter().all(Result::is_ok));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 50, "nothing was compiled");
    println!("one plugin is compiled in {compiled:?}, 50 are loaded from the cache in {cached:?}");
    assert!(cached < Duration::from_millis(500), "{cached:?}");
}

#[tokio::test]
async fn the_lines_of_a_plugin_are_kept_with_their_call() {
    let host = plugin_host();
    let items = r#"(data (i32.const 2048) "no rack") (data (i32.const 2064) "place") (data (i32.const 2072) "fra1")
                   (data (i32.const 2080) "\10\08\00\00\05\00\00\00" "\18\08\00\00\04\00\00\00")"#;
    let hostile = "(call $log (i32.const 2) (i32.const 2048) (i32.const 7) (i32.const 2080) (i32.const 1))";
    let plugin = load(&host, guest(LOG, items, hostile), &[]).await.unwrap();
    plugin.decide(&call(), &request("web")).await.result.unwrap();
    let [line] = host.log_lines("guest").try_into().unwrap();
    assert_eq!(
        (line.level, line.hook, line.call.as_str(), line.at_ms),
        (crate::hooks::LogLevel::Warn, Some(Hook::Boot), "c1", call().now_ms)
    );
    assert_eq!((line.text.as_str(), line.fields), ("no rack", vec![("place".to_owned(), "fra1".to_owned())]));
}

#[tokio::test]
async fn the_lines_of_a_plugin_that_does_not_load_are_kept_too() {
    let host = plugin_host().with_clock(|| 1_700_000_000_000);
    let describes = r#"#describe") (result i32)"#;
    let says = "(call $log (i32.const 3) (i32.const 2048) (i32.const 7) (i32.const 0) (i32.const 0)) unreachable";
    let text = text(LOG, r#"(data (i32.const 2048) "no rack")"#, "").replace(describes, &format!("{describes} {says}"));
    let contract = fs::read_to_string("sdk/wit/0.1.0/plugin.wit").unwrap();
    assert!(matches!(load(&host, encode_text(&contract, "", &text), &[]).await, Err(LoadError::About(_))));
    let [line] = host.log_lines("guest").try_into().unwrap();
    assert_eq!((line.text.as_str(), line.hook, line.at_ms), ("no rack", None, 1_700_000_000_000));
}

//! The guest of `tests/guests`, built from source, against the real host: whatever it tries, its call ends in time and within
//! its memory, what it must not have it is refused, and its next call works.
use std::env;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::hooks::{
    Allowance, Event, Expect, Grant, HostsError, KnownHost, KvError, Patch, RenderRequest, Reply, TransitionRequest,
};

/// How much the whole process may grow by a call: the guest's 32 MiB, and room for tests that run beside this one.
const GROWTH_MAX_BYTES: usize = 400 << 20;

/// The component, built once. A machine that cannot build it fails the tests: they must not pass unrun.
fn hostile() -> Vec<u8> {
    static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
    BUILT.get_or_init(build).clone()
}

fn build() -> Vec<u8> {
    const TARGET: &str = "wasm32-unknown-unknown";
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from).join("guests");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for flags in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS"] {
        cargo.env_remove(flags);
    }
    cargo.current_dir(root.join("tests/guests")).args(["build", "--quiet", "--locked", "--release"]);
    let built = cargo.args(["--target", TARGET, "--target-dir"]).arg(&target).status().unwrap();
    assert!(built.success(), "tests/guests does not build: is the target there? `rustup target add {TARGET}`");
    let module = fs::read(target.join(TARGET).join("release/hostile.wasm")).unwrap();
    wit_component::ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}

/// A core with host 7, which is finished. It asks the call's allowance as the real one does, and counts what it would do.
#[derive(Default)]
struct Core {
    changed: AtomicU32,
}

impl Capabilities for Core {
    fn has_image<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<bool, CapabilityError>> {
        async { Ok(true) }.boxed()
    }
    fn has_template<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<bool, CapabilityError>> {
        async { Ok(true) }.boxed()
    }
    fn images(&self) -> BoxFuture<'_, Result<Vec<String>, CapabilityError>> {
        async { Ok(vec![]) }.boxed()
    }
    fn host<'a>(&'a self, by: &'a Allowance, _: u64) -> BoxFuture<'a, Result<KnownHost, HostsError>> {
        async {
            by.may_read().map_err(|denied| HostsError::Denied(denied.to_string()))?;
            Ok(host("finished"))
        }
        .boxed()
    }
    fn apply<'a>(
        &'a self,
        by: &'a Allowance,
        _: u64,
        _: u64,
        patch: Patch,
    ) -> BoxFuture<'a, Result<KnownHost, HostsError>> {
        async move {
            by.may_apply(&patch, true).map_err(|denied| HostsError::Denied(denied.to_string()))?;
            self.changed.fetch_add(1, Ordering::Relaxed);
            Ok(host("finished"))
        }
        .boxed()
    }
    fn kv_put<'a>(
        &'a self,
        by: &'a Allowance,
        _: &'a str,
        _: Vec<u8>,
        _: Expect,
    ) -> BoxFuture<'a, Result<u64, KvError>> {
        async move {
            by.may_write_kv().map_err(|denied| KvError::Denied(denied.to_string()))?;
            self.changed.fetch_add(1, Ordering::Relaxed);
            Ok(1)
        }
        .boxed()
    }
}

fn playing(trick: &str, url: &str) -> Component {
    Component {
        imports: Interface::ALL.into(),
        config: json!({ "trick": trick, "url": url }),
        ..component("hostile", hostile())
    }
}

fn resident_bytes() -> usize {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Has a plugin do its trick in the hook `schedule`, with a second for it. Answers the error; the next call is seen to work.
async fn plays(component: Component) -> HookError {
    let host = PluginHost::new(Arc::new(Core::default())).unwrap();
    let plugin = host.load(component).await.unwrap();
    let call = Call { budget: Duration::from_secs(1), ..call() };
    let (begun, before) = (Instant::now(), resident_bytes());
    let error = plugin.run(&call, "harm").await.result.unwrap_err();
    assert!(begun.elapsed() < call.budget + SLACK, "{:?}", begun.elapsed());
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_MAX_BYTES, "{grown} bytes more");
    plugin.run(&Call { attempt: 2, ..call }, "harm").await.result.unwrap();
    error
}

fn change() -> TransitionRequest {
    let (to, cause, actor) = (vec!["web".to_owned()], "operator".to_owned(), String::new());
    TransitionRequest { host: host("finished"), to, cause, actor }
}

#[tokio::test]
async fn a_panic_in_any_hook_ends_that_call_only() {
    let host = PluginHost::new(Arc::new(Core::default())).unwrap();
    let plugin = host.load(playing("panic", "")).await.unwrap();
    assert_eq!(plugin.hooks(), HookSet::from(Hook::ALL));
    let known = super::host("web");
    let render = RenderRequest { host: known.clone(), document: "post-install".into(), vars: Default::default() };
    let (id, kind) = ("7-1".to_owned(), "finished".to_owned());
    let events = [Event { id, host_seq: 1, at_ms: 1, kind, host: Some(known), detail: Default::default() }];
    fn class<T>(reply: Reply<T>) -> Option<(ErrorClass, bool)> {
        let error = reply.result.err()?;
        Some((error.class(), error.to_string().contains("on purpose")))
    }
    for (attempt, expected) in [(1, Some((ErrorClass::Failed, true))), (2, None)] {
        let call = Call { attempt, budget: Duration::from_secs(1), ..call() };
        assert_eq!(class(plugin.decide(&call, &request("web")).await), expected);
        assert_eq!(class(plugin.discovered(&call, &request("new")).await), expected);
        assert_eq!(class(plugin.variables(&call, &render).await), expected);
        assert_eq!(class(plugin.before(&call, &change()).await), expected);
        assert_eq!(class(plugin.handle(&call, &events).await), expected);
        assert_eq!(class(plugin.run(&call, "harm").await), expected);
    }
}

#[tokio::test]
async fn what_never_ends_or_takes_too_much_is_ended() {
    let expected = [
        ("memory", &[ErrorClass::Memory] as &[_]),
        ("loop", &[ErrorClass::Timeout]),
        ("ask-forever", &[ErrorClass::Timeout, ErrorClass::Flood]),
        ("sign-forever", &[ErrorClass::Timeout, ErrorClass::Flood]),
        ("log-forever", &[ErrorClass::Timeout, ErrorClass::Flood]),
        ("note-forever", &[ErrorClass::Timeout, ErrorClass::Flood]),
        ("huge-answer", &[ErrorClass::Flood, ErrorClass::Memory]),
    ];
    for (trick, classes) in expected {
        let error = plays(playing(trick, "")).await;
        assert!(classes.contains(&error.class()), "{trick}: {error}");
    }
}

#[tokio::test]
async fn one_string_in_four_thousand_places_is_not_copied_four_thousand_times() {
    // Fields of a log line, all with the same megabyte as their name: 4 GB, if anybody copied it.
    let hostile = "(drop (memory.grow (i32.const 20)))
        (loop $again
          (i32.store (i32.add (i32.const 131072) (global.get $at)) (i32.const 262144))
          (i32.store (i32.add (i32.const 131076) (global.get $at)) (i32.const 1000000))
          (i32.store (i32.add (i32.const 131080) (global.get $at)) (i32.const 0))
          (i32.store (i32.add (i32.const 131084) (global.get $at)) (i32.const 0))
          (global.set $at (i32.add (global.get $at) (i32.const 16)))
          (br_if $again (i32.lt_u (global.get $at) (i32.const 64000))))
        (call $log (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 131072) (i32.const 4000))";
    let before = resident_bytes();
    let error = ends_in(guest(LOG, "(global $at (mut i32) (i32.const 0))", hostile)).await;
    assert!(matches!(error, HookError::Flood(_)), "{error}");
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_MAX_BYTES, "{grown} bytes more");
}

#[tokio::test]
async fn each_import_that_was_not_granted_is_named() {
    let host = PluginHost::new(Arc::new(Core::default())).unwrap();
    for missing in Interface::ALL {
        let component = playing("nothing", "");
        let imports = component.imports.iter().copied().filter(|import| *import != missing).collect();
        match host.load(Component { imports, ..component }).await {
            Ok(_) => panic!("was loaded without {missing}"),
            Err(error) => assert_eq!(error, LoadError::MissingGrant(missing)),
        }
    }
}

#[tokio::test]
async fn the_network_is_what_the_rules_name_and_no_more() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let answer = b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n";
            let _ = stream.write_all(answer).await;
        }
    });
    let granted = |trick: &str, url: String, rule: &str| {
        let rule = format!("url = '{rule}'\nmethods = ['GET']");
        Component { http: vec![toml::from_str(&rule).unwrap()], ..playing(trick, &url) }
    };
    let api = format!("http://{address}/api/");
    let said = plays(granted("get", api.clone(), &api)).await.to_string();
    assert!(said.contains("302") && said.contains("169.254"), "{said}");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    let followed = plays(granted("follow", api.clone(), &api)).await.to_string();
    assert!(followed.contains("no grant covers"), "{followed}");
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    let other = plays(granted("get", format!("http://{address}/admin/"), &api)).await.to_string();
    assert!(other.contains("no grant covers"), "{other}");
    // A name of this very machine, by the system's own resolver; or nobody's name here.
    let name = format!("http://localhost.localdomain:{}/", address.port());
    let named = plays(granted("get", name.clone(), &name)).await.to_string();
    assert!(["Denied", "NotSent", "Unknown"].iter().any(|refusal| named.contains(refusal)), "{named}");
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_finished_host_is_not_installed_again_whatever_is_tried() {
    let nearly_all = [Grant::Read, Grant::Hostname, Grant::Metadata, Grant::States, Grant::HoldFinished];
    for hosts in [&nearly_all[..1], &nearly_all[..3], &nearly_all[..]] {
        let core = Arc::new(Core::default());
        let host = PluginHost::new(Arc::clone(&core) as Arc<dyn Capabilities>).unwrap();
        let grants = Grants { hosts: hosts.iter().copied().collect(), kv: false, max_orders_per_run: 5 };
        let plugin = host.load(Component { grants, ..playing("wipe", "") }).await.unwrap();
        let call = Call { budget: Duration::from_secs(1), ..call() };
        let said = plugin.run(&call, "harm").await.result.unwrap_err().to_string();
        // The first four would change its queue: none of them did. With all grants but one, that one is named.
        let answers: Vec<_> = said.split("Err(").collect();
        assert!(answers.len() > 4 && !answers[..4].iter().any(|said| said.contains("Ok(")), "{said}");
        if hosts.len() == nearly_all.len() {
            assert!(said.contains("only with the grant `reinstall`"), "{said}");
        }
        let changed = core.changed.load(Ordering::Relaxed);
        assert!(changed == 0 || hosts.len() > 1, "{said}");
        // In a decision nothing can be changed at all.
        let decided = plugin.before(&call, &change()).await.result.unwrap_err().to_string();
        assert!(decided.contains("Err(") && !decided.contains("Ok("), "{decided}");
        assert_eq!(core.changed.load(Ordering::Relaxed), changed);
    }
}

#[tokio::test]
async fn nothing_is_stored_without_the_grant_under_whatever_key() {
    let said = plays(playing("kv", "")).await.to_string();
    assert_eq!(said.matches("(true, true)").count(), 5, "{said}");
}

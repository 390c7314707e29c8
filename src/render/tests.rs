//! Every built-in template rendered with harmless and hostile values, and every way a site's template can be wrong.

use crate::domain::DevicePolicy;
use std::fs;
use std::path::Path;

use serde_json::json;

use super::escape::tests::hostile_values;
use super::*;
use crate::domain::{BootId, HostId};

fn base() -> BaseUrl {
    "http://10.0.0.1:5000".parse().unwrap()
}

fn bootid() -> BootId {
    BootId::new(HostId::new(7), [0xab; 16])
}

fn server() -> ServerVars {
    ServerVars { base: base() }
}

fn host() -> HostVars {
    HostVars {
        id: 7,
        hostname: "web1".into(),
        serial: "J4K2P13".into(),
        uuid: "4c4c4544-0034-4b10-8032-b4c04f503133".into(),
        macs: vec!["52:54:00:12:34:56".into(), "52:54:00:12:34:57".into()],
        manufacturer: "Dell Inc.".into(),
        product: "PowerEdge R640".into(),
        state: "leap".into(),
        states: vec!["leap".into()],
        metadata: json!({"site": "fra1"}),
    }
}

fn hostile_host(value: &str) -> HostVars {
    HostVars {
        id: 7,
        hostname: value.into(),
        serial: value.into(),
        uuid: value.into(),
        macs: vec![value.into()],
        manufacturer: value.into(),
        product: value.into(),
        state: value.into(),
        states: vec![value.into()],
        metadata: json!({"site": value}),
    }
}

fn image_vars(host: HostVars, initrd: &str) -> ImageVars {
    let post_install_url = base().post_install(&bootid());
    let cmdline = SafeLine::kiwi(&KiwiLine {
        image_url: &format!("{}leap.xz", base().files(&bootid())),
        disk: &DevicePolicy::Smallest,
        post_install_url: &post_install_url,
        image_append: &KernelArg::parse_line("console=ttyS0,115200").unwrap(),
        plugin_append: &[],
    });
    let boot = BootVars {
        bootid: bootid().expose(),
        attempt: 1,
        attempts_max: 3,
        files: base().files(&bootid()),
        kernel: "pxeboot.leap.kernel".into(),
        initrd: initrd.into(),
        cmdline: cmdline.unwrap(),
        disk: "the smallest disk".into(),
    };
    ImageVars { server: server(), host, image: "leap".into(), boot, vars: json!({}) }
}

fn all_scripts(host: &HostVars, reason: &str) -> Vec<BootScript> {
    let wait = |waited_s| WaitVars::new(4, waited_s);
    let hold = |host, waited_s| HoldVars { server: server(), host, reason: reason.into(), wait: wait(waited_s) };
    let local = |host, sanboot| LocalVars { host, reason: reason.into(), sanboot };
    vec![
        BootScript::Bootstrap(BootstrapVars { server: server() }),
        BootScript::New(NewVars { server: server(), host: host.clone(), wait: wait(8) }),
        BootScript::Hold(hold(Some(host.clone()), 0)),
        BootScript::Hold(hold(None, WAIT_S_MAX)),
        BootScript::Local(local(Some(host.clone()), false)),
        BootScript::Local(local(None, true)),
        BootScript::Linux(image_vars(host.clone(), "")),
        BootScript::Linux(image_vars(host.clone(), "initrd")),
        BootScript::Kiwi(image_vars(host.clone(), "pxeboot.leap.initrd")),
    ]
}

fn document_vars(host: HostVars, vars: serde_json::Value) -> DocumentVars {
    DocumentVars {
        instance: "kiwispray-3-1".to_owned(),
        server: server(),
        host,
        image: "leap".into(),
        bootid: bootid().expose(),
        files: base().files(&bootid()),
        calls: CallVars::new(&base(), &bootid()),
        vars,
    }
}

#[test]
fn built_in_boot_scripts() {
    let renderer = Renderer::new(None);
    for (i, script) in all_scripts(&host(), "waiting for the BMC").iter().enumerate() {
        let name = format!("{i}_{}", script.template().replace('.', "_"));
        insta::assert_snapshot!(name, renderer.boot_script(script).unwrap());
    }
}

#[test]
fn built_in_post_install_script() {
    let document = Renderer::new(None).document(None, "post_install.sh", &document_vars(host(), json!({}))).unwrap();
    assert_eq!(document.language, Language::Shell);
    insta::assert_snapshot!(document.text);
}

#[test]
fn hostile_values_change_no_line_of_a_boot_script() {
    let renderer = Renderer::new(None);
    let harmless: Vec<String> =
        all_scripts(&hostile_host("x"), "x").iter().map(|script| renderer.boot_script(script).unwrap()).collect();
    for value in hostile_values() {
        for (script, harmless) in all_scripts(&hostile_host(&value), &value).iter().zip(&harmless) {
            let text = renderer.boot_script(script).unwrap();
            assert_eq!(text.lines().count(), harmless.lines().count(), "{value:?}\n{text}");
            for (line, expected) in text.lines().zip(harmless.lines()) {
                let stem = |line: &str| line.split(' ').next().map(str::to_owned);
                assert_eq!(stem(line), stem(expected), "{value:?}");
                let expands = |line: &str| line.matches("${").count();
                assert_eq!(expands(line), expands(expected), "{value:?}: {line}");
                for word in ["||", "&&", ";"] {
                    let ends = |line: &str| line.split_whitespace().filter(|w| *w == word).count();
                    assert_eq!(ends(line), ends(expected), "{value:?}: {line}");
                }
            }
        }
    }
    let hold = HoldVars {
        server: server(),
        host: Some(hostile_host("--x ${y}\n#!ipxe\nreboot;")),
        reason: "$(x) `y` || \"é".into(),
        wait: WaitVars::new(4, 0),
    };
    insta::assert_snapshot!("hostile_hold", renderer.boot_script(&BootScript::Hold(hold)).unwrap());
}

#[test]
fn a_shell_reads_hostile_values_back_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("echo.sh.hbs"), "#!/bin/sh\nprintf '%s' {{host.hostname}}\n").unwrap();
    for value in hostile_values() {
        let vars = document_vars(hostile_host(&value), json!({}));
        let script = Renderer::new(None).document(Some(dir.path()), "echo.sh", &vars).unwrap().text;
        let out = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert_eq!(String::from_utf8(out.stdout).unwrap(), value.replace('\0', ""));
    }
}

#[test]
fn the_built_in_post_install_script_is_shell_for_any_hostname() {
    for value in hostile_values() {
        let vars = document_vars(hostile_host(&value), json!({}));
        let script = Renderer::new(None).document(None, "post_install.sh", &vars).unwrap().text;
        let status = std::process::Command::new("sh").args(["-n", "-c", &script]).status().unwrap();
        assert!(status.success(), "{value:?}");
    }
}

/// A renderer over a folder with these files.
fn site(files: &[(&str, &str)]) -> (tempfile::TempDir, Renderer) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let renderer = Renderer::new(Some(dir.path().to_owned()));
    (dir, renderer)
}

fn refusal(name: &str, text: &str) -> String {
    let (dir, renderer) = site(&[(&format!("{name}.hbs"), text)]);
    let vars = document_vars(
        host(),
        json!({"list": [1, 2], "nested": [{"a": 1}], "one": ["a"], "keys": [{("k".repeat(1001)): 1}], "bad": "a b", "url": "javascript:x"}),
    );
    let error = renderer.document(None, name, &vars).expect_err(text);
    error.to_string().replace(&format!("{}/", dir.path().display()), "")
}

#[test]
fn broken_templates_are_refused_with_file_line_and_remedy() {
    let cases = [
        ("a.sh", "#!/bin/sh\n\necho {{{host.hostname}}}\n"),
        ("a.sh", "echo {{&host.hostname}}"),
        ("a.sh", "{{#if host}}\n{{#each host.macs}}{{{this}}}{{/each}}{{/if}}"),
        ("a.sh", "echo \"{{host.hostname}}\""),
        ("a.sh", "{{#if host}}echo \"{{else}}echo {{/if}}{{host.hostname}}"),
        ("a.sh", "{{#each host.macs}}{{this}}\"{{/each}}"),
        ("a.sh", "echo {{host.hostnam}}"),
        ("a.sh", "one\n{{#if host}}"),
        ("a.sh", "{{> _none}}"),
        ("a.sh", "{{> (lookup host \"hostname\")}}"),
        ("a.sh", "{{#*inline \"_x\"}}{{> _x}}{{/inline}}{{> _x}}"),
        ("a.sh", "{{log host.hostname}}"),
        ("a.json", "{\"name\": \"{{host.hostname}}\"}"),
        ("user-data", "runcmd:\n - echo {{host.hostname}}\n"),
        ("a.ipxe", "#!ipxe\n{{host.hostname}}\n"),
        ("a.ipxe", "echo no header\n"),
        ("a.ipxe", "#!ipxe\nkernel x {{arg vars.bad}}\n"),
        ("a.ipxe", "#!ipxe\nchain {{url vars.url}}\n"),
        ("a.ipxe", "#!ipxe\nkernel x {{cmdline}}\n"),
        ("a.xml", "<a>{{host.hostname}}</a>"),
        ("a.sh", "x={{host.id}}\necho {{vars.list}}"),
        ("a.sh", "echo {{sh host.metadata}}"),
        ("a.sh", "echo {{lookup host \"macs\"}}"),
        ("a.sh", "{{#each vars.nested}}echo {{this}}{{/each}}"),
        ("a.sh", "{{#each host.hostname}}echo {{this}}{{/each}}"),
        ("a.ipxe", "#!ipxe\nkernel x {{arg vars.one}}\n"),
        ("a.json", "{\"macs\": {{host.macs}}}"),
        ("user-data", "a: {{json vars.keys}}\n"),
        ("a.json", "[{{#each host.macs}}{{this}},{{/each}}\n]"),
    ];
    let all: Vec<String> =
        cases.iter().map(|(name, text)| format!("{name}  {text:?}\n  {}\n", refusal(name, text))).collect();
    insta::assert_snapshot!(all.concat());
}

#[test]
fn nesting_and_circles_are_refused_before_they_overflow_the_stack() {
    let deep = format!("{}x{}", "{{#if host}}".repeat(10_000), "{{/if}}".repeat(10_000));
    assert!(refusal("a.txt", &deep).contains("nested deeper"));
    let parentheses = format!("{{{{x {}y{}}}}}", "(a ".repeat(10_000), ")".repeat(10_000));
    assert!(refusal("a.txt", &parentheses).contains("nested deeper"));
    let (_dir, renderer) = site(&[("a.txt.hbs", "{{> _b}}"), ("_b.txt.hbs", "{{> _c}}"), ("_c.txt.hbs", "{{> _b}}")]);
    let error = renderer.document(None, "a.txt", &json!({})).unwrap_err().to_string();
    assert!(error.contains("includes itself"), "{error}");
}

#[test]
fn lists_and_objects_are_written_as_json_where_that_is_asked_for() {
    let vars = document_vars(host(), json!({"it": {"a": ["it's", "\n"]}, "none": null}));
    let render = |name: &str, text: &str| {
        let (_dir, renderer) = site(&[(&format!("{name}.hbs"), text)]);
        renderer.document(None, name, &vars).unwrap().text
    };
    assert_eq!(render("a.sh", "x={{json vars.it}}"), r#"x='{"a":["it'\''s","\n"]}'"#);
    assert_eq!(render("a.txt", "{{json vars.it}}"), r#"{"a":["it's","\n"]}"#);
    assert_eq!(render("a.yaml", "x: {{json vars.it}}\n"), "x: {\"a\":[\"it's\",\"\\n\"]}\n");
    let keyed = document_vars(
        HostVars {
            metadata: json!({"net.ip": "a", "größe": "b", "a b": {"c/d": "c"}, "機械": "d", "7": "e"}),
            ..host()
        },
        json!({}),
    );
    let (_dir, renderer) = site(&[(
        "a.txt.hbs",
        "{{host.metadata.[net.ip]}}{{host.metadata.größe}}{{host.metadata.[a b].[c/d]}}{{host.metadata.機械}}{{host.metadata.7}}\
         {{#if host.metadata.[x.y]}}never{{/if}}",
    )]);
    assert_eq!(renderer.document(None, "a.txt", &keyed).unwrap().text, "abcde");
    // What has a text is written as it always was.
    let words =
        "{{host.id}} {{host.hostname}} {{vars.none}} {{len host.macs}} {{lookup host \"serial\"}} {{eq host.id 7}}";
    assert_eq!(render("a.sh", words), "'7' 'web1' '' '2' 'J4K2P13' 'true'");
    assert_eq!(
        render("a.txt", "{{#each host.macs}}{{@index}}{{this}} {{../host.id}} {{/each}}"),
        "052:54:00:12:34:56 7 152:54:00:12:34:57 7 "
    );
}

#[test]
fn a_file_brought_in_place_of_another_is_seen_whatever_its_time_and_size_are() {
    let (dir, renderer) = site(&[("a.txt.hbs", "first!"), ("new", "second")]);
    assert_eq!(renderer.document(None, "a.txt", &json!({})).unwrap().text, "first!");
    let file = dir.path().join("a.txt.hbs");
    let written = fs::metadata(&file).unwrap().modified().unwrap();
    fs::File::open(dir.path().join("new")).unwrap().set_modified(written).unwrap();
    fs::rename(dir.path().join("new"), &file).unwrap();
    assert_eq!(renderer.document(None, "a.txt", &json!({})).unwrap().text, "second");
}

#[test]
fn output_is_bounded() {
    let (_dir, renderer) =
        site(&[("a.txt.hbs", "{{#each x}}{{#each ../x}}{{#each ../../x}}0123456789{{/each}}{{/each}}{{/each}}")]);
    let error = renderer.document(None, "a.txt", &json!({"x": vec![0; 200]})).unwrap_err();
    assert!(matches!(error, RenderError::TooLarge { .. }), "{error}");
}

#[test]
fn yaml_and_json_values_are_literals_and_read_back() {
    let (_dir, renderer) = site(&[
        (
            "user-data.hbs",
            "#cloud-config\nhostname: {{host.hostname}}\nsite: {{host.metadata.site}}\nall: {{json vars}}\n",
        ),
        (
            "a.json.hbs",
            "{\"name\": {{host.hostname}}, \"macs\": [{{#each host.macs}}{{this}}{{#unless @last}}, {{/unless}}{{/each}}]}",
        ),
        ("config.bootoptions.hbs", "console={{host.hostname}} {{arg host.serial}}"),
    ]);
    let vars = document_vars(host(), json!({"n": 1, "t": ["a", null]}));
    let yaml = renderer.document(None, "user-data", &vars).unwrap();
    assert_eq!(yaml.text, "#cloud-config\nhostname: \"web1\"\nsite: \"fra1\"\nall: {\"n\":1,\"t\":[\"a\",null]}\n");
    assert_eq!(yaml.language.content_type(), "application/yaml");
    for value in hostile_values() {
        let vars = document_vars(hostile_host(&value), json!({}));
        let text = renderer.document(None, "a.json", &vars).unwrap().text;
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read, json!({"name": value, "macs": [value]}));
    }
    assert_eq!(renderer.document(None, "config.bootoptions", &vars).unwrap().text, "console=web1 J4K2P13");
}

#[test]
fn an_edited_template_works_at_once_and_a_broken_one_breaks_only_itself() {
    let (dir, renderer) = site(&[("hold.ipxe.hbs", "#!ipxe\necho first {{reason}}\n")]);
    let hold = HoldVars { server: server(), host: None, reason: "r".into(), wait: WaitVars::new(4, 0) };
    let script = BootScript::Hold(hold);
    assert_eq!(renderer.boot_script(&script).unwrap(), "#!ipxe\necho first r\n");
    let file = dir.path().join("hold.ipxe.hbs");

    fs::write(&file, "#!ipxe\necho broken {{reason\n").unwrap();
    assert!(renderer.boot_script(&script).is_err());
    let (text, problem) = renderer.boot_script_or_built_in(&script);
    assert!(text.contains("This machine is held") && problem.is_some());
    assert_eq!(renderer.check_all().len(), 1);
    assert!(renderer.boot_script(&BootScript::Bootstrap(BootstrapVars { server: server() })).is_ok());

    fs::remove_file(&file).unwrap();
    assert!(renderer.boot_script(&script).unwrap().contains("This machine is held"));
    fs::write(dir.path().join("_wait.ipxe.hbs"), "# my own waiting\n").unwrap();
    assert!(renderer.boot_script(&script).unwrap().ends_with("# my own waiting\n"));
}

#[test]
fn an_images_own_template_stands_before_the_sites_and_the_built_in_one() {
    let (dir, renderer) = site(&[("post_install.sh.hbs", "# site\n")]);
    let image = dir.path().join("leap");
    fs::create_dir(&image).unwrap();
    let render = |image: Option<&Path>| {
        renderer.document(image, "post_install.sh", &document_vars(host(), json!({}))).unwrap().text
    };
    assert_eq!(render(Some(&image)), "# site\n");
    fs::write(image.join("post_install.sh.hbs"), "\u{feff}# image\r\n").unwrap();
    assert_eq!(render(Some(&image)), "# image\n");
    assert_eq!(render(None), "# site\n");
    assert!(renderer.has_template(Some(&image), "post_install.sh"));
    assert!(!renderer.has_template(Some(&image), "host.ipxe"));
}

#[test]
fn names_lead_nowhere_outside_the_folder() {
    let (_dir, renderer) = site(&[]);
    for name in ["../etc/passwd.txt", "/etc/x.txt", ".hidden.txt", "a/b.txt", "a\\b.txt", "", "a\0.txt"] {
        let error = renderer.document(None, name, &json!({})).unwrap_err();
        assert!(matches!(error, RenderError::BadName { .. }), "{name:?}: {error}");
    }
}

#[test]
fn a_named_pipe_is_no_template() {
    let (dir, renderer) = site(&[]);
    let status = std::process::Command::new("mkfifo").arg(dir.path().join("a.txt.hbs")).status().unwrap();
    assert!(status.success());
    assert!(matches!(renderer.document(None, "a.txt", &json!({})), Err(RenderError::Unreadable { .. })));
}

#[test]
fn nothing_takes_the_place_of_a_template_that_cannot_be_looked_at() {
    let (dir, renderer) = site(&[]);
    let vars = document_vars(host(), json!({}));
    let render = || renderer.document(None, "post_install.sh", &vars);
    assert!(render().is_ok());
    let file = dir.path().join("post_install.sh.hbs");
    let elsewhere = dir.path().join("elsewhere");
    for target in [elsewhere.as_path(), file.as_path()] {
        std::os::unix::fs::symlink(target, &file).unwrap();
        assert!(matches!(render(), Err(RenderError::Unreadable { .. })), "{}", target.display());
        assert!(renderer.has_template(None, "post_install.sh") && !renderer.is_built_in(None, "post_install.sh"));
        fs::remove_file(&file).unwrap();
    }
    std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
    assert!(render().is_err());
    fs::write(&elsewhere, "# mine\n").unwrap();
    assert_eq!(render().unwrap().text, "# mine\n");
    // A folder that is none has no templates.
    assert!(Renderer::new(Some(elsewhere)).document(None, "post_install.sh", &vars).is_ok());
}

#[test]
fn built_in_templates_are_sound_and_name_their_variables() {
    let renderer = Renderer::new(None);
    assert_eq!(renderer.check_all().len(), 0);
    for listed in renderer.list() {
        assert!(listed.header.contains("Variables: "), "{}", listed.name);
    }
}

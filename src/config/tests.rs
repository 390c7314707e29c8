//! Files, flags and folders as an operator may have them, right and wrong.

use std::fs;

use clap::Parser;

use super::*;

/// Stands for `kiwispray serve`.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    serve: ServeArgs,
}

fn args(words: &[&str]) -> ServeArgs {
    Cli::try_parse_from([&["kiwispray"], words].concat()).unwrap().serve
}

/// A machine of its own, with these files.
fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Surroundings) {
    let root = tempfile::tempdir().unwrap();
    let around = Surroundings {
        working_dir: root.path().join("here"),
        etc_dir: root.path().join("etc"),
        var_dir: root.path().join("var/kiwispray"),
    };
    fs::create_dir_all(&around.working_dir).unwrap();
    for (name, text) in files {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    (root, around)
}

fn load(files: &[(&str, &str)], words: &[&str]) -> Result<Config, String> {
    let (root, around) = machine(files);
    Config::load(&args(words), &around)
        .map_err(|error| error.to_string().replace(&format!("{}/", root.path().display()), ""))
}

#[test]
fn without_any_configuration_there_are_defaults() {
    let (root, around) = machine(&[]);
    let config = Config::load(&ServeArgs::default(), &around).unwrap();
    let shown = format!("{config:#?}").replace(&root.path().display().to_string(), "ROOT");
    insta::assert_snapshot!(shown);
    assert!(config.check_data_dir().is_ok());
}

#[test]
fn inside_a_checkout_all_folders_are_the_checkouts() {
    let (_root, around) = machine(&[
        ("here/Cargo.toml", "[package]\nname = \"kiwispray\"\n"),
        ("here/images/README.md", ""),
        ("here/templates/x", ""),
        ("etc/plugins/x", ""),
    ]);
    let config = Config::load(&ServeArgs::default(), &around).unwrap();
    assert_eq!(config.data_dir, around.working_dir.join("data"));
    assert_eq!(config.images_dir, around.working_dir.join("images"));
    assert_eq!(config.templates_dir, around.working_dir.join("templates"));
    assert_eq!(config.plugins_dir, around.etc_dir.join("plugins"));
}

#[test]
fn a_named_data_directory_that_is_missing_is_refused_without_init() {
    let (_root, around) = machine(&[]);
    let named = Config::load(&args(&["--data-dir", "kiwi"]), &around).unwrap();
    let said = named.check_data_dir().unwrap_err().to_string();
    assert!(said.contains("is missing; is its disk mounted?") && said.ends_with("add --init"), "{said}");
    let init = Config::load(&args(&["--data-dir", "kiwi", "--init"]), &around).unwrap();
    assert!(init.check_data_dir().is_ok());
    let (_root, around) = machine(&[("here/kiwispray.toml", "data_dir = \"kiwi\"\n")]);
    assert!(Config::load(&ServeArgs::default(), &around).unwrap().check_data_dir().is_err());
}

#[test]
fn a_named_data_directory_is_begun_only_where_no_server_ran() {
    let with = |file: &str, flags: &[&str]| {
        let (_root, around) = machine(&[(&format!("here/kiwi/{file}"), "")]);
        Config::load(&args(&[&["--data-dir", "kiwi"], flags].concat()), &around).unwrap().check_data_dir()
    };
    // A disk that was made for it, and what somebody put there before the first start.
    for file in ["lost+found/x", "plugins/mine.wasm"] {
        assert!(with(file, &[]).is_ok(), "{file}");
    }
    for file in ["store/lock", "store.before-restore-7/db", "admin.sock"] {
        let said = with(file, &[]).unwrap_err().to_string();
        assert!(said.contains("holds no store, though a server ran there") && said.ends_with("add --init"), "{said}");
        assert!(with(file, &["--init"]).is_ok(), "{file}");
    }
    // Half a store is for whoever opens it to judge, who never makes a new one of it.
    for file in ["store/db", "store/watermark"] {
        assert!(with(file, &[]).is_ok(), "{file}");
    }
}

#[test]
fn the_default_data_directory_is_begun_only_where_no_server_ran() {
    let check = |file: &str| {
        let (_root, around) =
            machine(&[(&format!("here/data/{file}"), ""), ("here/Cargo.toml", "name = \"kiwispray\"\n")]);
        Config::load(&ServeArgs::default(), &around).unwrap().check_data_dir()
    };
    for file in ["x", "images/x/y", "plugins/mine.wasm", "plugins.d/x.toml", "stores/x"] {
        assert!(check(file).is_ok(), "{file}");
    }
    let component = format!("plugins/{}.wasm", "0a".repeat(32));
    for file in ["store/lock", "store.before-restore-7/db", "admin.sock", &component] {
        assert!(check(file).unwrap_err().to_string().contains("holds no store"), "{file}");
    }
}

#[test]
fn flags_win_over_fragments_and_fragments_over_the_file() {
    let files = [
        (
            "here/kiwispray.toml",
            "listen = \"10.0.0.1:1\"\npublic_url = \"http://one\"\n[boot]\nattempts = 5\nagain_s_min = 7\n[[plugin]]\nname = \"a\"\n",
        ),
        ("here/conf.d/20.toml", "public_url = \"http://three\"\n[[plugin]]\nname = \"b\"\n"),
        ("here/conf.d/10.toml", "public_url = \"http://two\"\nimages_dir = \"../pictures\"\n[boot]\nattempts = 6\n"),
        ("here/conf.d/not-this.txt", "nonsense"),
        ("etc/kiwispray.toml", "nonsense"),
    ];
    let config = load(&files, &["--listen", "10.0.0.1:2", "--discover"]).unwrap();
    assert_eq!(config.listen, "10.0.0.1:2".parse().unwrap());
    assert_eq!(config.public_url, Some("http://three".parse().unwrap()));
    assert_eq!((config.boot.attempts, config.boot.again_s_min), (6, 7));
    assert!(config.discover && config.plugins.len() == 2 && config.files.len() == 3);
    assert!(config.images_dir.ends_with("conf.d/../pictures"), "relative to its file: {:?}", config.images_dir);
}

/// Files, and words of the command line.
type Case = (&'static [(&'static str, &'static str)], &'static [&'static str]);

#[test]
fn each_problem_is_one_sentence_with_file_and_key() {
    let cases: [Case; 10] = [
        (&[("here/kiwispray.toml", "lisen = \"x\"\n[boot]\natempts = 3\nzzz = 1\n[nonsense]\na = 1\n")], &[]),
        (&[("here/kiwispray.toml", "attempts = 3\n")], &[]),
        (&[("here/kiwispray.toml", "a = 1\n\nlisten = [\n")], &[]),
        (&[("here/kiwispray.toml", "[boot]\n\nattempts = \"three\"\n")], &[]),
        (&[("here/kiwispray.toml", "listen = \"5000\"\n")], &[]),
        (
            &[
                (
                    "etc/kiwispray.toml",
                    "public_url = \"deploy\"\n[boot]\nattempts = 0\nagain_s_min = 60\nagain_s_max = 5\n",
                ),
                ("etc/conf.d/x.toml", "[store]\ncache_mb = 1\n[dnsmasq]\nrange = \"10.0.0.9\"\nproxy = true\n"),
            ],
            &[],
        ),
        (&[], &["--config", "missing.toml"]),
        (&[], &["--dhcp-range", "10.0.0.1,10.0.0.9"]),
        (&[], &["--proxy-dhcp"]),
        (&[("here/kiwispray.toml", "[boot]\nlocal = \"disk\"\n")], &[]),
    ];
    let all: Vec<String> = cases
        .iter()
        .map(|(files, words)| format!("{files:?} {words:?}\n{}\n\n", load(files, words).unwrap_err()))
        .collect();
    insta::assert_snapshot!(all.concat());
}

#[test]
fn installed_plugins_are_read_from_beside_the_file_and_from_the_data_directory() {
    let binding = |name: &str| format!("[[plugin]]\nname = \"{name}\"\n");
    let (one, two) = (binding("one"), binding("two"));
    let files = [
        ("etc/kiwispray.toml", ""),
        ("etc/plugins.d/one.toml", one.as_str()),
        ("var/kiwispray/plugins.d/two.toml", two.as_str()),
    ];
    let config = load(&files, &[]).unwrap();
    let names: Vec<&str> = config.plugins.iter().map(|plugin| plugin.name.as_str()).collect();
    assert_eq!(names, ["one", "two"]);
    assert!(config.plugins_d.ends_with("etc/plugins.d"), "{:?}", config.plugins_d);
    assert!(load(&[], &[]).unwrap().plugins_d.ends_with("var/kiwispray/plugins.d"));
    let wrong = load(&[files[0], ("etc/plugins.d/one.toml", "listen = \"1.2.3.4:5\"\n")], &[]).unwrap_err();
    assert_eq!(wrong, "etc/plugins.d/one.toml: listen: nothing but [[plugin]] stands in a file of plugins.d");
    let twice = load(&[files[0], files[1], ("etc/plugins.d/zzz.toml", one.as_str())], &[]).unwrap_err();
    assert!(twice.contains("zzz.toml: plugin.one.name: the plugin one is already bound in"), "{twice}");
}

#[test]
fn dnsmasq_is_wished_for_by_flags_or_by_file() {
    let wish = |file: &str, words: &[&str]| load(&[("here/kiwispray.toml", file)], words).unwrap().dnsmasq;
    let range: DhcpRange = "10.0.0.1,10.0.0.9".parse().unwrap();
    let on = |interface: &str, wish| Some(DnsmasqConfig { interface: interface.to_owned(), wish });
    assert_eq!(wish("", &[]), None);
    assert_eq!(wish("", &["--dnsmasq", "eth0"]), on("eth0", Wish::Unstated));
    assert_eq!(wish("", &["--dnsmasq", "eth0", "--dhcp-range", "10.0.0.1,10.0.0.9"]), on("eth0", Wish::Range(range)));
    let file = "[dnsmasq]\ninterface = \"eth1\"\nrange = \"10.0.0.1,10.0.0.9\"\n";
    assert_eq!(wish(file, &[]), on("eth1", Wish::Range(range)));
    assert_eq!(wish(file, &["--proxy-dhcp"]), on("eth1", Wish::Proxy));
}

#[test]
fn every_known_key_is_accepted_and_no_other() {
    let value = |key: &str| match key {
        "listen" => "\"1.2.3.4:5\"",
        "boot.local" => "\"sanboot\"",
        "identity.ignore" => "[]",
        key if key.ends_with("_dir") || ["public_url", "admin.group"].contains(&key) => "\"http://x\"",
        "dnsmasq.interface" => "\"eth0\"",
        "dnsmasq.range" => "\"10.0.0.1,10.0.0.9\"",
        "discover" | "boot.open_state" | "boot.open_hosts" | "dnsmasq.proxy" => "false",
        _ => "30",
    };
    for key in file::KEYS.iter().copied() {
        let line = match key {
            "plugin" => "[[plugin]]
name = \"a\"
"
            .to_owned(),
            "boot" | "identity" | "limits" | "store" | "admin" | "dnsmasq" => format!(
                "[{key}]
"
            ),
            _ => format!(
                "{key} = {}
",
                value(key)
            ),
        };
        let result = load(&[("here/kiwispray.toml", &line)], &["--dnsmasq", "eth0"]);
        assert!(result.is_ok(), "{line}: {result:?}");
    }
}

#[test]
fn the_flags_as_help_shows_them() {
    let help = <Cli as clap::CommandFactory>::command().term_width(110).render_help().to_string();
    insta::assert_snapshot!(help);
}

/// The chapter of the manual that tells every setting.
fn chapter() -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/src/configuration.md");
    fs::read_to_string(path).unwrap()
}

#[test]
fn the_manual_tells_every_setting_and_no_other() {
    let chapter = chapter();
    let rows = chapter.split_once("\n## Settings\n").unwrap().1.split_once("\n## ").unwrap().0.to_owned();
    let cells = rows.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" | "));
    let mut told: Vec<String> = cells
        .flat_map(|(keys, _)| keys.split(", ").map(|key| key.trim_matches('`').to_owned()).collect::<Vec<_>>())
        .collect();
    told.sort();
    let is_section = |key: &str| file::KEYS.iter().any(|other| other.starts_with(&format!("{key}.")));
    let mut keys: Vec<&str> = file::KEYS.iter().copied().filter(|key| !is_section(key)).collect();
    keys.sort_unstable();
    assert_eq!(told, keys);
}

#[test]
fn the_defaults_that_the_manual_shows_are_the_defaults() {
    let chapter = chapter();
    let shown = chapter.split("```toml\n").nth(1).unwrap().split_once("```").unwrap().0;
    let settings = |text: &str| {
        let (_root, around) = machine(&[("here/kiwispray.toml", text)]);
        let config = Config::load(&ServeArgs::default(), &around).unwrap();
        format!("{config:#?}")
            .replace(&around.working_dir.display().to_string(), "HERE")
            .replace(&around.var_dir.display().to_string(), "VAR")
    };
    assert_eq!(settings(shown), settings(""));
    // And none is left out: of what a file can say, only what has no default is unset.
    let raw: toml::Table = toml::from_str(shown).unwrap();
    let has = |key: &str| match key.split_once('.') {
        Some((section, key)) => raw.get(section).is_some_and(|section| section.get(key).is_some()),
        None => raw.contains_key(key),
    };
    let unset: Vec<&str> = file::KEYS.iter().copied().filter(|key| !has(key)).collect();
    assert_eq!(
        unset,
        [
            "data_dir",
            "images_dir",
            "templates_dir",
            "plugins_dir",
            "ipxe_dir",
            "public_url",
            "admin.group",
            "dnsmasq.interface",
            "dnsmasq.range",
            "dnsmasq.proxy",
            "admin",
            "dnsmasq",
            "plugin"
        ]
    );
}

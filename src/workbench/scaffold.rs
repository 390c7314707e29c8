//! `plugin new`: a folder that builds and passes its tests as it stands, with the SDK and the contract inside. Everything
//! comes out of this program, so nothing is fetched.
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::manifest::Lang;
use crate::config::PluginName;

/// A file of a new folder.
pub(super) struct Skeleton {
    /// Its path in the folder.
    to: &'static str,
    text: &'static str,
    kind: Kind,
}

/// How a file comes into the folder.
enum Kind {
    /// With the plugin's name for every `@name@`.
    Template,
    /// As it is.
    Copy,
    /// As it is, but for what ties the SDK's manifest to the checkout.
    SdkManifest,
}

/// Files of the checkout, by their path in a folder of it.
macro_rules! copied {
    ($from:literal => $to:literal: $($file:literal),* $(,)?) => {
        &[$(Skeleton { to: concat!($to, $file), text: include_str!(concat!("../../", $from, $file)), kind: Kind::Copy }),*]
    };
}

/// Templates, by their path in `sdk/<lang>/template/`.
macro_rules! templates {
    ($from:literal: $($file:literal),* $(,)?) => {
        &[$(Skeleton { to: $file, text: include_str!(concat!("../../", $from, $file)), kind: Kind::Template }),*]
    };
}

const CONTRACT: &[Skeleton] = copied!("sdk/wit/" => "sdk/wit/": "0.1.0/plugin.wit");

const RUST: &[Skeleton] = templates!(
    "sdk/rust/template/":
    ".cargo/config.toml", ".gitignore", "Cargo.toml", "README.md", "cases/passes.json", "cases/waits.json", "plugin.toml",
    "src/lib.rs",
);
const RUST_SDK: &[Skeleton] = copied!(
    "sdk/rust/" => "sdk/rust/":
    "README.md", "src/answers.rs", "src/arena.rs", "src/ask/hosts.rs", "src/ask/http.rs", "src/ask/kv.rs",
    "src/ask/mod.rs", "src/ask/signing.rs", "src/bindings.rs", "src/lib.rs", "src/panics.rs", "src/plugin.rs",
    "src/requests.rs", "src/select.rs", "src/testing/hosts.rs", "src/testing/http.rs", "src/testing/kv.rs", "src/testing/mod.rs",
    "src/testing/signing.rs",
);
const RUST_MANIFESTS: &[Skeleton] = &[
    Skeleton { to: "sdk/rust/Cargo.toml", text: include_str!("../../sdk/rust/Cargo.toml"), kind: Kind::SdkManifest },
    // The versions that the shipped plugins are built with. Cargo takes out what is not used.
    Skeleton { to: "Cargo.lock", text: include_str!("../../plugins/Cargo.lock"), kind: Kind::Copy },
];

const JS: &[Skeleton] = templates!(
    "sdk/js/template/":
    ".gitignore", "README.md", "cases/passes.json", "cases/waits.json", "package.json", "plugin.js", "plugin.test.js",
    "plugin.toml",
);
const JS_README: &[Skeleton] = copied!("sdk/js/" => "kiwispray/": "README.md");
const JS_SDK: &[Skeleton] = copied!(
    "sdk/js/" => "":
    "kiwispray/answers.js", "kiwispray/core.js", "kiwispray/errors.js", "kiwispray/hooks.js",
    "kiwispray/index.js", "kiwispray/install.js", "kiwispray/shims.js", "kiwispray/testing.js", "kiwispray/text.js",
    "kiwispray/values.js",
);

const PYTHON: &[Skeleton] = templates!(
    "sdk/python/template/":
    ".gitignore", "README.md", "cases/passes.json", "cases/waits.json", "plugin.py", "plugin.toml", "test_plugin.py",
);
const PYTHON_README: &[Skeleton] = copied!("sdk/python/" => "kiwispray/": "README.md");
const PYTHON_SDK: &[Skeleton] = copied!(
    "sdk/python/" => "":
    "kiwispray/__init__.py", "kiwispray/answers.py", "kiwispray/core.py", "kiwispray/entry.py",
    "kiwispray/errors.py", "kiwispray/hooks.py", "kiwispray/shims.py", "kiwispray/testing.py", "kiwispray/values.py",
);

/// All files of a new plugin in a language.
fn skeleton(lang: Lang) -> &'static [&'static [Skeleton]] {
    match lang {
        Lang::Rust => &[CONTRACT, RUST, RUST_SDK, RUST_MANIFESTS],
        Lang::Js => &[CONTRACT, JS, JS_SDK, JS_README],
        Lang::Python => &[CONTRACT, PYTHON, PYTHON_SDK, PYTHON_README],
    }
}

/// Why there is no new folder.
#[derive(Debug, thiserror::Error)]
pub enum ScaffoldError {
    /// Packages of its language cannot be called so, or the server has a plugin of this name.
    #[error("no new plugin can be called {0}: a letter first, no hyphen last, and not `default`")]
    Name(PluginName),
    /// Something stands there.
    #[error("{} is there already: choose another name, or another folder", .0.display())]
    Exists(PathBuf),
    /// A file.
    #[error("{} cannot be written: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Makes the folder of a new plugin.
///
/// # Errors
/// It is there already, or cannot be written, or no plugin can be called so.
pub fn scaffold(folder: &Path, name: &PluginName, lang: Lang) -> Result<(), ScaffoldError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| ScaffoldError::File { path, error }
    };
    let fits = name.as_str().starts_with(|first: char| first.is_ascii_lowercase()) && !name.as_str().ends_with('-');
    if !fits || name.is_default() {
        return Err(ScaffoldError::Name(name.clone()));
    }
    if folder.symlink_metadata().is_ok() {
        return Err(ScaffoldError::Exists(folder.to_owned()));
    }
    let beside = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // Made whole beside its place: a full disk leaves no half of a plugin there.
    let half = tempfile::Builder::new().prefix(".plugin-new-").tempdir_in(beside).map_err(failed(beside))?;
    for file in skeleton(lang).iter().copied().flatten() {
        let path = half.path().join(file.to);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed(parent))?;
        }
        fs::write(&path, file.text_for(name)).map_err(failed(&path))?;
    }
    fs::set_permissions(half.path(), Permissions::from_mode(0o755)).map_err(failed(folder))?;
    match renameat_with(CWD, half.path(), CWD, folder, RenameFlags::NOREPLACE) {
        Err(Errno::EXIST) => return Err(ScaffoldError::Exists(folder.to_owned())),
        done => done.map_err(|error| failed(folder)(error.into()))?,
    }
    // It is no longer where it was made.
    drop(half.keep());
    Ok(())
}

impl Skeleton {
    fn text_for(&self, name: &PluginName) -> String {
        match self.kind {
            Kind::Template => self.text.replace("@name@", name.as_str()),
            Kind::Copy => self.text.to_owned(),
            Kind::SdkManifest => {
                let is_own = |line: &&str| !line.starts_with("workspace = ") && !line.starts_with("# Cargo is run in");
                self.text.lines().filter(is_own).map(|line| format!("{line}\n")).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::workbench::Manifest;

    /// The files below a folder of the checkout, by their paths in it.
    fn files(folder: &str) -> BTreeSet<String> {
        fn walk(folder: &Path, prefix: &str, into: &mut BTreeSet<String>) {
            for entry in fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                let name = format!("{prefix}{}", entry.file_name().into_string().unwrap());
                if entry.file_type().unwrap().is_dir() {
                    walk(&entry.path(), &format!("{name}/"), into);
                } else {
                    into.insert(name);
                }
            }
        }
        let mut found = BTreeSet::new();
        walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), "", &mut found);
        found
    }

    fn written(lang: Lang) -> BTreeSet<String> {
        skeleton(lang).iter().copied().flatten().map(|file| file.to.to_owned()).collect()
    }

    #[test]
    fn the_whole_sdk_and_the_whole_template_come_out_of_the_program() {
        for (lang, folder, sdk, to) in [
            (Lang::Rust, "sdk/rust", "sdk/rust/src", "sdk/rust/src/"),
            (Lang::Js, "sdk/js", "sdk/js/kiwispray", "kiwispray/"),
            (Lang::Python, "sdk/python", "sdk/python/kiwispray", "kiwispray/"),
        ] {
            let written = written(lang);
            let prefixed = |folder: &str, prefix: &str| -> BTreeSet<String> {
                files(folder).into_iter().map(|file| format!("{prefix}{file}")).collect()
            };
            let template = prefixed(&format!("{folder}/template"), "");
            let wanted = [prefixed("sdk/wit", "sdk/wit/"), prefixed(sdk, to), template];
            // Python leaves its own files beside modules that were run.
            let missing: Vec<_> = (wanted.iter().flatten())
                .filter(|file| !file.contains("__pycache__") && !written.contains(*file))
                .collect();
            assert!(missing.is_empty(), "not in the list of scaffold.rs: {missing:?}");
        }
    }

    #[test]
    fn the_sdk_takes_the_same_from_a_new_workspace_as_from_the_checkouts() {
        let parse = |text: &str| text.parse::<toml::Table>().unwrap();
        let (new, own) = (
            parse(include_str!("../../sdk/rust/template/Cargo.toml")),
            parse(include_str!("../../plugins/Cargo.toml")),
        );
        for key in ["serde", "serde_json"] {
            assert_eq!(new["workspace"]["dependencies"][key], own["workspace"]["dependencies"][key], "{key}");
        }
        assert_eq!(new["workspace"]["package"], own["workspace"]["package"]);
        assert_eq!(new["profile"], own["profile"]);
        let settings = |folder: &str| fs::read_to_string(format!("{folder}/.cargo/config.toml")).unwrap();
        assert_eq!(settings("sdk/rust/template"), settings("plugins"));
    }

    #[test]
    fn a_new_folder_is_a_plugins_and_nothing_is_overwritten() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("racks");
        let name: PluginName = "racks".parse().unwrap();
        scaffold(&folder, &name, Lang::Rust).unwrap();
        assert_eq!(Manifest::read(&folder).unwrap().name, name);
        let sdk = fs::read_to_string(folder.join("sdk/rust/Cargo.toml")).unwrap();
        assert!(sdk.contains("version.workspace = true") && !sdk.contains("plugins/"), "{sdk}");
        for file in written(Lang::Rust).iter().filter(|file| !file.starts_with("sdk/")) {
            assert!(!fs::read_to_string(folder.join(file)).unwrap().contains("@name@"), "{file}");
        }
        assert!(matches!(scaffold(&folder, &name, Lang::Rust), Err(ScaffoldError::Exists(_))));
        for bad in ["1a", "-a", "a-", "default"] {
            let refused = scaffold(&folder.with_file_name(bad), &bad.parse().unwrap(), Lang::Rust);
            assert!(matches!(refused, Err(ScaffoldError::Name(_))), "{bad}");
        }
        assert!("reload".parse::<PluginName>().is_err(), "it could not be installed");
    }
}

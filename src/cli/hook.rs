//! `kiwispray image hook DIR`: makes a KIWI description build images that report to the server.
//!
//! Invariant: a description is changed whole or not at all, a file that someone changed only by `--force`, a second run changes
//! nothing, and nothing outside of its overlay is ever written, wherever links in it lead. The unit is enabled by a link and a preset
//! in the overlay, so no script of the description has to be edited.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::Context;
use super::error::{CliError, Exit, Result};
use super::screen::Format;
use super::words::harmless;

/// Puts the first-boot unit into a KIWI description.
#[derive(Debug, Args)]
pub(crate) struct Hook {
    /// The description: the folder of config.xml
    dir: PathBuf,
    /// What the image does when it boots
    #[arg(long, value_enum, value_name = "TASK", default_value_t = Task::FirstBoot)]
    task: Task,
    /// Replace files that were changed
    #[arg(long)]
    force: bool,
}

/// What the unit runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Task {
    /// Run the post-install script once: for images that are installed
    FirstBoot,
    /// Take inventory: for a live image
    Discover,
    /// Wipe the disks that the server names: for a live image
    Wipe,
    /// Run a site's hardware tools: for a live image
    HardwareConfig,
}

/// Where the scripts are in the image, without the leading slash.
const SCRIPTS: &str = "usr/lib/kiwispray";
const UNITS: &str = "etc/systemd/system";
const UNIT: &str = "kiwispray-firstboot.service";
const FIRST_BOOT: &str = "first-boot.sh";

/// What one path of the overlay has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    File { text: String, mode: u32 },
    Link(String),
}

/// What is found where something is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Same,
    /// What is wanted with other permissions, as version control leaves it.
    OtherMode,
    Other,
}

impl Task {
    const fn script(self) -> (&'static str, &'static str) {
        match self {
            Self::FirstBoot => (FIRST_BOOT, include_str!("../../images/first-boot.sh")),
            Self::Discover => ("discover.sh", include_str!("../../images/discover/discover.sh")),
            Self::Wipe => ("wipe.sh", include_str!("../../images/wipe/wipe.sh")),
            Self::HardwareConfig => {
                ("hardware-config.sh", include_str!("../../images/hardware-config/hardware-config.sh"))
            }
        }
    }

    /// Programs that the script cannot do without, each by the names of packages that bring it.
    const fn needs(self) -> &'static [(&'static str, &'static [&'static str])] {
        match self {
            Self::FirstBoot | Self::Discover | Self::HardwareConfig => &[("curl or wget", &["curl", "wget"])],
            Self::Wipe => &[
                ("curl or wget", &["curl", "wget"]),
                ("mdadm, if the disks may hold arrays", &["mdadm"]),
                ("lvm, if they may hold volumes", &["lvm2"]),
            ],
        }
    }

    /// Every path of the overlay, with what has to be there.
    fn files(self) -> Vec<(String, Content)> {
        let (name, script) = self.script();
        let file = |text: &str, mode| Content::File { text: text.to_owned(), mode };
        let unit = include_str!("../../images/kiwispray-firstboot.service").replace(FIRST_BOOT, name);
        vec![
            (format!("{SCRIPTS}/kiwispray.sh"), file(include_str!("../../images/kiwispray.sh"), 0o644)),
            (format!("{SCRIPTS}/{name}"), file(script, 0o755)),
            (format!("{UNITS}/{UNIT}"), file(&unit, 0o644)),
            // What `systemctl enable` makes. The preset keeps a first boot that applies presets from removing it.
            (format!("{UNITS}/multi-user.target.wants/{UNIT}"), Content::Link(format!("../{UNIT}"))),
            ("etc/systemd/system-preset/00-kiwispray.preset".to_owned(), file(&format!("enable {UNIT}\n"), 0o644)),
        ]
    }
}

impl Hook {
    pub(crate) fn run(self, context: &Context) -> Result {
        let description = read_description(&self.dir)?;
        let root = self.dir.join("root");
        let mut changes = Vec::new();
        let mut foreign = Vec::new();
        for (path, content) in self.task.files() {
            check_folders(&root, &root.join(&path))?;
            match find(&root.join(&path), &content).map_err(|error| cannot("read", &root.join(&path), &error))? {
                Found::Same => {}
                Found::Other if !self.force => foreign.push(path),
                Found::Nothing | Found::OtherMode | Found::Other => changes.push((path, content)),
            }
        }
        if !foreign.is_empty() {
            let names: Vec<_> = foreign.iter().map(|path| harmless(&root.join(path).display().to_string())).collect();
            let text =
                format!("nothing was written, as someone changed {}: --force replaces what is there", names.join(", "));
            return Err(CliError { exit: Exit::Conflict, text });
        }
        write(&root, &changes)?;
        let written: Vec<String> = changes.into_iter().map(|(path, _)| format!("root/{path}")).collect();
        let left = self.left_to_do(&description);
        match context.screen.format {
            Format::Json => context.screen.json(&serde_json::json!({ "written": written, "left_to_do": left })),
            Format::Text => context.screen.line(&told(&written, &left)),
        }
    }

    /// What only the owner of the description can do.
    fn left_to_do(&self, description: &str) -> Vec<String> {
        let has = |package: &&str| description.contains(&format!("name=\"{package}\""));
        let missing = self.task.needs().iter().filter(|(_, packages)| !packages.iter().any(has));
        let mut left: Vec<String> = missing
            .filter_map(|(what, packages)| {
                let package = packages.first()?;
                Some(format!("the image needs {what}: add <package name=\"{package}\"/> to config.xml"))
            })
            .collect();
        if self.task == Task::FirstBoot && !description.contains("installpxe=\"true\"") {
            left.push(
                "the image cannot be installed over the network: add installpxe=\"true\" to its <type>".to_owned(),
            );
        }
        left
    }
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> CliError {
    CliError::failed(format!("cannot {what} {}: {error}", harmless(&path.display().to_string())))
}

/// The text of the description, which must be one of KIWI's: `config.xml`, or a file that ends in `.kiwi`.
fn read_description(dir: &Path) -> Result<String> {
    let others = fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let mut others: Vec<PathBuf> = others.filter(|path| path.extension().is_some_and(|end| end == "kiwi")).collect();
    others.sort();
    for path in [dir.join("config.xml")].into_iter().chain(others) {
        match fs::read_to_string(&path) {
            Ok(text) if text.contains("<image") => return Ok(text),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(cannot("read", &path, &error)),
        }
    }
    let dir = harmless(&dir.display().to_string());
    Err(CliError::usage(format!(
        "{dir} is no KIWI description: there is no config.xml or *.kiwi with an <image> in it"
    )))
}

/// Refuses an overlay in which a link stands for a folder: it may lead to the folder of that name of this very machine.
fn check_folders(root: &Path, path: &Path) -> Result {
    let folders: Vec<&Path> = path.ancestors().skip(1).take_while(|folder| folder.starts_with(root)).collect();
    for folder in folders.into_iter().rev() {
        match fs::symlink_metadata(folder) {
            Ok(found) if found.is_symlink() => {
                let folder = harmless(&folder.display().to_string());
                return Err(CliError::usage(format!("nothing was written, as {folder} is a link: make it a folder")));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(cannot("read", folder, &error)),
        }
    }
    Ok(())
}

fn find(path: &Path, wanted: &Content) -> io::Result<Found> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error),
    };
    if found.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(match wanted {
        Content::File { text, mode } if found.is_file() && fs::read(path)? == text.as_bytes() => {
            if found.permissions().mode() & 0o777 == *mode { Found::Same } else { Found::OtherMode }
        }
        Content::Link(target) if found.is_symlink() && fs::read_link(path)? == Path::new(target) => Found::Same,
        Content::File { .. } | Content::Link(_) => Found::Other,
    })
}

/// Puts everything beside its place and renames at last: an interrupted run, or a full disk, leaves no half script that an image
/// would be built with.
fn write(root: &Path, changes: &[(String, Content)]) -> Result {
    let mut staged = Vec::new();
    for (path, content) in changes {
        let path = root.join(path);
        let beside = path.with_extension("kiwispray-new");
        let staging = stage(&beside, content);
        staged.push((beside, path));
        if let (Err(error), Some((_, path))) = (staging, staged.last()) {
            let refusal = cannot("write", path, &error);
            // What cannot be removed is of no name that means anything.
            staged.iter().for_each(|(beside, _)| drop(fs::remove_file(beside)));
            return Err(refusal);
        }
    }
    for (beside, path) in staged {
        fs::rename(beside, &path).map_err(|error| cannot("write", &path, &error))?;
    }
    Ok(())
}

fn stage(beside: &Path, content: &Content) -> io::Result<()> {
    if let Some(folder) = beside.parent() {
        make_folder(folder)?;
    }
    match fs::remove_file(beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    match content {
        Content::File { text, mode } => {
            fs::write(beside, text)?;
            fs::set_permissions(beside, fs::Permissions::from_mode(*mode))
        }
        Content::Link(target) => symlink(target, beside),
    }
}

/// Makes a folder and those above it. KIWI gives the image the permissions of the overlay's folders, so a private one here would
/// be a private `/usr` there.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent() {
        make_folder(above)?;
    }
    fs::create_dir(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
}

fn told(written: &[String], left: &[String]) -> String {
    let mut lines = match written {
        [] => vec!["nothing had to be changed".to_owned()],
        written => written.iter().map(|path| format!("wrote {path}")).collect(),
    };
    lines.extend(left.iter().map(|left| format!("left to do: {left}")));
    lines.push("next: build the image, and bring it in with `kiwispray image import`".to_owned());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::screen::{Color, Screen, Verbosity};
    use super::*;

    const CONFIG: &str = "<image><type image=\"oem\" installpxe=\"true\"/><package name=\"curl\"/></image>";

    fn description() -> TempDir {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("config.xml"), CONFIG).unwrap();
        dir
    }

    fn hook(dir: &TempDir, task: Task, force: bool) -> Result {
        let screen = Screen::new(Color::Never, Format::Json, Verbosity::Quiet);
        Hook { dir: dir.path().to_owned(), task, force }.run(&Context { screen, server: None })
    }

    fn snapshot(dir: &TempDir) -> Vec<(String, Option<Vec<u8>>)> {
        let paths = Task::FirstBoot.files().into_iter().map(|(path, _)| path);
        paths.map(|path| (path.clone(), fs::read(dir.path().join("root").join(path)).ok())).collect()
    }

    #[test]
    fn a_description_gets_an_enabled_unit_whose_script_is_there() {
        let dir = description();
        hook(&dir, Task::FirstBoot, false).unwrap();
        let root = dir.path().join("root");
        let enabled = root.join("etc/systemd/system/multi-user.target.wants/kiwispray-firstboot.service");
        let unit = fs::read_to_string(enabled).unwrap();
        let script = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/bin/sh /")).unwrap();
        let script = root.join(script);
        assert_eq!(fs::metadata(&script).unwrap().permissions().mode() & 0o777, 0o755);
        assert!(script.with_file_name("kiwispray.sh").is_file());
    }

    #[test]
    fn every_task_runs_its_own_script() {
        for task in Task::value_variants() {
            let files = task.files();
            let name = format!("{SCRIPTS}/{}", task.script().0);
            assert!(files.iter().any(|(path, _)| *path == name), "{name}");
            let unit = files.iter().find(|(path, _)| *path == format!("{UNITS}/{UNIT}")).unwrap();
            assert!(
                matches!(&unit.1, Content::File { text, .. } if text.contains(&format!("ExecStart=/bin/sh /{name}\n")))
            );
        }
    }

    #[test]
    fn a_second_run_changes_nothing_and_a_changed_file_is_kept_unless_forced() {
        let dir = description();
        hook(&dir, Task::FirstBoot, false).unwrap();
        let first = snapshot(&dir);
        hook(&dir, Task::FirstBoot, false).unwrap();
        assert_eq!(snapshot(&dir), first);

        let script = dir.path().join("root/usr/lib/kiwispray/first-boot.sh");
        fs::write(&script, "echo mine\n").unwrap();
        fs::remove_file(dir.path().join("root/usr/lib/kiwispray/kiwispray.sh")).unwrap();
        let refused = hook(&dir, Task::FirstBoot, false).unwrap_err();
        assert_eq!(refused.exit, Exit::Conflict);
        assert!(refused.text.contains("first-boot.sh") && refused.text.contains("--force"), "{}", refused.text);
        assert!(!dir.path().join("root/usr/lib/kiwispray/kiwispray.sh").exists(), "half of it was written");
        hook(&dir, Task::FirstBoot, true).unwrap();
        assert_eq!(snapshot(&dir), first);
    }

    #[test]
    fn other_permissions_are_nobodys_change_and_are_put_right() {
        let dir = description();
        hook(&dir, Task::FirstBoot, false).unwrap();
        let script = dir.path().join("root/usr/lib/kiwispray/first-boot.sh");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o664)).unwrap();
        hook(&dir, Task::FirstBoot, false).unwrap();
        assert_eq!(fs::metadata(&script).unwrap().permissions().mode() & 0o777, 0o755);
    }

    #[test]
    fn nothing_is_written_where_a_link_in_the_overlay_leads() {
        let elsewhere = TempDir::new().unwrap();
        for link in ["root", "root/usr", "root/etc/systemd/system"] {
            let dir = description();
            fs::create_dir_all(dir.path().join(link).parent().unwrap()).unwrap();
            symlink(elsewhere.path(), dir.path().join(link)).unwrap();
            let refused = hook(&dir, Task::FirstBoot, true).unwrap_err();
            assert!(refused.text.ends_with("is a link: make it a folder"), "{}", refused.text);
            assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0, "{link}");
            assert!(snapshot(&dir).iter().all(|(_, bytes)| bytes.is_none()), "{link}");
        }
    }

    #[test]
    fn a_description_that_cannot_be_changed_whole_is_not_changed() {
        let dir = description();
        // Where the last of the files would be made.
        let obstacle = dir.path().join("root/etc/systemd/system-preset/00-kiwispray.kiwispray-new");
        fs::create_dir_all(&obstacle).unwrap();
        assert!(hook(&dir, Task::FirstBoot, false).is_err());
        assert!(snapshot(&dir).iter().all(|(_, bytes)| bytes.is_none()));
        assert_eq!(fs::read_dir(dir.path().join("root/usr/lib/kiwispray")).unwrap().count(), 0);
    }

    #[test]
    fn a_description_may_have_any_name_that_kiwi_takes() {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("leap.kiwi"), CONFIG).unwrap();
        hook(&dir, Task::FirstBoot, false).unwrap();
        assert!(dir.path().join("root/usr/lib/kiwispray/first-boot.sh").is_file());
    }

    #[test]
    fn what_is_no_description_is_refused_and_untouched() {
        let dir = TempDir::new().unwrap();
        let refused = hook(&dir, Task::FirstBoot, false).unwrap_err();
        assert_eq!(refused.exit, Exit::Usage);
        assert!(!dir.path().join("root").exists());
    }

    #[test]
    fn what_the_description_lacks_is_said() {
        let left = |task, description: &str| Hook { dir: PathBuf::new(), task, force: false }.left_to_do(description);
        assert_eq!(left(Task::FirstBoot, CONFIG), Vec::<String>::new());
        insta::assert_snapshot!(told(&["root/a".to_owned()], &left(Task::FirstBoot, "<image>")), @r#"
        wrote root/a
        left to do: the image needs curl or wget: add <package name="curl"/> to config.xml
        left to do: the image cannot be installed over the network: add installpxe="true" to its <type>
        next: build the image, and bring it in with `kiwispray image import`
        "#);
        assert_eq!(left(Task::Wipe, CONFIG).len(), 2);
    }
}

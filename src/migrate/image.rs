//! What becomes of a folder below `images/`.
//!
//! The invariant: a folder that is not understood is told, not guessed at. An image is an order unless somebody said that it
//! is harmless, and it is offered only once somebody said which disk it may write.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::ipxe::{self, BootScript};
use super::templates::post_install;
use super::{Choices, Item, MigrateError, What, hosts::shortened};
use crate::domain::{DevicePolicy, StateName, Writes};
use crate::images::{FileName, FolderKind, FolderRequest, KernelArgs};

/// An image of the original.
#[derive(Debug, Clone)]
pub struct OldImage {
    /// Its folder there.
    pub from: PathBuf,
    /// What it is to become.
    pub request: FolderRequest,
    /// Bytes of its files.
    pub size_bytes: u64,
}

/// The template of the image's folder that boots it.
const HOST: &str = "host.tmpl";
/// The template of the image's folder that the installed system runs.
const POST_INSTALL: &str = "post_install.tmpl";

/// A site's own scripts for images that bring none.
#[derive(Debug, Default)]
pub(super) struct SiteScripts {
    /// `known_host.tmpl`.
    pub(super) known_host: Option<String>,
    /// Whether that becomes the script of all KIWI images, so that an image's own must stand before it.
    pub(super) overrides_kiwi: bool,
}

/// Plans every image; what cannot be one is told by its item.
pub(super) fn read(
    dir: &Path,
    choices: &Choices,
    scripts: &SiteScripts,
    of_state: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<(Item, Option<OldImage>)>, MigrateError> {
    let images = dir.join("images");
    let entries = match std::fs::read_dir(&images) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(MigrateError::Unreadable { path: images, error: error.to_string() }),
    };
    let mut folders: Vec<PathBuf> = Vec::new();
    for entry in entries {
        let entry =
            entry.map_err(|error| MigrateError::Unreadable { path: images.clone(), error: error.to_string() })?;
        if entry.path().is_dir() && !entry.file_name().to_string_lossy().starts_with('.') {
            folders.push(entry.path());
        }
    }
    folders.sort();
    Ok(folders.into_iter().map(|folder| plan(folder, choices, scripts, of_state)).collect())
}

fn plan(
    folder: PathBuf,
    choices: &Choices,
    scripts: &SiteScripts,
    of_state: &dyn Fn(&str) -> Option<String>,
) -> (Item, Option<OldImage>) {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut item = Item::new(What::Image, format!("images/{}", shortened(&name)));
    match image(&folder, &name, choices, scripts, of_state, &mut item.notes) {
        Ok(image) => {
            item.to = Some(image.request.name.to_string());
            (item, Some(image))
        }
        Err(why) => {
            item.notes.push(why);
            (item, None)
        }
    }
}

fn image(
    folder: &Path,
    name: &str,
    choices: &Choices,
    scripts: &SiteScripts,
    of_state: &dyn Fn(&str) -> Option<String>,
    notes: &mut Vec<String>,
) -> Result<OldImage, String> {
    let state: StateName = name.parse().map_err(|error: crate::domain::StatesError| error.to_string())?;
    if state.is_built_in() {
        return Err(format!("{state} is built in: no image can have that name"));
    }
    let (files, size_bytes) = files(folder, notes).map_err(|error| format!("it cannot be read: {error}"))?;
    let own = text(folder, HOST)?.or_else(|| of_state(name));
    let is_own = own.is_some();
    let source = own.or_else(|| scripts.known_host.clone());
    let script = source.as_deref().map(|text| ipxe::boot_script(text, name));
    let kind = kind(&state, script.as_ref(), &files, choices)?;
    let mut templates = Vec::new();
    if let Some(script) = script.as_ref().filter(|_| is_own) {
        notes.extend(script.notes.iter().map(|note| format!("{HOST}: {note}")));
        if script.is_plain && !scripts.overrides_kiwi {
            notes.push(format!("{HOST} says nothing of its own: the built-in script and image.toml do the same"));
        } else {
            let header = format!("{{{{!-- Translated from KIWIspray's images/{name}/{HOST}. --}}}}\n");
            templates.push((file_name("host.ipxe.hbs")?, header + &script.text));
        }
    }
    if let Some(text) = text(folder, POST_INSTALL)? {
        let (text, more) = post_install(&text, &format!("images/{name}/{POST_INSTALL}"));
        notes.extend(more.into_iter().map(|note| format!("{POST_INSTALL}: {note}")));
        templates.push((file_name("post_install.sh.hbs")?, text));
    }
    let append = script.map(|script| (script.device, script.append));
    let (named, append) = append.map_or((None, None), |(device, append)| (device, Some(append)));
    let append = append.map(|text| text.parse::<KernelArgs>().map_err(|error| error.to_string())).transpose()?;
    let writes = match &kind {
        FolderKind::Kiwi => Writes::Disk,
        FolderKind::Linux { writes, .. } => *writes,
    };
    let device = if writes.is_order() { device(&state, named.as_deref(), choices, notes) } else { None };
    let inventory = name == "discover";
    let request = FolderRequest { name: state, kind, device, append, inventory, templates };
    Ok(OldImage { from: folder.to_owned(), request, size_bytes })
}

fn device(state: &StateName, named: Option<&str>, choices: &Choices, notes: &mut Vec<String>) -> Option<DevicePolicy> {
    if let Some(device) = choices.devices.get(state).or(choices.device.as_ref()) {
        return Some(device.clone());
    }
    if let Some(device) = named.and_then(|text| text.parse::<DevicePolicy>().ok()) {
        notes.push(format!("its script installs on {device}, and so does this image"));
        return Some(device);
    }
    notes.push(format!(
        "nothing says which disk it may write, so it is not offered: add --device {state}=DEVICE, or set `device` in its \
         image.toml"
    ));
    None
}

fn kind(
    state: &StateName,
    script: Option<&BootScript>,
    files: &BTreeSet<FileName>,
    choices: &Choices,
) -> Result<FolderKind, String> {
    let has = |name: &str| files.iter().find(|file| file.as_str() == name).cloned();
    let has_installer = files.iter().any(|file| file.as_str().starts_with("pxeboot"));
    let is_kiwi = script.is_some_and(|script| script.is_kiwi);
    if has_installer && (is_kiwi || script.is_none_or(|script| script.kernel.is_none())) {
        return Ok(FolderKind::Kiwi);
    }
    let boots = script.and_then(|script| script.kernel.as_deref());
    let Some(kernel) = boots.and_then(has).or_else(|| has("linux")) else {
        return Err(match boots {
            Some(kernel) => format!("it is no image: its script loads {}, which is not there", shortened(kernel)),
            None => "it is no image: neither KIWI's installer nor a kernel that a script names".to_owned(),
        });
    };
    let initrd = script.and_then(|script| script.initrd.as_deref()).and_then(has).or_else(|| has("initrd"));
    let harmless = choices.harmless.contains(state) || state.as_str() == "discover";
    let writes = if harmless { Writes::Nothing } else { Writes::Wipe };
    Ok(FolderKind::Linux { kernel, initrd, payload: None, writes })
}

/// The files that come along, and their bytes; what does not is noted.
fn files(folder: &Path, notes: &mut Vec<String>) -> std::io::Result<(BTreeSet<FileName>, u64)> {
    let mut files = BTreeSet::new();
    let mut size_bytes = 0_u64;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let text = entry.file_name().to_string_lossy().into_owned();
        let Ok(name) = text.parse::<FileName>() else {
            notes.push(format!("the file {:?} has a name that no image's file can have: left out", shortened(&text)));
            continue;
        };
        let kind = entry.file_type()?;
        let leads_beside = || {
            let target = std::fs::read_link(entry.path()).ok()?;
            let beside =
                target.to_str()?.parse::<FileName>().is_ok() && std::fs::metadata(entry.path()).ok()?.is_file();
            beside.then_some(())
        };
        if kind.is_file() && name.is_servable() {
            size_bytes = size_bytes.saturating_add(entry.metadata()?.len());
            files.insert(name);
        } else if kind.is_symlink() && leads_beside().is_some() {
            files.insert(name);
        } else if kind.is_symlink() {
            notes.push(format!("{name} leads out of the folder, or nowhere: left out"));
        } else {
            notes.push(format!("{name} is no file of an image: left out"));
        }
    }
    Ok((files, size_bytes))
}

/// The text of a template in a folder, if it has one.
fn text(folder: &Path, name: &str) -> Result<Option<String>, String> {
    super::text_of(&folder.join(name)).map_err(|error| format!("{name}: {error}"))
}

fn file_name(name: &str) -> Result<FileName, String> {
    name.parse().map_err(|error: crate::images::FileNameError| error.to_string())
}

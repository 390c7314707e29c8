//! Reads an installation of the original KIWIspray and says what becomes of each part of it.
//!
//! The invariant: the original is only read. [`read`] plans everything and changes nothing; [`Plan`] holds what is to be
//! taken, and for every part of the original what was translated and what could not be. What is written is checked first by
//! the very code that will use it.
//!
//! Reading order: `hosts` (`known_hosts.json`), `image` (folders), `templates`, and below them `placeholder`, `shell` and
//! `ipxe`, which translate.

mod check;
mod hosts;
mod image;
mod ipxe;
mod placeholder;
mod settings;
mod shell;
mod templates;
#[cfg(test)]
mod tests;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::domain::{DevicePolicy, StateName, StatesError};

pub use hosts::OldHost;
pub use image::OldImage;
pub use settings::{Setting, settings_file};
pub use templates::Template;
pub use write::{Put, put, take_image};

/// What nothing in the original says.
#[derive(Debug, Clone, Default)]
pub struct Choices {
    /// The disk of every image that writes one.
    pub device: Option<DevicePolicy>,
    /// The disk of one image.
    pub devices: BTreeMap<StateName, DevicePolicy>,
    /// Images that write no disk.
    pub harmless: BTreeSet<StateName>,
}

impl Choices {
    /// From `DEVICE` or `IMAGE=DEVICE`, and names of images.
    pub fn parse(devices: &[String], harmless: &[String]) -> Result<Self, String> {
        let mut choices = Self::default();
        for text in devices {
            let device = |text: &str| text.parse::<DevicePolicy>().map_err(|error| error.to_string());
            match text.split_once('=') {
                Some((image, text)) => {
                    let image: StateName = image.parse().map_err(|error: StatesError| error.to_string())?;
                    if choices.devices.insert(image.clone(), device(text)?).is_some() {
                        return Err(format!("--device names the disk of {image} twice"));
                    }
                }
                None if choices.device.is_some() => {
                    return Err("--device names a disk for all images twice: write IMAGE=DEVICE for one".to_owned());
                }
                None => choices.device = Some(device(text)?),
            }
        }
        for text in harmless {
            choices.harmless.insert(text.parse().map_err(|error: StatesError| error.to_string())?);
        }
        Ok(choices)
    }
}

/// An installation, read, and what becomes of it.
#[derive(Debug)]
pub struct Plan {
    /// The hosts that can be taken, in the order of their numbers.
    pub hosts: Vec<OldHost>,
    /// What was dropped of hosts, or looks strange.
    pub notes: Vec<String>,
    /// Hosts that cannot be taken, one sentence each.
    pub impossible: Vec<String>,
    /// The images that can be taken.
    pub images: Vec<OldImage>,
    /// The site's templates.
    pub templates: Vec<Template>,
    /// What the configuration gets.
    pub settings: Vec<Setting>,
    /// A line of the report for every part of the original but its hosts.
    pub items: Vec<Item>,
}

/// A part of the original, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item {
    /// What it is.
    pub what: What,
    /// Where it is in the original.
    pub from: String,
    /// What it is here; none: it is not taken.
    pub to: Option<String>,
    /// Whether nothing needs to be taken, as kiwispray brings the same.
    pub is_built_in: bool,
    /// What a person should know or do.
    pub notes: Vec<String>,
}

/// Kinds of parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// A folder below `images/`.
    Image,
    /// A file below `templates/`.
    Template,
    /// A setting that the original had without naming it.
    Setting,
}

/// Why an installation cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Not the folder of an installation.
    #[error("{} has no known_hosts.json: name the folder in which the original's ks.py runs", .0.display())]
    NoHosts(PathBuf),
    /// The system refused to read it.
    #[error("{} cannot be read: {error}", path.display())]
    Unreadable {
        /// What.
        path: PathBuf,
        /// Why.
        error: String,
    },
    /// No list of hosts could be so large.
    #[error("{} is larger than {most_mb} MiB: that is no list of hosts", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        most_mb: u64,
    },
    /// Not JSON.
    #[error("{} is damaged, {error}: stop the original, whose writing can be seen half done, and bring back a backup", path.display())]
    NotJson {
        /// The file.
        path: PathBuf,
        /// What the parser said, with line and column.
        error: String,
    },
    /// JSON, but no list.
    #[error("{} holds no list of hosts", .0.display())]
    NoList(PathBuf),
    /// A choice for an image that there is not.
    #[error("there is no image {0} in the original: is it mistyped?")]
    NoSuchImage(StateName),
}

impl Item {
    fn new(what: What, from: String) -> Self {
        Self { what, from, to: None, is_built_in: false, notes: Vec::new() }
    }
}

/// Largest template that is read.
const TEMPLATE_BYTES_MAX: u64 = 256 * 1024;

/// Reads the installation in a folder and plans what becomes of it.
pub fn read(dir: &Path, choices: &Choices) -> Result<Plan, MigrateError> {
    let hosts = hosts::read(dir)?;
    let template = |name: &str| text_of(&dir.join("templates").join(name)).ok().flatten();
    // The original looked into the image's folder first, then for a template named as the state.
    let of_state = |state: &str| {
        let text = template(&format!("{state}.tmpl"));
        text.filter(|_| !matches!(state, "new" | "finished" | "known_host" | "post_install"))
    };
    let mut planned_templates = templates::read(dir, &|state| dir.join("images").join(state).is_dir())?;
    let overrides_kiwi =
        planned_templates.iter().any(|(_, made)| made.as_ref().is_some_and(|made| made.name == "boot_kiwi.ipxe.hbs"));
    let scripts = image::SiteScripts { known_host: template("known_host.tmpl"), overrides_kiwi };
    let mut planned_images = image::read(dir, choices, &scripts, &of_state)?;
    for name in choices.devices.keys().chain(&choices.harmless) {
        let is_there = |(_, image): &(Item, Option<OldImage>)| image.as_ref().is_some_and(|i| i.request.name == *name);
        if !planned_images.iter().any(is_there) {
            return Err(MigrateError::NoSuchImage(name.clone()));
        }
    }
    check::check(&hosts.hosts, &mut planned_images, &mut planned_templates);
    let settings = settings::read(dir);
    let mut items = Vec::new();
    let mut images = Vec::new();
    for (item, image) in planned_images {
        items.push(item);
        images.extend(image);
    }
    let mut templates = Vec::new();
    for (item, template) in planned_templates {
        items.push(item);
        templates.extend(template);
    }
    items.extend(settings.iter().map(Setting::item));
    let hosts::Hosts { hosts, notes, impossible } = hosts;
    Ok(Plan { hosts, notes, impossible, images, templates, settings, items })
}

/// The text of a template, if there is such a file. A link is followed as long as it stays in its folder.
fn text_of(path: &Path) -> Result<Option<String>, String> {
    let about = match std::fs::metadata(path) {
        Ok(about) => about,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("it cannot be read: {error}")),
    };
    let real = path.canonicalize().map_err(|error| format!("it cannot be read: {error}"))?;
    let folder = path.parent().and_then(|folder| folder.canonicalize().ok()).unwrap_or_default();
    if !real.starts_with(&folder) {
        return Err("it is a link that leads out of its folder".to_owned());
    }
    if !about.is_file() || about.len() > TEMPLATE_BYTES_MAX {
        return Err("it is no text file of at most 256 KiB".to_owned());
    }
    let bytes = std::fs::read(path).map_err(|error| format!("it cannot be read: {error}"))?;
    String::from_utf8(bytes).map(Some).map_err(|_| "it is no UTF-8 text".to_owned())
}

//! The documents of an order, made once before its disk is written.
//!
//! Invariant: what the machine is told to fetch later can be made for it now. A machine whose disk is written cannot be helped by
//! an error, and would be held only after it. What plugins add is not asked for here: it may be meant for one use.

use std::collections::BTreeSet;
use std::path::Path;

use crate::domain::{BootId, FirstBoot, Host, Writes};
use crate::images::{Image, Kind};
use crate::render::{BaseUrl, RenderError, Renderer};

use super::plan::document_vars;

const POST_INSTALL: &str = "post_install.sh";

/// Whoever makes documents, and for which boot.
pub(super) struct Rehearsal<'a> {
    pub(super) renderer: &'a Renderer,
    pub(super) host: &'a Host,
    pub(super) bootid: &'a BootId,
    pub(super) base: &'a BaseUrl,
    /// Whether plugins add variables.
    pub(super) plugins_add: bool,
}

impl Rehearsal<'_> {
    /// Tries every document that an image's machine will ask for.
    pub(super) fn of_image(&self, image: &Image, name: &str) -> Result<(), RenderError> {
        let folder = Some(image.folder.as_path());
        let mut wanted = self.renderer.documents_of_image(&image.folder);
        wanted.extend(announced(image).iter().map(|name| (*name).to_owned()));
        for optional in optional(image) {
            if self.renderer.has_template(folder, optional) {
                wanted.insert((*optional).to_owned());
            }
        }
        let mut tried = BTreeSet::new();
        while let Some(document) = wanted.pop_first() {
            // The image's own file goes before the built-in template.
            if self.renderer.is_built_in(folder, &document) && image.folder.join(&document).is_file() {
                continue;
            }
            let text = self.attempt(folder, &document, name)?;
            tried.insert(document);
            if text.contains(&self.base.post_install(self.bootid)) && !tried.contains(POST_INSTALL) {
                wanted.insert(POST_INSTALL.to_owned());
            }
        }
        Ok(())
    }

    /// Tries the post-install script, if a boot script names it.
    pub(super) fn of_script(&self, script: &str, name: &str) -> Result<(), RenderError> {
        if script.contains(&self.base.post_install(self.bootid)) {
            self.attempt(None, POST_INSTALL, name)?;
        }
        Ok(())
    }

    fn attempt(&self, folder: Option<&Path>, document: &str, name: &str) -> Result<String, RenderError> {
        let variables = document_vars(self.host, self.bootid, self.base, name);
        Ok(self.renderer.try_document(folder, document, &variables, self.plugins_add)?.unwrap_or_default())
    }
}

/// What an image's system asks for in any case.
fn announced(image: &Image) -> &'static [&'static str] {
    match (image.manifest.first_boot, image.manifest.writes) {
        // What wipes leaves no system behind that would ask.
        (None, Writes::Wipe) => &[],
        (None, Writes::Disk | Writes::Nothing) => &[POST_INSTALL],
        (Some(FirstBoot::Nocloud), _) => &["meta-data", "user-data", "vendor-data"],
        (Some(FirstBoot::Ignition), _) => &["config.ign"],
    }
}

/// What it takes if it is there.
fn optional(image: &Image) -> &'static [&'static str] {
    match (image.manifest.kind, image.manifest.first_boot) {
        (Kind::Kiwi, Some(FirstBoot::Nocloud)) => &["config.bootoptions", "network-config"],
        (Kind::Kiwi, _) => &["config.bootoptions"],
        (_, Some(FirstBoot::Nocloud)) => &["network-config"],
        (_, _) => &[],
    }
}

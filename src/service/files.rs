//! The files of one boot: what installers fetch below `/b/<bootid>/`, and the script that installed systems run.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use serde_json::{Map, Value};

use crate::domain::{Boot, BootId, Change, FetchRefused, Host, StateName, start_attempt};
use crate::hooks::{self, Hook, RenderRefused, RenderRequest, Run};
use crate::images::{Delivery, FileName, OpenedFile, Refused};
use crate::render::{BaseUrl, Document, RenderError};
use crate::store::StoreError;

use super::Service;
use super::plan::{document_vars, known_host};
use super::progress::History;
use super::report::{Call, CallRefused};

/// A file of one boot.
pub enum BootFile {
    /// A file of the image, and who counts its bytes.
    Plain(OpenedFile, Arc<dyn Delivery>),
    /// A template, rendered for this boot.
    Rendered(Document),
}

/// Why a file of a boot is not served.
#[derive(Debug, thiserror::Error)]
pub enum FileRefused {
    /// There is no such boot, it is over, or the image has no such file.
    #[error("there is no such file")]
    NotFound,
    /// The file cannot be read.
    #[error("the file cannot be read")]
    Unreadable(#[source] io::Error),
    /// The template is broken.
    #[error("the document cannot be rendered")]
    Render(#[source] RenderError),
    /// A plugin that adds to the document must be waited for.
    #[error("the document cannot be rendered yet; try again")]
    Plugin(#[from] RenderRefused),
    /// The store did not answer.
    #[error("the server cannot reach its store; try again")]
    Store(#[from] StoreError),
}

/// Whether a request wants the bytes or only to know about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// GET.
    Bytes,
    /// HEAD: no attempt, no progress.
    Head,
}

impl Service {
    /// A file below `/b/<bootid>/`. The segment is the raw one, still percent-encoded. The first one that is fetched makes
    /// the boot an attempt, which is durable before this returns.
    pub async fn boot_file(
        self: &Arc<Self>,
        bootid: &str,
        raw_segment: &str,
        wanted: Wanted,
        base: &BaseUrl,
    ) -> Result<BootFile, FileRefused> {
        let bootid: BootId = bootid.parse().map_err(|_| FileRefused::NotFound)?;
        let host = self.store.host(bootid.host()).await?.ok_or(FileRefused::NotFound)?;
        let (service, segment, looked_up) = (Arc::clone(self), raw_segment.to_owned(), host.clone());
        let found = tokio::task::spawn_blocking(move || service.look_up(&looked_up, &bootid, &segment));
        let (opened, is_payload) = match found.await.unwrap_or_else(|error| Err(fault(error)))? {
            Found::File(opened, is_payload) => (opened, is_payload),
            Found::Template(image, name) => {
                let mut variables = document_vars(&host, &bootid, base, image.as_str());
                variables.vars = self.plugin_variables(&host, &name, base).await?;
                let folder = self.catalogue.root().join(image.as_str());
                let renderer = Arc::clone(&self.renderer);
                let rendering =
                    tokio::task::spawn_blocking(move || renderer.document(Some(&folder), &name, &variables));
                let document = rendering.await.map_err(fault)?.map_err(FileRefused::Render)?;
                return Ok(BootFile::Rendered(document));
            }
        };
        let file = opened.name().to_string();
        if wanted == Wanted::Bytes {
            let history = self.begin_attempt(bootid, opened.name()).await?;
            self.progress.begin(bootid, history, &file, opened.size_bytes(), self.clock.now());
        }
        let counted = Counted { service: Arc::clone(self), bootid, file, is_payload, wanted };
        Ok(BootFile::Plain(opened, Arc::new(counted)))
    }

    /// The files of images, for whoever asks by the image's name.
    pub const fn image_files(&self) -> &crate::images::ImageFiles {
        &self.files
    }

    /// The script that an installed system runs: the image's own, or the site's.
    pub async fn post_install(&self, call: &Call, base: &BaseUrl) -> Result<String, PostInstallRefused> {
        let (host, bootid) = self.caller(call).await?;
        let boot = host.current_boot().filter(|boot| boot.bootid == bootid).ok_or(CallRefused::WrongBootId)?;
        let name = boot.image.as_ref().unwrap_or(host.states.current());
        let folder = boot.image.as_ref().map(|image| self.catalogue.root().join(image.as_str()));
        let mut variables = document_vars(&host, &bootid, base, name.as_str());
        variables.vars = self.plugin_variables(&host, "post-install", base).await?;
        let renderer = Arc::clone(&self.renderer);
        let rendering = move || renderer.document(folder.as_deref(), "post_install.sh", &variables);
        match tokio::task::spawn_blocking(rendering).await {
            Ok(document) => Ok(document?.text),
            Err(error) => Err(PostInstallRefused::Fault(error)),
        }
    }

    /// What plugins add to a document, as an object.
    async fn plugin_variables(&self, host: &Host, document: &str, base: &BaseUrl) -> Result<Value, RenderRefused> {
        let hooks = self.hooks();
        if hooks.asked(Hook::Render).next().is_none() {
            return Ok(Value::Object(Map::new()));
        }
        let now_ms = u64::try_from(self.clock.now().as_millisecond()).unwrap_or(0);
        let id = format!("render-{}-{}-{}-{document}", self.store.generation(), host.id, host.event_count);
        let mut vars = Map::new();
        vars.insert("base".to_owned(), Value::from(base.to_string()));
        let request = RenderRequest { host: known_host(host), document: document.to_owned(), vars };
        hooks.variables(hooks::Call::new(id, now_ms, Run::Real), request).await.variables.map(Value::Object)
    }

    /// What a boot's URL leads to. Blocks on folders that may be on a disk that hangs.
    fn look_up(&self, host: &Host, bootid: &BootId, raw_segment: &str) -> Result<Found, FileRefused> {
        let boot = host.current_boot().filter(|boot| boot.bootid == *bootid).ok_or(FileRefused::NotFound)?;
        let image = boot.image.as_ref().ok_or(FileRefused::NotFound)?;
        let template = self.template(image, raw_segment);
        let folder = self.catalogue.root().join(image.as_str());
        // A plain file of the image is somebody's own document, too: only a built-in one steps back for it.
        let steps_back = template.as_ref().is_some_and(|name| {
            self.renderer.is_built_in(Some(&folder), name) && self.files.open(image, raw_segment).is_ok()
        });
        if let Some(template) = template.filter(|_| !steps_back) {
            return Ok(Found::Template(image.clone(), template));
        }
        // The image may be replaced between two looks at it: then the file may be the payload of either.
        let before = self.is_payload(boot, image, raw_segment);
        let opened = self.files.open(image, raw_segment).map_err(|refused| match refused {
            Refused::NotFound | Refused::Method => FileRefused::NotFound,
            Refused::Unreadable(error) => FileRefused::Unreadable(error),
        })?;
        let is_payload = before || self.is_payload(boot, image, opened.name().as_str());
        Ok(Found::File(opened, is_payload))
    }

    /// Whether the whole of a file means "installed". An image that cannot say any more which file that is: then each
    /// one may be. Doubt means hold.
    fn is_payload(&self, boot: &Boot, image: &StateName, file: &str) -> bool {
        match self.catalogue.image(image).map(|image| image.payload) {
            Ok(Some(payload)) => payload.name.as_str() == file,
            Ok(None) => boot.writes.is_order(),
            Err(_) => true,
        }
    }

    /// The name of the image's template that stands behind a file's name; none if there is none.
    fn template(&self, image: &StateName, name: &str) -> Option<String> {
        let folder = self.catalogue.root().join(image.as_str());
        // KIWI asks for these arguments under the image's full name.
        let name = if name.ends_with(".config.bootoptions") { "config.bootoptions" } else { name };
        // Boot scripts are answers to /bootstrap, never files.
        let is_document = !name.ends_with(".ipxe")
            && name.parse::<FileName>().is_ok()
            && self.renderer.has_template(Some(&folder), name);
        is_document.then(|| name.to_owned())
    }

    async fn begin_attempt(&self, bootid: BootId, file: &FileName) -> Result<History, FileRefused> {
        let change = |host: &Host| start_attempt(host, &bootid, file.as_str(), self.clock.now());
        Ok(match self.advance_boot(bootid, change).await? {
            Advanced::Now => History::Whole,
            Advanced::Before => History::Lost,
        })
    }

    pub(super) async fn advance_boot(
        &self,
        bootid: BootId,
        change: impl Fn(&Host) -> Result<Option<Change>, FetchRefused>,
    ) -> Result<Advanced, FileRefused> {
        for _ in 0..ADVANCE_RETRIES {
            let host = self.store.host(bootid.host()).await?.ok_or(FileRefused::NotFound)?;
            let change = change(&host).map_err(|FetchRefused::Over| FileRefused::NotFound)?;
            let Some(change) = change else { return Ok(Advanced::Before) };
            match self.commit(&host, change).await {
                Ok(_) => return Ok(Advanced::Now),
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }
}

/// How often it is tried to note how far a boot came: to give up would cut an installer's download.
const ADVANCE_RETRIES: u32 = 32;

/// What a boot's URL leads to.
enum Found {
    /// A template of this image, under this name.
    Template(StateName, String),
    /// A file, and whether the whole of it means "installed".
    File(OpenedFile, bool),
}

fn fault(error: tokio::task::JoinError) -> FileRefused {
    FileRefused::Unreadable(io::Error::other(error))
}

/// Whether a boot came further by this request, or had come so far before.
pub(super) enum Advanced {
    Now,
    Before,
}

/// Why there is no post-install script.
#[derive(Debug, thiserror::Error)]
pub enum PostInstallRefused {
    /// No valid caller.
    #[error(transparent)]
    Call(#[from] CallRefused),
    /// The template is broken.
    #[error("the post-install script cannot be rendered; try again")]
    Render(#[from] RenderError),
    /// A plugin that adds to the script must be waited for.
    #[error("the post-install script cannot be rendered yet; try again")]
    Plugin(#[from] RenderRefused),
    /// A fault of ours.
    #[error("the server has a fault; try again")]
    Fault(#[source] tokio::task::JoinError),
}

/// Counts one request for one file.
struct Counted {
    service: Arc<Service>,
    bootid: BootId,
    file: String,
    /// Whether the whole of this file means "installed".
    is_payload: bool,
    wanted: Wanted,
}

impl Delivery for Counted {
    fn handing(&self, bytes: Range<u64>) -> bool {
        let whole = self.service.progress.add(self.bootid, &self.file, bytes, self.service.clock.now());
        whole && self.is_payload
    }

    fn before_last(&self) -> BoxFuture<'_, io::Result<()>> {
        self.service.delivered_or_bequeathed(self.bootid, &self.file).boxed()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.wanted == Wanted::Bytes {
            self.service.progress.end(self.bootid, self.service.clock.now());
        }
    }
}

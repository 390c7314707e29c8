//! `kiwispray image …`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::fs::File;
use tokio_util::io::ReaderStream;

use super::Context;
use super::client::{query_of, segment, with_query};
use super::error::{CliError, Result};
use super::hook::Hook;
use super::screen::{Format, Screen, Verbosity};
use super::table::{facts, images};
use super::words::{disk, harmless, shell, size};
use crate::wire::{Erasure, ImageView, ImportQuery, ImportedView};

/// How much of an archive is read at once.
const PIECE_BYTES: usize = 256 * 1024;

/// What can be done about images.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Import an image that KIWI built
    Import(Import),
    /// List images
    List,
    /// Show an image
    Show {
        /// The image
        name: String,
    },
    /// Remove an image
    Remove(Remove),
    /// Make a KIWI description build images that report to the server
    Hook(Hook),
}

/// Imports an image.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The image's name, which is the state that boots it
    name: String,
    /// The archive: NAME.install.tar or NAME.install.tar.xz
    file: PathBuf,
    /// The disk to write: /dev/disk/by-id/…, another /dev/…, smallest, or first (by name)
    #[arg(long, value_name = "DEVICE")]
    device: String,
    /// More kernel arguments
    #[arg(long, value_name = "ARGUMENTS", allow_hyphen_values = true)]
    append: Option<String>,
    /// Replace an image of that name
    #[arg(long)]
    replace: bool,
}

/// Removes an image.
#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// The image
    name: String,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Remove it even if hosts have it in their queue, who will hold
    #[arg(long)]
    force: bool,
}

impl ImageCommand {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let screen = &context.screen;
        match self {
            Self::Import(import) => import.run(context).await,
            Self::List => {
                let all: Vec<ImageView> = context.client()?.get("/api/v1/images").await?;
                match screen.format {
                    Format::Json => screen.json(&all),
                    Format::Text if all.is_empty() => {
                        screen.remark("There is no image yet: kiwispray image import NAME FILE --device first");
                        Ok(())
                    }
                    Format::Text => screen.line(&images(&all, screen.look())),
                }
            }
            Self::Show { name } => {
                let image: ImageView = context.client()?.get(&path(&name)).await?;
                match screen.format {
                    Format::Json => screen.json(&image),
                    Format::Text => screen.line(&shown(&image)),
                }
            }
            Self::Remove(remove) => remove.run(context).await,
            Self::Hook(hook) => hook.run(context),
        }
    }
}

impl Import {
    async fn run(self, context: &Context) -> Result {
        let (client, screen) = (context.client()?, &context.screen);
        let unreadable = |error: std::io::Error| CliError::failed(format!("{}: {error}", self.file.display()));
        let file = File::open(&self.file).await.map_err(unreadable)?;
        let about = file.metadata().await.map_err(unreadable)?;
        if !about.is_file() {
            return Err(CliError::usage(format!("{} is no file", self.file.display())));
        }
        let query = ImportQuery { device: Some(self.device), append: self.append, replace: self.replace };
        let bar = bar(about.len(), screen);
        let path = query_of(&path(&self.name), &query)?;
        let sent = bar.clone();
        let body = ReaderStream::with_capacity(file, PIECE_BYTES).inspect(move |piece| {
            sent.inc(piece.as_ref().map_or(0, |bytes| bytes.len() as u64));
        });
        let imported = client.upload(&path, about.len(), body).await;
        bar.finish_and_clear();
        let imported: ImportedView = imported?;
        match screen.format {
            Format::Json => screen.json(&imported),
            Format::Text => screen.line(&told(&imported)),
        }
    }
}

impl Remove {
    async fn run(self, context: &Context) -> Result {
        let (client, screen) = (context.client()?, &context.screen);
        let image: ImageView = client.get(&path(&self.name)).await?;
        let stake = format!("The image {} and its files will be gone.", harmless(&image.name));
        screen.confirm(&stake, self.yes)?;
        let force = self.force.then_some(("force", "true"));
        client.delete(&with_query(&path(&self.name), force)).await?;
        screen.remark(&format!("{}: removed. Undo: import it again.", harmless(&image.name)));
        Ok(())
    }
}

fn path(name: &str) -> String {
    format!("/api/v1/images/{}", segment(name))
}

fn bar(bytes: u64, screen: &Screen) -> ProgressBar {
    let is_wanted = screen.verbosity >= Verbosity::Normal;
    let target = if is_wanted { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(bytes), target);
    let template = "importing {bar:30} {percent:>3} % of {decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} to go";
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        // The template is a constant; a plain bar is no reason to stop.
        Err(_) => bar,
    }
}

fn told(imported: &ImportedView) -> String {
    let image = &imported.image;
    let name = harmless(&image.name);
    let mut lines = vec![format!("{name}: {}", if imported.replaced { "replaced" } else { "imported" })];
    if let Some(manifest) = &image.manifest {
        let erasure = Erasure { state: name.clone(), disk: manifest.device.clone() };
        lines.push(format!(
            "  a machine that boots it loses what is on {} ({} to fetch)",
            disk(&erasure),
            size(manifest.total_bytes)
        ));
    }
    if !imported.dropped_args.is_empty() {
        let args = harmless(&imported.dropped_args.join(" "));
        lines.push(format!("  left out, as the server says it itself: {args}"));
    }
    if !imported.kept_templates.is_empty() {
        lines.push(format!("  kept from the replaced image: {}", harmless(&imported.kept_templates.join(", "))));
    }
    lines.push(format!("  next: kiwispray deploy {} HOST", shell(&name)));
    lines.push(format!("  undo: kiwispray image remove {}", shell(&name)));
    lines.join("\n")
}

fn shown(image: &ImageView) -> String {
    let mut rows = vec![("image", harmless(&image.name))];
    match &image.problem {
        Some(problem) => rows.push(("offered", format!("no: {}", harmless(problem)))),
        None => rows.push(("offered", "yes".to_owned())),
    }
    if let Some(manifest) = &image.manifest {
        let optional = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), harmless);
        let payload = match (&manifest.payload, manifest.payload_bytes) {
            (Some(name), Some(bytes)) => format!("{} ({})", harmless(name), size(bytes)),
            (name, _) => optional(name),
        };
        rows.extend([
            ("kind", harmless(&manifest.kind)),
            ("writes", harmless(&manifest.writes)),
            ("device", optional(&manifest.device)),
            ("kernel", harmless(&manifest.kernel)),
            ("initrd", optional(&manifest.initrd)),
            ("payload", payload),
            ("append", harmless(&manifest.append)),
            ("size", size(manifest.total_bytes)),
        ]);
    }
    facts(&rows)
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn an_import_tells_what_it_will_write_and_what_comes_next() {
        let imported = ImportedView {
            image: samples::image("image1"),
            dropped_args: vec!["rd.kiwi.install.pxe".into()],
            kept_templates: vec!["post_install.sh.hbs".into()],
            replaced: false,
        };
        insta::assert_snapshot!(told(&imported), @r"
        image1: imported
          a machine that boots it loses what is on its first disk (1.0 GB to fetch)
          left out, as the server says it itself: rd.kiwi.install.pxe
          kept from the replaced image: post_install.sh.hbs
          next: kiwispray deploy image1 HOST
          undo: kiwispray image remove image1
        ");
    }

    #[test]
    fn an_image_is_shown_whole() {
        insta::assert_snapshot!(shown(&samples::image("image1")));
    }
}

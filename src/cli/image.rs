//! `kiwispray image …`

use std::borrow::Cow;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Context;
use super::client::{segment, with_query};
use super::error::Result;
use super::hook::Hook;
use super::image_import::Import;
use super::image_verify::Verify;
use super::screen::{Format, Screen, Verbosity};
use super::table::{facts, images};
use super::words::{harmless, size};
use crate::wire::ImageView;

/// What can be done about images.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Import an image that KIWI built, or a kernel and initrd
    Import(Import),
    /// List images
    List,
    /// Show an image
    Show {
        /// The image
        name: String,
    },
    /// Read stored images again and compare them with what was imported
    Verify(Verify),
    /// Remove an image
    Remove(Remove),
    /// Make a KIWI description build images that report to the server
    Hook(Hook),
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
            Self::Verify(verify) => verify.run(context).await,
            Self::Remove(remove) => remove.run(context).await,
            Self::Hook(hook) => hook.run(context),
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

/// Where the admin plane has an image.
pub(super) fn path(name: &str) -> String {
    format!("/api/v1/images/{}", segment(name))
}

/// A bar for so many bytes of something that takes long.
pub(super) fn bar(doing: impl Into<Cow<'static, str>>, bytes: u64, screen: &Screen) -> ProgressBar {
    let is_wanted = screen.verbosity >= Verbosity::Normal;
    let target = if is_wanted { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(bytes), target);
    let template = "{msg} {bar:30} {percent:>3} % of {decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} to go";
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style).with_message(doing),
        // The template is a constant; a plain bar is no reason to stop.
        Err(_) => bar,
    }
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
    fn an_image_is_shown_whole() {
        insta::assert_snapshot!(shown(&samples::image("image1")));
    }
}

//! `kiwispray image verify`: stored images, read again by the server.

use clap::Args;
use futures_util::StreamExt as _;

use super::Context;
use super::client::Client;
use super::error::{CliError, Result};
use super::image::{bar, path};
use super::screen::{Format, Screen};
use super::words::{harmless, shell, size};
use crate::wire::{ImageView, VerifiedView, VerifyLine};

/// Verifies images.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The images; none: all
    names: Vec<String>,
}

impl Verify {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let (client, screen) = (context.client()?, &context.screen);
        let names = if self.names.is_empty() {
            let all: Vec<ImageView> = client.get("/api/v1/images").await?;
            all.into_iter().map(|image| image.name).collect()
        } else {
            self.names
        };
        let mut views = Vec::new();
        for name in &names {
            let view = verified(&client, screen, name).await?;
            if screen.format == Format::Text {
                screen.line(&told(&view))?;
            }
            views.push(view);
        }
        match screen.format {
            Format::Json => screen.json(&views)?,
            Format::Text if views.is_empty() => screen.remark("There is no image yet."),
            Format::Text => {}
        }
        let broken = views.iter().filter(|view| view.problem.is_some()).count();
        match (broken, views.len()) {
            (0, _) => Ok(()),
            (1, 1) => Err(CliError::failed("the image is not whole")),
            (broken, all) => Err(CliError::failed(format!("{broken} of {all} images are not whole"))),
        }
    }
}

async fn verified(client: &Client, screen: &Screen, name: &str) -> Result<VerifiedView> {
    let broke_off = || CliError::unreachable(format!("the verification of {} broke off", harmless(name)));
    let mut pieces = client.stream(&format!("{}/verify", path(name)), None).await?;
    let bar = bar(format!("verifying {}", harmless(name)), 0, screen);
    let mut text = Vec::new();
    let outcome = loop {
        let Some(piece) = pieces.next().await else { break Err(broke_off()) };
        text.extend_from_slice(&piece?);
        let mut done = None;
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            match serde_json::from_slice(&line).map_err(|_| broke_off())? {
                VerifyLine::Progress { read_bytes, total_bytes } => {
                    bar.set_length(total_bytes);
                    bar.set_position(read_bytes);
                }
                VerifyLine::Done(view) => done = Some(view),
            }
        }
        if let Some(view) = done {
            break Ok(view);
        }
    };
    bar.finish_and_clear();
    outcome
}

fn told(view: &VerifiedView) -> String {
    let name = harmless(&view.name);
    if let Some(problem) = &view.problem {
        let again = format!("import it again: kiwispray image import {} … --replace", shell(&name));
        return format!("{name}: not whole: {}: {again}", harmless(problem));
    }
    let files = if view.files == 1 { "1 file".to_owned() } else { format!("{} files", view.files) };
    let read = format!("{files}, {}", size(view.bytes));
    if view.unrecorded.is_empty() {
        return format!("{name}: whole ({read})");
    }
    let unrecorded = harmless(&view.unrecorded.join(", "));
    format!("{name}: readable ({read}); no sum was recorded of {unrecorded}, which `image import` does")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_image_is_one_line_with_the_remedy() {
        let view = VerifiedView { name: "image1".to_owned(), files: 8, bytes: 229_000_000, ..VerifiedView::default() };
        let problem = Some("B.xz is not as it was imported: its SHA-256 is another".to_owned());
        let lines = [
            told(&view),
            told(&VerifiedView { files: 1, unrecorded: vec!["vmlinuz".to_owned()], ..view.clone() }),
            told(&VerifiedView { problem, ..view }),
        ];
        insta::assert_snapshot!(lines.join("\n"), @"
        image1: whole (8 files, 229 MB)
        image1: readable (1 file, 229 MB); no sum was recorded of vmlinuz, which `image import` does
        image1: not whole: B.xz is not as it was imported: its SHA-256 is another: import it again: kiwispray image import image1 … --replace
        ");
    }
}

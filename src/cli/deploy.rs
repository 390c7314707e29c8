//! `kiwispray deploy`: what people mean by setting a state.

use clap::Args;

use super::Context;
use super::act::{Consent, Question, Targets, act_on};
use super::client::Act;
use super::error::Result;
use super::screen::Format;
use super::words::split_queue;
use crate::wire::EditHost;

/// Orders an image.
#[derive(Debug, Args)]
pub(crate) struct Deploy {
    /// The image, or several to be worked through, such as wipe,image1
    #[arg(value_name = "IMAGE")]
    image: String,
    #[command(flatten)]
    targets: Targets,
    #[command(flatten)]
    order: Order,
    #[command(flatten)]
    consent: Consent,
}

/// What an order may override.
#[derive(Debug, Clone, Args)]
pub(crate) struct Order {
    /// Install finished hosts again
    #[arg(long)]
    pub(crate) reinstall: bool,
    /// Give up attempts that are running
    #[arg(long)]
    pub(crate) abort: bool,
    /// Refuse unless the host has this serial number
    #[arg(long, value_name = "SERIAL")]
    pub(crate) expect_serial: Option<String>,
}

impl Deploy {
    pub(crate) async fn run(self, context: &Context) -> Result {
        self.targets.refuse_all()?;
        let Order { reinstall, abort, expect_serial } = self.order;
        let edit =
            EditHost { states: Some(split_queue(&self.image)), reinstall, abort, expect_serial, ..EditHost::default() };
        act_on(context, &self.targets, &Act::Edit(edit), self.consent, Question::Erasing).await?;
        if context.screen.format == Format::Text && !self.consent.dry_run {
            context.screen.remark("Waiting machines start by themselves within seconds: kiwispray host watch");
        }
        Ok(())
    }
}

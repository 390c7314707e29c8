//! `kiwispray host export`

use std::io::{self, BufWriter};

use clap::Args;

use super::super::Context;
use super::super::client::Selection;
use super::super::error::Result;
use super::super::screen::Format;
use super::super::sheet::{SheetFormat, write_csv, write_json};

/// Writes hosts as a list: all of them, or those that are named.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Only these: numbers, names, serial numbers, MACs, UUIDs, ranges such as 1-20
    #[arg(value_name = "HOST")]
    hosts: Vec<String>,
    /// Only those of which this is true, such as metadata.site=fra1 or state=new (several: all must be)
    #[arg(long = "where", value_name = "FIELD=VALUE")]
    conditions: Vec<String>,
    /// How it is written
    #[arg(long, value_name = "FORMAT", default_value = "csv")]
    format: SheetFormat,
}

impl Export {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let selection = Selection { hosts: self.hosts, conditions: self.conditions };
        let hosts = context.client()?.hosts(&selection).await?;
        let out = BufWriter::new(io::stdout().lock());
        match (context.screen.format, self.format) {
            (Format::Text, SheetFormat::Csv) => write_csv(&hosts, out)?,
            (Format::Json, _) | (_, SheetFormat::Json) => write_json(&hosts, out)?,
        }
        Ok(())
    }
}

//! `/api/v1/import/hosts`: a list of hosts, answered line by line.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt as _, stream};

use crate::domain::{Hostname, Identity, Ignore, Metadata};
use crate::hooks::Run;
use crate::service::{ImportOutcome, ImportProblem, Imported, Row};
use crate::wire::{HostRow, HostRows, RowAnswer, RowDone, RowProblem};

use super::error::Refusal;
use super::parse::{document, states};
use super::{Peer, Shared, view};

pub(super) async fn run(
    State(admin): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Bytes,
) -> Result<Response, Refusal> {
    let HostRows { hosts, leave_out, dry_run } = document(&body)?;
    drop(body);
    let settings = admin.service.settings();
    let rows = hosts.into_iter().map(|wanted| (wanted.line, row(wanted, &settings.ignore))).collect();
    let run = if dry_run { Run::Dry } else { Run::Real };
    let service = Arc::clone(&admin.service);
    let done = service.import(rows, peer.actor(), leave_out, run).await?;
    let answers = done.map(|done| RowAnswer::Line(told(done))).chain(stream::iter([RowAnswer::End]));
    let lines = answers.map(|answer| {
        let mut text = serde_json::to_vec(&answer).unwrap_or_default();
        text.push(b'\n');
        Ok::<_, Infallible>(Bytes::from(text))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

/// What a line says, or everything that is wrong with it.
fn row(wanted: HostRow, ignore: &Ignore) -> Result<Row, Vec<ImportProblem>> {
    let HostRow { line: _, hostname, serial, uuid, macs, states: queue, metadata } = wanted;
    let mut problems = Vec::new();
    let useless = |text: &str, why: crate::domain::IdentityDefect| format!("{text:?} identifies no machine: {why}");
    let mut identity = Identity::default();
    if let Some(text) = serial {
        match ignore.serial(&text) {
            Ok(serial) => identity.serial = Some(serial),
            Err(why) => problems.push(problem("serial", useless(&text, why))),
        }
    }
    if let Some(text) = uuid {
        match ignore.uuid(&text) {
            Ok(uuid) => identity.uuid = Some(uuid),
            Err(why) => problems.push(problem("uuid", useless(&text, why))),
        }
    }
    for text in macs {
        match ignore.mac(&text) {
            Ok(mac) => drop(identity.macs.insert(mac)),
            Err(why) => problems.push(problem("macs", useless(&text, why))),
        }
    }
    if identity.macs.len() > Identity::MOST_MACS {
        problems.push(problem("macs", format!("{} network cards at most", Identity::MOST_MACS)));
    }
    if identity.is_empty() && problems.is_empty() {
        let why = "a serial number, a UUID or a MAC is needed to recognise the machine by".to_owned();
        problems.push(ImportProblem { field: None, why });
    }
    let hostname =
        taken(hostname.map(|name| name.parse::<Hostname>().map_err(|e| e.to_string())), "hostname", &mut problems);
    let states = taken(queue.map(|queue| states(&queue).map_err(|e| e.sentence())), "states", &mut problems);
    let metadata = taken(Some(Metadata::try_from(metadata).map_err(|e| e.to_string())), "metadata", &mut problems);
    match problems.is_empty() {
        true => Ok(Row { identity, hostname, states, metadata: metadata.unwrap_or_default() }),
        false => Err(problems),
    }
}

fn taken<T>(read: Option<Result<T, String>>, field: &'static str, problems: &mut Vec<ImportProblem>) -> Option<T> {
    match read? {
        Ok(value) => Some(value),
        Err(why) => {
            problems.push(problem(field, why));
            None
        }
    }
}

const fn problem(field: &'static str, why: String) -> ImportProblem {
    ImportProblem { field: Some(field), why }
}

fn told(done: Imported) -> RowDone {
    let Imported { line, outcome, id, label, changes, kept, erases } = done;
    let (word, problems) = match outcome {
        ImportOutcome::Created => ("created", Vec::new()),
        ImportOutcome::Changed => ("changed", Vec::new()),
        ImportOutcome::Same => ("same", Vec::new()),
        ImportOutcome::Refused(problems) => ("refused", problems),
    };
    let problem = |problem: ImportProblem| RowProblem { field: problem.field.map(str::to_owned), why: problem.why };
    RowDone {
        line,
        outcome: word.to_owned(),
        id: id.map(|id| id.get()),
        hostname: Some(label).filter(|label| !label.is_empty()),
        changes,
        kept,
        problems: problems.into_iter().map(problem).collect(),
        erases: erases.iter().map(view::erasure).collect(),
    }
}

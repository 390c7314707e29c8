//! What plugins have beside their binding: lines that they wrote, events that could not be told, jobs, and a store of their own.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use jiff::Timestamp;
use serde::Deserialize;

use crate::domain::{HostId, PluginName};
use crate::hooks::{Hook, LogLevel, LogLine, Run};
use crate::service::{HostsError, Letters};
use crate::wire::{DroppedView, JobRanView, KeyView, LetterView, LogLineView, ReplayedView, RunJob};

use super::error::Refusal;
use super::parse::{bad, document, query as query_document};
use super::plugins::member;
use super::{Admin, Shared, view};

/// Letters and keys of one answer.
const MOST: u32 = 500;

type Answer<T> = Result<T, Refusal>;
/// Host and number of an event.
type Place = (HostId, u64);

/// All of a plugin's letters; those of one host; or one of them.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LettersQuery {
    host: Option<String>,
    event: Option<String>,
    /// The letter after which to go on, `<host>-<event>`.
    after: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct KeysQuery {
    prefix: String,
    after: Option<String>,
}

/// Only lines with a greater number.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LogsQuery {
    after: Option<String>,
}

impl LettersQuery {
    fn after(&self) -> Answer<Option<Place>> {
        let Some(text) = &self.after else { return Ok(None) };
        let place =
            text.split_once('-').and_then(|(host, seq)| Some((HostId::new(host.parse().ok()?), seq.parse().ok()?)));
        place.map(Some).ok_or_else(|| bad("after is <host>-<event>"))
    }

    /// Of which host, after which letter, and how many of them. One is looked for where it stands, not on the first page.
    fn page(&self) -> Answer<(Option<HostId>, Option<Place>, u32)> {
        Ok(match self.letters()? {
            Letters::One(host, event) => (Some(host), event.checked_sub(1).map(|before| (host, before)), 1),
            Letters::Of(host) => (Some(host), self.after()?, MOST),
            Letters::All => (None, self.after()?, MOST),
        })
    }

    fn letters(&self) -> Answer<Letters> {
        let number = |text: &String| text.parse::<u64>().map_err(|_| bad("host and event are numbers"));
        let (host, event) = (self.host.as_ref().map(number).transpose()?, self.event.as_ref().map(number).transpose()?);
        match (host.map(HostId::new), event) {
            (Some(host), Some(event)) => Ok(Letters::One(host, event)),
            (Some(host), None) => Ok(Letters::Of(host)),
            (None, None) => Ok(Letters::All),
            (None, Some(_)) => Err(bad("an event is one of a host: name it, too")),
        }
    }
}

pub(super) async fn logs(
    State(admin): Shared,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer<Json<Vec<LogLineView>>> {
    let LogsQuery { after } = query_document(query.as_deref())?;
    let after = after.map(|number| number.parse::<u64>()).transpose().map_err(|_| bad("after is a number"))?;
    let lines = admin.roster.log_lines(&member(&admin, &name)?.name);
    let newer = lines.into_iter().filter(|line| after.is_none_or(|after| line.number > after));
    Ok(Json(newer.map(line).collect()))
}

fn line(line: LogLine) -> LogLineView {
    let level = match line.level {
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
    };
    let at = i64::try_from(line.at_ms).ok().and_then(|at| Timestamp::from_millisecond(at).ok());
    LogLineView {
        number: line.number,
        at: at.unwrap_or(Timestamp::MAX),
        level: level.to_owned(),
        hook: line.hook.as_ref().map(Hook::to_string),
        call: line.call,
        text: line.text,
        fields: line.fields,
    }
}

pub(super) async fn letters(
    State(admin): Shared,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer<Json<Vec<LetterView>>> {
    let query = query_document::<LettersQuery>(query.as_deref())?;
    let (host, after, most) = query.page()?;
    let letters = admin.service.dead_letters(&member(&admin, &name)?.name, host, after, most).await?;
    let one = match query.letters()? {
        Letters::One(_, event) => Some(event),
        Letters::Of(_) | Letters::All => None,
    };
    let wanted = letters.into_iter().filter(|letter| one.is_none_or(|one| letter.event.seq == one));
    let letters = wanted.map(|letter| LetterView {
        event: view::event(&admin.service, &letter.event),
        error: letter.error,
        at: letter.at,
        attempts: letter.attempts,
    });
    Ok(Json(letters.collect()))
}

pub(super) async fn replay(
    State(admin): Shared,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer<Json<ReplayedView>> {
    let query = query_document::<LettersQuery>(query.as_deref())?;
    let (which, after) = (query.letters()?, query.after()?);
    let replayed = admin.service.replay_dead_letters(&member(&admin, &name)?.name, which, after).await?;
    let next = replayed.next.map(|(host, seq)| format!("{host}-{seq}"));
    Ok(Json(ReplayedView {
        told: replayed.told,
        failed: replayed.failed,
        next,
        left: replayed.left,
        error: replayed.error,
    }))
}

pub(super) async fn drop_letters(
    State(admin): Shared,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer<Json<DroppedView>> {
    let which = query_document::<LettersQuery>(query.as_deref())?.letters()?;
    Ok(Json(DroppedView { dropped: admin.service.drop_dead_letters(&member(&admin, &name)?.name, which).await? }))
}

pub(super) async fn run_job(
    State(admin): Shared,
    Path((name, job)): Path<(String, String)>,
    body: Bytes,
) -> Answer<Json<JobRanView>> {
    let RunJob { dry_run } = document(&body)?;
    let run = if dry_run { Run::Dry } else { Run::Real };
    let ran = admin.service.run_job_now(&member(&admin, &name)?.name, &job, run).await?;
    let error = ran.result.err().map(|error| error.to_string());
    Ok(Json(JobRanView { error, notes: ran.notes, took_ms: ran.took_ms }))
}

pub(super) async fn keys(
    State(admin): Shared,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer<Json<Vec<KeyView>>> {
    let KeysQuery { prefix, after } = query_document(query.as_deref())?;
    let plugin = plugin(&admin, &name)?;
    let keys = admin.service.plugin_keys(&plugin, &prefix, after.as_deref(), MOST).await.map_err(HostsError::Store)?;
    let keys = keys.into_iter().map(|key| KeyView {
        key: key.key,
        bytes: key.bytes as u64,
        version: key.version,
        value: None,
    });
    Ok(Json(keys.collect()))
}

pub(super) async fn value(State(admin): Shared, Path((name, key)): Path<(String, String)>) -> Answer<Json<KeyView>> {
    let plugin = plugin(&admin, &name)?;
    let found = admin.service.plugin_value(&plugin, &key).await.map_err(HostsError::Store)?;
    let found = found.ok_or_else(|| Refusal::NoKey(format!("the plugin {plugin} stores nothing under {key:?}")))?;
    let value = std::str::from_utf8(&found.value).ok().map(str::to_owned);
    Ok(Json(KeyView { key, bytes: found.value.len() as u64, version: found.version, value }))
}

fn plugin(admin: &Admin, name: &str) -> Answer<PluginName> {
    member(admin, name)?.name.parse().map_err(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_letter_is_found_however_many_stand_before_it() {
        let query = |text| query_document::<LettersQuery>(Some(text)).unwrap().page().unwrap();
        let host = HostId::new(7);
        assert_eq!(query("host=7&event=900"), (Some(host), Some((host, 899)), 1));
        assert_eq!(query("host=7&after=7-500"), (Some(host), Some((host, 500)), MOST));
        assert_eq!(query("after=9-3"), (None, Some((HostId::new(9), 3)), MOST));
    }
}

//! The clock, held against what was written last: one that was reset makes attempts, leases and timelines wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::{SignedDuration, Timestamp};

use super::Finding;
use crate::config::{Config, STORE_FOLDER};

const CHECK: &str = "clock";
/// Files of another machine may be a little ahead.
const TOLERANCE: SignedDuration = SignedDuration::from_mins(2);
/// No kiwispray is older than this.
const EARLIEST: &str = "2026-01-01T00:00:00Z";
/// Files that are looked at; a store has a handful, an images folder some hundred.
const FILES_MAX: usize = 5000;

/// The newest file that the server or its people wrote.
pub(super) fn look(config: &Config) -> Option<(PathBuf, Timestamp)> {
    let mut newest = None;
    let mut left = FILES_MAX;
    for folder in [&config.data_dir, &config.data_dir.join(STORE_FOLDER), &config.images_dir, &config.templates_dir] {
        newest_in(folder, &mut left, &mut newest);
    }
    newest.and_then(|(path, at)| Some((path, Timestamp::try_from(at).ok()?)))
}

fn newest_in(folder: &Path, left: &mut usize, newest: &mut Option<(PathBuf, SystemTime)>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Some(fewer) = left.checked_sub(1) else { return };
        *left = fewer;
        let Some(modified) = entry.metadata().ok().and_then(|found| found.modified().ok()) else { continue };
        if newest.as_ref().is_none_or(|(_, at)| *at < modified) {
            *newest = Some((entry.path(), modified));
        }
    }
}

pub(super) fn judge(now: Timestamp, newest: Option<&(PathBuf, Timestamp)>) -> Vec<Finding> {
    let remedy = "set the clock (`chronyc makestep`, or `timedatectl set-ntp true`) before the server starts";
    let said = now.strftime("%F %T UTC").to_string();
    if EARLIEST.parse::<Timestamp>().is_ok_and(|earliest| now < earliest) {
        return vec![Finding::fail(CHECK, "time", format!("says {said}, which is long past"), remedy)];
    }
    vec![match newest {
        Some((path, at)) if at.duration_since(now) > TOLERANCE => Finding::fail(
            CHECK,
            "time",
            format!("says {said}, and {} is from {}", path.display(), at.strftime("%F %T UTC")),
            format!("{remedy}; if that file's time is wrong, `touch` it"),
        ),
        Some(_) | None => Finding::ok(CHECK, "time", format!("says {said}")),
    }]
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_clock_behind_what_was_written_fails() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let newest = ("/data/x".into(), time("2026-11-22T10:00:00Z"));
        let verdict = |now: &str| judge(time(now), Some(&newest))[0].verdict;
        assert_eq!(verdict("2026-11-22T10:00:01Z"), Verdict::Ok);
        assert_eq!(verdict("2026-11-22T09:59:00Z"), Verdict::Ok);
        assert_eq!(verdict("2026-11-22T09:00:00Z"), Verdict::Fail);
        assert_eq!(judge(time("1970-01-01T00:00:10Z"), None)[0].verdict, Verdict::Fail);
        assert_eq!(judge(time("2027-01-01T00:00:00Z"), None)[0].verdict, Verdict::Ok);
    }
}

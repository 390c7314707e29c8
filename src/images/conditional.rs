//! What a request for a file is answered with: all of it, a part, or word that it did not change (RFC 9110, 13 and 14).
//!
//! Invariant: headers that cannot be understood are ignored, never refused: firmware sends strange ones, and all of a
//! file is always a right answer. Several ranges at once are such a case.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::HeaderMap;
use hyper::header::{HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, RANGE};

/// What validators and ranges are compared with.
#[derive(Debug, Clone)]
pub(super) struct Version {
    pub(super) size_bytes: u64,
    /// A strong validator, with its quotes.
    pub(super) etag: String,
    /// In whole seconds, as the header has no others.
    pub(super) modified: SystemTime,
}

/// What a file is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Extent {
    /// 200 and all of it.
    Whole,
    /// 206 and these bytes, at least one.
    Part(Range<u64>),
    /// 304.
    NotModified,
    /// 416.
    OutOfRange,
}

impl Version {
    /// The last second that an HTTP date can name, in the year 9999.
    const LATEST_S: i64 = 253_402_300_799;

    /// The version of an open file.
    pub(super) fn new(size_bytes: u64, inode: u64, modified_s: i64, modified_ns: u64) -> Self {
        let seconds = u64::try_from(modified_s.clamp(0, Self::LATEST_S)).unwrap_or_default();
        Self {
            size_bytes,
            etag: format!("\"{inode:x}-{modified_s:x}.{modified_ns:x}-{size_bytes:x}\""),
            modified: UNIX_EPOCH + Duration::from_secs(seconds),
        }
    }

    /// What a GET with these headers is answered with.
    pub(super) fn extent_for_get(&self, headers: &HeaderMap) -> Extent {
        if self.is_unchanged(headers) {
            return Extent::NotModified;
        }
        match single(headers, &RANGE) {
            Some(range) if self.range_applies(headers) => self.extent_of_range(range),
            Some(_) | None => Extent::Whole,
        }
    }

    /// What a HEAD with these headers is answered with: ranges are defined for GET only.
    pub(super) fn extent_for_head(&self, headers: &HeaderMap) -> Extent {
        if self.is_unchanged(headers) { Extent::NotModified } else { Extent::Whole }
    }

    fn is_unchanged(&self, headers: &HeaderMap) -> bool {
        if headers.contains_key(IF_NONE_MATCH) {
            let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
            // The date is not looked at when there are tags; weak tags are as good as strong ones here.
            return known
                .flat_map(|list| list.split(','))
                .map(str::trim)
                .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == self.etag);
        }
        let since = single(headers, &IF_MODIFIED_SINCE).and_then(|date| httpdate::parse_http_date(date).ok());
        since.is_some_and(|since| self.modified <= since)
    }

    /// `If-Range` asks for the range of that very version, else for all.
    fn range_applies(&self, headers: &HeaderMap) -> bool {
        if !headers.contains_key(IF_RANGE) {
            return true;
        }
        single(headers, &IF_RANGE).is_some_and(|wanted| {
            wanted == self.etag || httpdate::parse_http_date(wanted).is_ok_and(|date| date == self.modified)
        })
    }

    fn extent_of_range(&self, range: &str) -> Extent {
        let Some((first, last)) = range
            .split_once('=')
            .filter(|(unit, _)| unit.trim().eq_ignore_ascii_case("bytes"))
            .and_then(|(_, set)| set.trim().split_once('-'))
        else {
            return Extent::Whole;
        };
        let size = self.size_bytes;
        let part = match (position(first), position(last)) {
            (Position::Absent, Position::At(length)) => size.saturating_sub(length)..size,
            (Position::At(first), Position::Absent) => first..size,
            (Position::At(first), Position::At(last)) if first <= last => first..size.min(last.saturating_add(1)),
            _ => return Extent::Whole,
        };
        if part.is_empty() { Extent::OutOfRange } else { Extent::Part(part) }
    }
}

enum Position {
    Absent,
    At(u64),
    Wrong,
}

fn position(text: &str) -> Position {
    match text {
        "" => Position::Absent,
        // A number too large for any file is one behind the end of every file.
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => Position::At(digits.parse().unwrap_or(u64::MAX)),
        _ => Position::Wrong,
    }
}

/// The header's value, if it is there once and is text.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn version() -> Version {
        Version::new(100, 7, 784_111_777, 5)
    }

    fn get(headers: &[(HeaderName, &str)]) -> Extent {
        let headers =
            headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect();
        version().extent_for_get(&headers)
    }

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    #[test]
    fn one_range_is_answered_with_that_part() {
        for (range, part) in [
            ("bytes=0-0", 0..1),
            ("bytes=10-19", 10..20),
            ("bytes=90-", 90..100),
            ("bytes=90-200", 90..100),
            ("bytes=-10", 90..100),
            ("bytes=-200", 0..100),
            ("Bytes=99-99999999999999999999999", 99..100),
        ] {
            assert_eq!(get(&[(RANGE, range)]), Extent::Part(part), "{range}");
        }
    }

    #[test]
    fn ranges_that_cannot_be_met_are_refused_and_strange_ones_ignored() {
        for range in ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=99999999999999999999999-"] {
            assert_eq!(get(&[(RANGE, range)]), Extent::OutOfRange, "{range}");
        }
        for range in
            ["bytes=9-1", "bytes=0-1,5-6", "bytes=-", "bytes=a-b", "lines=0-1", "", "bytes", "bytes=--5", "bytes=+1-5"]
        {
            assert_eq!(get(&[(RANGE, range)]), Extent::Whole, "{range}");
        }
        assert_eq!(get(&[(RANGE, "bytes=0-1"), (RANGE, "bytes=2-3")]), Extent::Whole);
    }

    #[test]
    fn validators_decide_before_ranges() {
        let etag = version().etag;
        for tag in [etag.clone(), format!("W/{etag}"), format!("\"x\", {etag}"), "*".to_owned()] {
            assert_eq!(get(&[(IF_NONE_MATCH, &tag), (RANGE, "bytes=0-1")]), Extent::NotModified, "{tag}");
        }
        assert_eq!(get(&[(IF_NONE_MATCH, "\"x\""), (IF_MODIFIED_SINCE, DATE)]), Extent::Whole);
        assert_eq!(get(&[(IF_MODIFIED_SINCE, DATE)]), Extent::NotModified);
        assert_eq!(get(&[(IF_MODIFIED_SINCE, "Sun, 06 Nov 1994 08:49:36 GMT")]), Extent::Whole);
        assert_eq!(get(&[(IF_MODIFIED_SINCE, "yesterday")]), Extent::Whole);
    }

    #[test]
    fn if_range_gives_the_part_of_the_same_version_only() {
        let range = (RANGE, "bytes=0-1");
        for same in [version().etag.as_str(), DATE] {
            assert_eq!(get(&[range.clone(), (IF_RANGE, same)]), Extent::Part(0..2), "{same}");
        }
        let weak = format!("W/{}", version().etag);
        for other in ["\"x\"", &weak, "Sun, 06 Nov 1994 08:49:38 GMT"] {
            assert_eq!(get(&[range.clone(), (IF_RANGE, other)]), Extent::Whole, "{other}");
        }
    }

    #[test]
    fn dates_that_http_cannot_write_do_not_matter() {
        for seconds in [i64::MIN, -1, i64::MAX] {
            let _: String = httpdate::fmt_http_date(Version::new(1, 1, seconds, 0).modified);
        }
    }
}

//! Small wordings that several commands share.

use jiff::{SignedDuration, Timestamp};

use crate::wire::{Erasure, HostView, SafeguardView};

/// `node7 (host 7)`, or `host 7` for one without a name.
pub(crate) fn label(host: &HostView) -> String {
    match &host.hostname {
        Some(name) => format!("{name} (host {})", host.id),
        None => format!("host {}", host.id),
    }
}

/// A queue as people write it.
pub(crate) fn queue(states: &[String]) -> String {
    states.join(",")
}

/// The states of a queue as people write it; the server says what is wrong with them.
pub(crate) fn split_queue(text: &str) -> Vec<String> {
    text.split(',').map(|state| state.trim().to_owned()).collect()
}

/// How long ago something was: `now`, `40 s ago`, `5 min ago`, `3 h ago`, `12 d ago`.
pub(crate) fn ago(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(at).max(SignedDuration::ZERO).as_secs();
    match seconds {
        0..=4 => "now".to_owned(),
        5..=119 => format!("{seconds} s ago"),
        120..=7199 => format!("{} min ago", seconds / 60),
        7200..=172_799 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

/// When a host was last seen.
pub(crate) fn last_seen(host: &HostView, now: Timestamp) -> String {
    match (host.last_seen, host.seen) {
        (Some(at), _) => ago(at, now),
        (None, true) => "before the server started".to_owned(),
        (None, false) => "never".to_owned(),
    }
}

/// Who locked or froze, when and why.
pub(crate) fn since(safeguard: &SafeguardView) -> String {
    let why = if safeguard.why.is_empty() { String::new() } else { format!(": {}", safeguard.why) };
    format!("by {} since {}{why}", safeguard.by, safeguard.at.strftime("%F %T UTC"))
}

/// A size in bytes with three digits and a unit.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    let mut divisor = 1000_u64;
    for unit in UNITS {
        let tenths = bytes.saturating_mul(10) / divisor;
        if tenths < 1000 && bytes >= 1000 {
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
        if tenths < 10_000 && bytes >= 1000 {
            return format!("{} {unit}", tenths / 10);
        }
        divisor = divisor.saturating_mul(1000);
    }
    if bytes < 1000 { format!("{bytes} B") } else { format!("{} TB", bytes / 1_000_000_000_000) }
}

/// The disk that dies, in words.
pub(crate) fn disk(erasure: &Erasure) -> String {
    match erasure.disk.as_deref() {
        Some("first") => "its first disk".to_owned(),
        Some("smallest") => "its smallest disk".to_owned(),
        Some("all") => "all its disks".to_owned(),
        Some(path) => path.to_owned(),
        None => "a disk that the server cannot name".to_owned(),
    }
}

/// A text as one word of a shell command.
pub(crate) fn shell(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ',' | ':' | '/' | '=');
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// A text from outside with control characters, and those that reorder text, made visible, so that it cannot steer a
/// terminal.
pub(crate) fn harmless(text: &str) -> String {
    let steers = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if steers(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_one_number_and_one_unit() {
        let then: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        let after = |seconds| ago(then, then.checked_add(SignedDuration::from_secs(seconds)).unwrap());
        assert_eq!(
            [-5, 0, 30, 300, 7200, 86_400 * 3].map(after),
            ["now", "now", "30 s ago", "5 min ago", "2 h ago", "3 d ago"]
        );
    }

    #[test]
    fn sizes_have_three_digits() {
        assert_eq!(
            [0, 999, 1000, 1500, 999_999, 1_234_567, 123_456_789, 4_000_000_000, 7_000_000_000_000_000].map(size),
            ["0 B", "999 B", "1.0 kB", "1.5 kB", "999 kB", "1.2 MB", "123 MB", "4.0 GB", "7000 TB"]
        );
    }

    #[test]
    fn words_pass_the_shell_unchanged() {
        assert_eq!(shell("wipe,image1"), "wipe,image1");
        assert_eq!(shell(""), "''");
        assert_eq!(shell("it's $x"), r"'it'\''s $x'");
    }

    #[test]
    fn text_from_outside_cannot_steer_a_terminal() {
        assert_eq!(harmless("a\u{1b}[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
        assert_eq!(harmless("a\u{202e}b\u{9b}2J"), "a\u{fffd}b\u{fffd}2J");
    }
}

//! The escapers: one pure function per output language.
//!
//! The invariant (promise P6): whatever text goes in, what comes out is read by the language as one value and never as
//! code, and it has a bound. Where a language has no quoting at all (iPXE), what is not known to be harmless becomes `?`.

use std::fmt::Write as _;

/// Longest value in an iPXE script, in characters: a console line and a bit.
pub const IPXE_VALUE_CHARS_MAX: usize = 200;

/// A value for an iPXE script.
///
/// iPXE expands `${` again and again until none is left and knows no escape for it, so only an allow-list can be safe.
/// A leading `-` would be read as an option by the command in front of it. Backticks, which mark commands in our own
/// sentences, are left out: the console shows the command bare.
pub(crate) fn ipxe(value: &str) -> String {
    let bare = value.replace('`', "");
    let mut out: String =
        bare.trim().chars().take(IPXE_VALUE_CHARS_MAX).map(|c| if is_ipxe_plain(c) { c } else { '?' }).collect();
    if out.starts_with('-') {
        out.replace_range(..1, "?");
    }
    out
}

fn is_ipxe_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, ' ' | '.' | '_' | ':' | '/' | '@' | '=' | ',' | '+' | '-')
}

/// A value for a POSIX shell script: one single-quoted word. NUL, which no shell can hold, is dropped.
pub(crate) fn shell(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('\'');
    for c in value.chars() {
        match c {
            '\'' => out.push_str("'\\''"),
            '\0' => {}
            _ => out.push(c),
        }
    }
    out.push('\'');
    out
}

/// A value for JSON or YAML: a JSON string literal.
pub(crate) fn json(value: &str) -> String {
    json_value(&serde_json::Value::from(value))
}

/// Any JSON value as a literal on one line that is valid YAML as well: YAML forbids some characters that JSON allows raw.
pub(crate) fn json_value(value: &serde_json::Value) -> String {
    let plain = value.to_string();
    let mut out = String::with_capacity(plain.len());
    for c in plain.chars() {
        // All of these can stand only inside a string of the JSON text.
        match c {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            _ => out.push(c),
        }
    }
    out
}

/// A value within a kernel command line: spaces would begin another argument, so they become `?` as well.
pub(crate) fn kernel_args(value: &str) -> String {
    ipxe(value).replace(' ', "?")
}

/// A value for plain text: on one line, and without what a terminal would obey.
pub(crate) fn text(value: &str) -> String {
    value
        .chars()
        .map(|c| match c {
            '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}' => ' ',
            c if c.is_control() => '?',
            c => c,
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What firmware, people and CMDBs may send.
    pub(crate) fn hostile_values() -> Vec<String> {
        let mut values: Vec<String> = [
            "two\nlines",
            "quote'and\"quote",
            "${net0/mac} ${uuid}",
            "#!ipxe\nreboot",
            "a; reboot",
            "$(reboot)",
            "`reboot`",
            "a && reboot || exit",
            "--kill -x",
            "nul\0tab\tesc\u{1b}[2J",
            "Größe 机器 \u{2028}\u{202e}",
            "'; reboot; '",
            "\\",
            "",
        ]
        .map(String::from)
        .into();
        values.push("A$(`\"'".repeat(1700));
        values
    }

    #[test]
    fn every_language_keeps_hostile_values_as_values() {
        let mut all = String::new();
        for value in hostile_values() {
            let shown: String = value.chars().take(40).collect();
            let _ = writeln!(all, "value  {shown:?} ({} bytes)", value.len());
            for (name, escaped) in [
                ("ipxe", ipxe(&value)),
                ("shell", shell(&value)),
                ("json", json(&value)),
                ("kernel", kernel_args(&value)),
                ("text", text(&value)),
            ] {
                let shown: String = escaped.chars().take(60).collect();
                let _ = writeln!(all, "  {name:6} {} ({} bytes)", shown.escape_debug(), escaped.len());
            }
        }
        insta::assert_snapshot!(all);
    }

    proptest! {
        #[test]
        fn ipxe_values_hold_only_the_allow_list(value in any::<String>()) {
            let out = ipxe(&value);
            prop_assert!(out.chars().all(|c| is_ipxe_plain(c) || c == '?'));
            prop_assert!(!out.starts_with('-') && out.chars().count() <= IPXE_VALUE_CHARS_MAX);
        }

        #[test]
        fn json_values_read_back_unchanged(value in any::<String>()) {
            prop_assert_eq!(serde_json::from_str::<String>(&json(&value)).unwrap(), value);
        }

        #[test]
        fn shell_values_read_back_unchanged(value in "[^\0]*") {
            // The only way out of single quotes is a single quote, and each one is rewritten.
            let out = shell(&value);
            let inner = out.strip_prefix('\'').and_then(|v| v.strip_suffix('\'')).unwrap();
            prop_assert!(!inner.replace("'\\''", "").contains('\''));
            prop_assert_eq!(inner.replace("'\\''", "'"), value);
        }
    }
}

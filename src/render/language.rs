//! Which language a template writes, and what that means for a value put into it.
//!
//! The invariant: a template's file name alone chooses its language, and every language has exactly one escaper. A name
//! that says no language is refused, as "no escaping" is never a safe guess.

use std::fmt;

use super::escape;

/// The languages that templates write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Language {
    /// An iPXE script.
    Ipxe,
    /// A POSIX shell script.
    Shell,
    /// YAML; values are written as JSON strings, which YAML reads as they are.
    Yaml,
    /// JSON.
    Json,
    /// Kernel arguments on one or more lines, as in KIWI's `config.bootoptions`.
    KernelArgs,
    /// Plain text for people.
    Text,
}

impl Language {
    /// Every language, for building one registry of each.
    pub(crate) const ALL: [Language; 6] =
        [Language::Ipxe, Language::Shell, Language::Yaml, Language::Json, Language::KernelArgs, Language::Text];

    /// The language of a document by its name without `.hbs`: `post_install.sh`, `user-data`, `host.ipxe`.
    pub fn of(document: &str) -> Option<Language> {
        match document {
            "user-data" | "meta-data" | "vendor-data" | "network-config" | "minion.conf" => {
                return Some(Language::Yaml);
            }
            "hostname" | "motd" => return Some(Language::Text),
            "config.bootoptions" => return Some(Language::KernelArgs),
            _ => {}
        }
        match document.rsplit_once('.')?.1 {
            "ipxe" => Some(Language::Ipxe),
            "sh" => Some(Language::Shell),
            "yaml" | "yml" => Some(Language::Yaml),
            "json" | "ign" => Some(Language::Json),
            "append" => Some(Language::KernelArgs),
            "txt" => Some(Language::Text),
            _ => None,
        }
    }

    /// The media type under which a rendered document is served.
    pub fn content_type(self) -> &'static str {
        match self {
            Language::Ipxe | Language::KernelArgs | Language::Text => "text/plain; charset=utf-8",
            Language::Shell => "text/x-shellscript; charset=utf-8",
            Language::Yaml => "application/yaml",
            Language::Json => "application/json",
        }
    }

    /// A value as this language may carry it without ever reading it as code.
    pub(crate) fn escape(self, value: &str) -> String {
        match self {
            Language::Ipxe => escape::ipxe(value),
            Language::Shell => escape::shell(value),
            Language::Yaml | Language::Json => escape::json(value),
            Language::KernelArgs => escape::kernel_args(value),
            Language::Text => escape::text(value),
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Language::Ipxe => "iPXE",
            Language::Shell => "shell",
            Language::Yaml => "YAML",
            Language::Json => "JSON",
            Language::KernelArgs => "kernel arguments",
            Language::Text => "plain text",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_chooses_the_language_and_an_unknown_one_chooses_none() {
        assert_eq!(Language::of("host.ipxe"), Some(Language::Ipxe));
        assert_eq!(Language::of("post_install.sh"), Some(Language::Shell));
        assert_eq!(Language::of("user-data"), Some(Language::Yaml));
        assert_eq!(Language::of("config.bootoptions"), Some(Language::KernelArgs));
        assert_eq!(Language::of("answer.xml"), None);
        assert_eq!(Language::of("noextension"), None);
    }
}

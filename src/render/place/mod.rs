//! Where in its language a template puts a value.
//!
//! An escaper makes a value safe for one kind of place: a shell value is a single-quoted word, which inside double quotes
//! would be expanded after all. The invariant: each [`Place`] follows the template's own text and refuses a value wherever
//! the language would not read the escaped form as one value. It errs towards refusing.

mod data;
mod ipxe;
mod shell;

use super::language::Language;

/// A value stands where its escaping does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Misplaced {
    pub(crate) what: &'static str,
    pub(crate) remedy: &'static str,
}

/// The state of reading a template's output so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Values are safe anywhere.
    Anywhere,
    Ipxe(ipxe::IpxePlace),
    Shell(shell::ShellPlace),
    Data(data::DataPlace),
}

impl Place {
    /// At the beginning of a document.
    pub(crate) fn start(language: Language) -> Place {
        match language {
            Language::Ipxe => Place::Ipxe(ipxe::IpxePlace::default()),
            Language::Shell => Place::Shell(shell::ShellPlace::default()),
            Language::Yaml => Place::Data(data::DataPlace::yaml()),
            Language::Json => Place::Data(data::DataPlace::json()),
            Language::KernelArgs | Language::Text => Place::Anywhere,
        }
    }

    /// Text of the template itself follows.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Misplaced> {
        match self {
            Place::Anywhere => Ok(()),
            Place::Ipxe(place) => {
                place.text(text);
                Ok(())
            }
            Place::Shell(place) => {
                place.text(text);
                Ok(())
            }
            Place::Data(place) => place.text(text),
        }
    }

    /// A value follows.
    pub(crate) fn value(&mut self) -> Result<(), Misplaced> {
        match self {
            Place::Anywhere => Ok(()),
            Place::Ipxe(place) => place.value(),
            Place::Shell(place) => place.value(),
            Place::Data(place) => place.value(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a value may stand where the text has `@`.
    fn accepts(language: Language, text: &str) -> bool {
        let mut place = Place::start(language);
        let mut parts = text.split('@');
        let first = parts.next().unwrap_or_default();
        place.text(first).is_ok() && parts.all(|part| place.value().is_ok() && place.text(part).is_ok())
    }

    #[track_caller]
    fn check(language: Language, good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(accepts(language, text), "{language} should take a value in {text:?}");
        }
        for text in bad {
            assert!(!accepts(language, text), "{language} should refuse a value in {text:?}");
        }
    }

    #[test]
    fn shell_values_stand_only_outside_quotes_comments_and_here_documents() {
        check(
            Language::Shell,
            &[
                "echo @",
                "a=@ b",
                "x=$(echo @)",
                "x=\"$(echo @)\"",
                "echo \"a\" 'b' @",
                "echo a#b @",
                "echo ${#a} @",
                "cat <<EOF\nx\nEOF\necho @",
                "cat <<-'E F'\nx\n\tE F\necho @",
                "a=$((1 << 2)); echo @",
                "cat <<<@",
                "echo \\\" @",
                "# don't\necho @",
                "case x in a) echo @;; esac",
                "( (echo a); echo @ )",
                "((y = (2) + 3)); echo @",
                "((a); (b)); f() (echo @)",
                "x=$((1)); for ((i = 0; i < 3; i++)); do echo @; done",
            ],
            &[
                "echo \"@\"",
                "echo '@'",
                "# @",
                "echo; # @",
                "cat <<EOF\n@\nEOF",
                "cat <<'EOF'\n@\nEOF",
                "cat <<@",
                "echo `cat @`",
                "echo ${x:-@}",
                "echo $@",
                "echo \\@",
                "x=\"$(echo \"@\")\"",
                "x=\"$(echo a) @\"",
                "echo $'@'",
                "a=$((@))",
                "((a = @))",
                "x=1; ((a = (1) + @))",
                "for ((i = 0; i < @; i++)); do :; done",
                "echo \"$( ((@)) )\"",
            ],
        );
    }

    #[test]
    fn ipxe_values_are_arguments_never_commands_or_settings() {
        check(
            Language::Ipxe,
            &["#!ipxe\necho host @", "sleep @\n", "isset ${ip} || echo @", "# @", "chain http://x/@ || exit 1"],
            &["#!ipxe\n@", "isset ${ip} || @", "foo@ x\n\n  @", "echo ${@}", "ab@", "isset x && @"],
        );
    }

    #[test]
    fn data_values_are_whole_values() {
        check(
            Language::Json,
            &["{\"a\": @}", "[@, @]", "@", "{\"a\": [\n  @\n]}\n"],
            &["{\"a\": \"@\"}", "\"a: @, b\"", "[1 @]", "[@ 1]", "[@@]", "{\"a\": 1@}"],
        );
        check(
            Language::Yaml,
            &[
                "#cloud-config\nhostname: @\n",
                "- @\n- - @",
                "a: [x, @, y]",
                "a: {b: @}",
                "a:\n  @\n",
                "a: |\n  text\nb: @",
                "- a: |\n    text\n  b: @",
                "a: don't\nb: @",
                "a: @ # why\n",
            ],
            &[
                "a: \"@\"",
                "a: '@'",
                "- echo @",
                "- echo a, @",
                "- echo x - @",
                "a: |\n  @\n",
                "a: |\n  - x\n\n  - @\n",
                "- |\n  b: @\n",
                "url: http:@",
                "a: @ b",
                "a: @@",
            ],
        );
    }
}

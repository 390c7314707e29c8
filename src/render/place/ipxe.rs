//! Places in an iPXE script: a value may be an argument or part of one, never a command or the name of a setting.

use super::Misplaced;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IpxePlace {
    /// The word being read, or the next one, is a command.
    in_command: bool,
    /// The beginning of the word being read: enough to tell `||` and `&&` from anything else.
    word: String,
    /// How many `${` are open.
    open_settings: usize,
    last: char,
}

impl Default for IpxePlace {
    fn default() -> IpxePlace {
        IpxePlace { in_command: true, word: String::new(), open_settings: 0, last: '\n' }
    }
}

impl IpxePlace {
    pub(super) fn text(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '\n' => *self = IpxePlace::default(),
                c if c.is_whitespace() => {
                    if !self.word.is_empty() {
                        self.in_command = matches!(self.word.as_str(), "||" | "&&" | ";");
                        self.word.clear();
                    }
                }
                '{' if self.last == '$' => self.open_settings += 1,
                '}' => self.open_settings = self.open_settings.saturating_sub(1),
                c => self.begin_word(c),
            }
            self.last = c;
        }
    }

    pub(super) fn value(&mut self) -> Result<(), Misplaced> {
        if self.open_settings > 0 || self.last == '$' {
            return Err(Misplaced {
                what: "a value stands inside ${…}, where it would choose which setting is read",
                remedy: "name the setting in the template itself",
            });
        }
        if self.in_command {
            return Err(Misplaced {
                what: "a value stands where iPXE expects a command",
                remedy: "put a command in front of it, as in `echo Host {{host.hostname}}`",
            });
        }
        self.begin_word('v');
        self.last = 'v';
        Ok(())
    }

    fn begin_word(&mut self, c: char) {
        if self.word.len() < 3 {
            self.word.push(c);
        }
    }
}

//! Places in JSON and YAML: a value is a JSON string literal, so it may stand only where a whole value stands, never within
//! a string, a plain or block scalar, or next to other text.

use super::Misplaced;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DataPlace {
    is_yaml: bool,
    /// The last character that is not white space; `\0` at the beginning.
    last_solid: char,
    /// The last character.
    last: char,
    /// The quote that opened the string being read.
    quote: Option<char>,
    escaped: bool,
    /// The last thing was a value: what follows must end it.
    after_value: bool,
    in_comment: bool,
    /// How many `[` and `{` are open.
    flow_depth: usize,
    /// Column of the next character on its line, from 0, as long as the line has no content.
    column: usize,
    /// Column of the first character that is neither a space nor a list's dash.
    content_column: Option<usize>,
    /// Column of the last list dash before the content.
    dash_column: Option<usize>,
    /// Inside a YAML block scalar, whose lines are indented deeper than this.
    block: Option<usize>,
}

const WHOLE: &str =
    "let it be the whole value, without quotes or text around it: `key: {{value}}` (it brings its own quotes)";

impl DataPlace {
    pub(super) fn json() -> DataPlace {
        DataPlace {
            is_yaml: false,
            last_solid: '\0',
            last: '\n',
            quote: None,
            escaped: false,
            after_value: false,
            in_comment: false,
            flow_depth: 0,
            column: 0,
            content_column: None,
            dash_column: None,
            block: None,
        }
    }

    pub(super) fn yaml() -> DataPlace {
        DataPlace { is_yaml: true, ..DataPlace::json() }
    }

    pub(super) fn text(&mut self, text: &str) -> Result<(), Misplaced> {
        text.chars().try_for_each(|c| self.read(c))
    }

    pub(super) fn value(&mut self) -> Result<(), Misplaced> {
        let refuse = |what| Err(Misplaced { what, remedy: WHOLE });
        if self.quote.is_some() {
            return refuse("a value stands inside a string");
        }
        if self.block.is_some() || self.in_comment {
            return refuse("a value stands inside a block of text or a comment");
        }
        if self.after_value || !self.is_value_position() {
            return refuse("a value stands where no whole value can stand");
        }
        self.after_value = true;
        self.enter_content();
        self.last_solid = 'v';
        self.last = 'v';
        Ok(())
    }

    fn read(&mut self, c: char) -> Result<(), Misplaced> {
        if c == '\n' {
            self.newline();
            return Ok(());
        }
        let column = self.column;
        // Columns matter only up to a line's content; counting on would make places differ that are alike.
        if self.is_yaml && self.content_column.is_none() {
            self.column += 1;
        }
        if self.in_comment {
            return Ok(());
        }
        if self.content_column.is_none() && c != ' ' && self.block.is_some_and(|indent| column <= indent) {
            self.block = None;
        }
        if self.block.is_some() {
            if c != ' ' {
                self.content_column.get_or_insert(column);
            }
            return Ok(());
        }
        if let Some(quote) = self.quote {
            self.read_string(c, quote);
            return Ok(());
        }
        if c.is_whitespace() {
            self.last = c;
            return Ok(());
        }
        let starts_word = self.last.is_whitespace();
        if self.is_yaml && c == '#' && starts_word {
            self.in_comment = true;
            return Ok(());
        }
        if self.after_value && !matches!(c, ',' | ']' | '}' | ':') {
            return Err(Misplaced { what: "text follows a value directly", remedy: WHOLE });
        }
        self.after_value = false;
        self.read_solid(c, column);
        self.last_solid = c;
        self.last = c;
        Ok(())
    }

    fn read_solid(&mut self, c: char, column: usize) {
        let at_value = self.is_value_position();
        match c {
            '"' if at_value || !self.is_yaml => self.quote = Some(c),
            '\'' if at_value && self.is_yaml => self.quote = Some(c),
            '[' | '{' if at_value => self.flow_depth += 1,
            ']' | '}' => self.flow_depth = self.flow_depth.saturating_sub(1),
            '|' | '>' if at_value && self.is_yaml && self.flow_depth == 0 => {
                self.block = Some(self.content_column.or(self.dash_column).unwrap_or(0));
            }
            '-' if self.content_column.is_none() && self.is_yaml => {
                self.dash_column = Some(column);
                return;
            }
            _ => {}
        }
        self.content_column.get_or_insert(column);
    }

    fn read_string(&mut self, c: char, quote: char) {
        if self.escaped {
            self.escaped = false;
        } else if c == '\\' && quote == '"' {
            self.escaped = true;
        } else if c == quote {
            self.quote = None;
        }
        self.last = c;
        self.last_solid = c;
    }

    fn newline(&mut self) {
        self.in_comment = false;
        self.column = 0;
        self.content_column = None;
        self.dash_column = None;
        self.last = '\n';
        if self.is_yaml && self.flow_depth == 0 && self.block.is_none() {
            self.after_value = false;
        }
    }

    fn enter_content(&mut self) {
        self.content_column.get_or_insert(self.column);
    }

    /// Whether a whole value may begin here.
    fn is_value_position(&self) -> bool {
        let spaced = !self.is_yaml || self.last.is_whitespace();
        match self.last_solid {
            '\0' => true,
            '[' | '{' => true,
            ',' => self.flow_depth > 0,
            ':' => spaced,
            '-' => self.is_yaml && spaced && self.content_column.is_none() && self.dash_column.is_some(),
            _ => false,
        }
    }
}

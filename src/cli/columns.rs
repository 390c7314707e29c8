//! Text in columns that line up.
//!
//! Invariant: a hundred thousand rows take a moment, as `host list` of a whole fleet does; so every cell is measured once, and
//! everything is written into one text.

use unicode_width::UnicodeWidthStr;

use super::screen::Paint;
use super::words::harmless;

/// Rows below a header.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<Cell>>,
}

/// A text and what its colour means.
#[derive(Debug)]
pub(crate) struct Cell {
    text: String,
    paint: Paint,
    width: usize,
}

/// Blanks between columns.
const GAP: usize = 2;

impl Cell {
    /// The text, made harmless.
    pub(crate) fn new(text: &str, paint: Paint) -> Self {
        let text = harmless(text);
        let width = if text.is_ascii() { text.len() } else { text.width() };
        Self { text, paint, width }
    }
}

impl Table {
    /// A table with these columns.
    pub(crate) fn new(header: impl IntoIterator<Item = &'static str>) -> Self {
        Self { rows: vec![header.into_iter().map(|name| Cell::new(name, Paint::Plain)).collect()] }
    }

    /// Adds a row.
    pub(crate) fn add_row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table as lines, without blanks at their ends.
    pub(crate) fn rendered(&self) -> String {
        let mut widths: Vec<usize> = Vec::new();
        for row in &self.rows {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width);
            }
        }
        let line: usize = widths.iter().map(|width| width.saturating_add(GAP)).sum();
        let mut text = String::with_capacity(line.saturating_mul(self.rows.len()));
        for row in &self.rows {
            if !text.is_empty() {
                text.push('\n');
            }
            let mut blanks = 0;
            for (width, cell) in widths.iter().zip(row) {
                if !cell.text.is_empty() {
                    text.extend(std::iter::repeat_n(' ', blanks));
                    blanks = 0;
                    if cell.paint == Paint::Plain {
                        text.push_str(&cell.text);
                    } else {
                        text.push_str(&cell.paint.on(&cell.text, true));
                    }
                }
                blanks = blanks.saturating_add(width.saturating_sub(cell.width)).saturating_add(GAP);
            }
        }
        text
    }
}

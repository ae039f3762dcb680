//! Tables: a bold heading, two spaces between columns, numbers aligned right.

use comfy_table::{Attribute, CellAlignment, Color, ContentArrangement, presets::NOTHING};
use std::fmt;

/// A table. Its text is at most as wide as the terminal on standard output, if there is one, and has
/// no spaces at line ends.
#[derive(Clone, Debug)]
pub struct Table(comfy_table::Table);

/// A cell of a table.
#[derive(Clone, Debug)]
pub struct Cell(comfy_table::Cell);

impl Table {
    /// A table with these headings; columns whose heading starts with `>` are aligned to the right.
    /// Headings are bold, and cells have colors, if standard output has colors.
    pub fn new(headings: &[&str]) -> Self {
        let mut table = comfy_table::Table::new();
        let colored = console::colors_enabled();
        table
            .load_preset(NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled);
        if colored {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table.set_header(headings.iter().map(|heading| {
            let cell = comfy_table::Cell::new(heading.trim_start_matches('>'));
            if colored {
                cell.add_attribute(Attribute::Bold)
            } else {
                cell
            }
        }));
        for (heading, column) in headings.iter().zip(table.column_iter_mut()) {
            column.set_padding((0, 2));
            if heading.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self(table)
    }

    /// Adds a row; cells that are left out at its end are empty.
    pub fn row<C: Into<Cell>>(&mut self, cells: impl IntoIterator<Item = C>) {
        let cells = cells.into_iter().map(|cell| cell.into().0);
        self.0.add_row(cells.collect::<Vec<_>>());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = self.0.clone();
        let terminal = console::Term::stdout();
        if terminal.is_term() {
            // Cells are wrapped if the terminal is too narrow.
            table
                .set_content_arrangement(ContentArrangement::Dynamic)
                .set_width(terminal.size().1);
        }
        for (index, line) in table.lines().enumerate() {
            let end = if index > 0 { "\n" } else { "" };
            write!(f, "{end}{}", line.trim_end())?;
        }
        Ok(())
    }
}

impl Cell {
    /// A green cell, for what went well.
    pub fn good(text: impl ToString) -> Self {
        Self(comfy_table::Cell::new(text).fg(Color::Green))
    }

    /// A red cell, for what did not.
    pub fn bad(text: impl ToString) -> Self {
        Self(comfy_table::Cell::new(text).fg(Color::Red))
    }
}

impl<T: fmt::Display> From<T> for Cell {
    fn from(text: T) -> Self {
        Self(comfy_table::Cell::new(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_below_each_other_and_lines_end_with_text() {
        console::set_colors_enabled(false);
        let mut table = Table::new(&["task", ">right", ""]);
        table.row([Cell::from("sums"), 7.into(), Cell::good("passed")]);
        table.row(["words", "1,234"]);
        let text = "task   right\n\
                    sums       7  passed\n\
                    words  1,234";
        assert_eq!(table.to_string(), text);
    }
}

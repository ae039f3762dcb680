//! Tables for users: a bold heading, two spaces between columns, numbers aligned right.

use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table, presets::NOTHING};

/// A table with these headings; columns whose heading starts with `>` are aligned to the right.
pub(crate) fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
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
        let cell = Cell::new(heading.trim_start_matches('>'));
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
    table
}

/// The table with at most the width of the terminal, without spaces at line ends.
pub(crate) fn text(table: &Table) -> String {
    let mut table = table.clone();
    let terminal = console::Term::stdout();
    if terminal.is_term() {
        // Cells are wrapped if the terminal is too narrow.
        table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(terminal.size().1);
    }
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n")
}

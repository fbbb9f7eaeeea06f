//! Tables for people, without lines around the cells, as kubectl and talosctl print them.

use comfy_table::{ContentArrangement, Table, presets};

pub type Cell = String;

/// A header row and rows; columns are as wide as they need, never wrapped.
pub fn render(header: &[&str], rows: Vec<Vec<Cell>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

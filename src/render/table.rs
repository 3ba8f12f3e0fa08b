//! Plain columns: two spaces between, no rules, nothing after the last word.

use comfy_table::{Cell, Color, ContentArrangement, Table, presets};

use super::clean_line;

/// Columns under a header. Texts must be clean.
pub(super) fn columns(header: &[&str], rows: Vec<Vec<Cell>>, colour: bool) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if colour {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.set_header(header).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(&trimmed(&line));
        text.push('\n');
    }
    text
}

/// A line without the blanks at its end, those inside a colour too.
fn trimmed(line: &str) -> String {
    let mut end = 0;
    let mut in_sequence = false;
    for (place, letter) in line.char_indices() {
        match (in_sequence, letter) {
            (false, '\x1b') => in_sequence = true,
            (true, letter) => in_sequence = !letter.is_ascii_alphabetic(),
            (false, ' ') => {}
            (false, _) => end = place + letter.len_utf8(),
        }
    }
    // What follows the last letter are blanks and the ends of colours.
    let (text, rest) = line.split_at(end);
    text.chars().chain(rest.chars().filter(|letter| *letter != ' ')).collect()
}

/// `Field  Value` rows.
pub fn fields(rows: &[(&str, String)]) -> String {
    let cells =
        rows.iter().map(|(name, value)| vec![Cell::new(name), Cell::new(clean_line(value))]).collect();
    columns(&["Field", "Value"], cells, false)
}

/// Any rows under any header; every text is made fit for one line.
pub fn rows(header: &[&str], rows: &[Vec<String>]) -> String {
    let cells = rows.iter().map(|row| row.iter().map(|text| Cell::new(clean_line(text))).collect()).collect();
    columns(header, cells, false)
}

/// A cell in a colour, or plain.
pub(super) fn coloured(text: &str, colour: Option<Color>) -> Cell {
    match colour {
        Some(colour) => Cell::new(text).fg(colour),
        None => Cell::new(text),
    }
}

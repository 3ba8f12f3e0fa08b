//! Plain columns: two spaces between, no rules, nothing after the last word.

use comfy_table::{Cell, Color, ContentArrangement, Table, presets};

use unicode_width::UnicodeWidthStr;

use super::{Style, clean_line, shorten};

/// How many blanks stand between two columns.
const GAP: usize = 2;

/// Columns under a header. Texts must be clean.
pub(super) fn columns(header: &[&str], rows: Vec<Vec<Cell>>, colour: bool) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if colour {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    if !header.is_empty() {
        table.set_header(header);
    }
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP as u16));
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

/// Any rows under any header; every text is made fit for one line, and the table for the terminal.
pub fn rows(header: &[&str], rows: &[Vec<String>], style: &Style) -> String {
    let mut rows = clean_rows(rows);
    // An ID that is cut is none.
    let widest_first: Vec<usize> = (0..width_of(header, &rows))
        .filter(|column| {
            let name = header.get(*column).copied().unwrap_or_default().to_ascii_lowercase();
            let is_id = matches!(name.as_str(), "id" | "short_id" | "agent_id" | "run_id");
            !is_id && !is_of_numbers(&rows, *column)
        })
        .collect();
    let mut header: Vec<String> = header.iter().map(|name| clean_line(name)).collect();
    fit(&mut header, &mut rows, &[&widest_first], style.room());
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    columns(&header, cells(&rows), false)
}

/// Rows without a header, fitted to `width` columns if it is given.
pub fn grid(rows: &[Vec<String>], width: Option<usize>) -> String {
    let mut rows = clean_rows(rows);
    let texts: Vec<usize> =
        (0..width_of(&[], &rows)).filter(|column| !is_of_numbers(&rows, *column)).collect();
    fit(&mut [], &mut rows, &[&texts], width);
    columns(&[], cells(&rows), false)
}

fn clean_rows(rows: &[Vec<String>]) -> Vec<Vec<String>> {
    rows.iter().map(|row| row.iter().map(|text| clean_line(text)).collect()).collect()
}

fn cells(rows: &[Vec<String>]) -> Vec<Vec<Cell>> {
    rows.iter().map(|row| row.iter().map(Cell::new).collect()).collect()
}

/// The number of columns.
fn width_of(header: &[&str], rows: &[Vec<String>]) -> usize {
    rows.iter().map(Vec::len).max().unwrap_or(0).max(header.len())
}

fn is_of_numbers(rows: &[Vec<String>], column: usize) -> bool {
    rows.iter().filter_map(|row| row.get(column)).all(|text| text.is_empty() || text.parse::<f64>().is_ok())
}

/// A column is cut to no fewer, unless nothing else helps.
const NARROWEST: usize = 10;
/// A column is never cut to fewer: a letter and the dots.
const LEAST: usize = 4;

/// Shortens texts until the table is no wider than the terminal: those of the widest columns first, in the columns of
/// the first stage, and only then of the next.
pub(super) fn fit(
    header: &mut [String],
    rows: &mut [Vec<String>],
    stages: &[&[usize]],
    width: Option<usize>,
) {
    let Some(room) = width else { return };
    let count = rows.iter().map(Vec::len).max().unwrap_or(0).max(header.len());
    let of = |texts: &[String], column: usize| texts.get(column).map_or(0, |text| text.width());
    let mut widths: Vec<usize> = (0..count)
        .map(|column| rows.iter().map(|row| of(row, column)).max().unwrap_or(0).max(of(header, column)))
        .collect();
    let gaps = GAP * count.saturating_sub(1);
    for least in [NARROWEST, LEAST] {
        for stage in stages {
            loop {
                let over = (widths.iter().sum::<usize>() + gaps).saturating_sub(room);
                let widest =
                    stage.iter().filter_map(|column| widths.get(*column)).copied().max().unwrap_or(0);
                if over == 0 || widest <= least {
                    break;
                }
                // All of the widest give way together, down to the next narrower one.
                let all: Vec<usize> =
                    stage.iter().copied().filter(|column| widths.get(*column) == Some(&widest)).collect();
                let next =
                    stage.iter().filter_map(|column| widths.get(*column)).filter(|width| **width < widest);
                let step =
                    (widest - next.max().copied().unwrap_or(0).max(least)).min(over.div_ceil(all.len()));
                // Of what is over, nobody gives a column more than is needed.
                for (place, column) in all.iter().enumerate() {
                    widths[*column] -= step.min(over - (over.min(step * place)));
                }
            }
        }
    }
    for row in rows.iter_mut().map(Vec::as_mut_slice).chain([header]) {
        for (text, width) in row.iter_mut().zip(&widths) {
            if text.width() > *width {
                *text = shorten(text, *width);
            }
        }
    }
}

/// A cell in a colour, or plain.
pub(super) fn coloured(text: &str, colour: Option<Color>) -> Cell {
    match colour {
        Some(colour) => Cell::new(text).fg(colour),
        None => Cell::new(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Timestamp;
    use proptest::prelude::*;

    fn style(width: usize) -> Style {
        Style { width: Some(width), colour: false, truncate: true, now: Timestamp::from_millis(0) }
    }

    fn table(width: usize) -> String {
        let row = |id: &str, count: &str, a: &str, b: &str| [id, count, a, b].map(str::to_owned).to_vec();
        let lines = [
            row("5a3f7b9c2e1d", "3", &"a".repeat(30), "short"),
            row("8d4e6f1a3b2c", "12345", "x", &"b".repeat(20)),
        ];
        rows(&["id", "count", "title", "note"], &lines, &style(width))
    }

    #[test]
    fn the_widest_texts_give_way_first() {
        let widest = |text: &str| text.lines().map(UnicodeWidthStr::width).max().unwrap_or(0);
        assert_eq!(widest(&table(200)), 12 + 2 + 5 + 2 + 30 + 2 + 20);
        assert_eq!(
            table(60),
            "id            count  title               note\n\
             5a3f7b9c2e1d  3      aaaaaaaaaaaaaaa...  short\n\
             8d4e6f1a3b2c  12345  x                   bbbbbbbbbbbbbbbb...\n"
        );
        // IDs and numbers stay whole.
        let narrow = table(40);
        assert!(
            widest(&narrow) <= 40 && narrow.contains("5a3f7b9c2e1d  3 ") && narrow.contains("12345"),
            "{narrow}"
        );
        let whole = Style { truncate: false, ..style(20) };
        assert!(rows(&["title"], &[vec!["x".repeat(50)]], &whole).contains(&"x".repeat(50)));
    }

    #[test]
    fn rows_need_no_header() {
        assert_eq!(
            grid(&[vec!["a".into(), "1".into()], vec!["bcd".into(), "2".into()]], Some(80)),
            "a    1\nbcd  2\n"
        );
    }

    proptest! {
        #[test]
        fn a_table_of_texts_always_fits(lines in proptest::collection::vec(proptest::collection::vec("[a-z日 ]{0,40}", 4), 1..6), width in 22usize..120) {
            let text = rows(&["one", "two", "three", "four"], &lines, &style(width));
            prop_assert!(text.lines().all(|line| line.width() <= width), "{width}\n{text}");
        }
    }
}
